"""What --model_name_or_path can be, as far as that is seen before anything is loaded. Imports no PaddlePaddle."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection
from pathlib import Path

from clue_utils.errors import UserError, shorten
from clue_utils.language import say
from clue_utils.size_class import CONFIG_FILES

# What a model can be called: "bert-base-chinese", "hfl/rbt3".
_NAME = re.compile(r"\w[\w.+-]*(/[\w.+-]+)?", re.ASCII)


def require_possible(name: str, known: Collection[str]) -> None:
    """Refuse what is neither a folder nor can be the name of a model.

    Args:
        known: names of models, of which the nearest is shown.

    Raises:
        UserError: it is to be refused.
    """
    shown = shorten(name, 200) or "''"
    if os.path.exists(name) and not os.path.isdir(name):
        raise UserError(say("{shown}: a file; name the folder that it is in, with all files of the model", shown=shown))
    if not os.path.isdir(name) and not is_name(name):
        raise UserError(say("{shown}: no such folder{meant}", shown=shown, meant=meant(name, known)))


def is_name(name: str) -> bool:
    """Whether a model could be called so; a path that begins at the root, in the home or with a dot is no name."""
    return bool(_NAME.fullmatch(name))


def require_member(folder: str) -> None:
    """Refuse what cannot be a member of an ensemble, which is a folder.

    Raises:
        UserError: there is none.
    """
    if not os.path.isdir(folder):
        raise UserError(say("--ensemble {folder}: no such folder", folder=folder))


def config_file(folder: Path) -> Path:
    """The configuration in the folder of a checkpoint.

    Raises:
        UserError: there is none.
    """
    path = next((folder / name for name in CONFIG_FILES if (folder / name).is_file()), None)
    if path is None:
        raise UserError(
            say("{folder}: no config.json; it stands beside the weights where the model was published", folder=folder)
        )
    return path


def meant(name: str, known: Collection[str]) -> str:
    """The known name that a misspelt one is nearest to, as a question; "" where none is near, or it is known itself."""
    if name in known or len(name) >= 200:
        return ""
    # A typing mistake of two letters leaves some nine tenths of a name; "my-bert-base" is another one.
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.85)
    return say(": did you mean {name}?", name=near[0]) if near else ""
