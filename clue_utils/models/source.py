"""Find a checkpoint by its folder, or by the name of a model that PaddleNLP downloads."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from paddlenlp import transformers
from paddlenlp.utils.download import resolve_file_path
from paddlenlp.utils.env import MODEL_HOME

from clue_utils import model_names, published
from clue_utils.errors import UserError, shorten
from clue_utils.language import later, say
from clue_utils.models.config import Config, read_config
from clue_utils.models.families import BY_TYPE, FAMILIES, Family
from clue_utils.models.weights import INDEX, WEIGHTS_FILES, Weights, has_weights, list_parts, open_weights
from clue_utils.size_class import CONFIG_FILES

logger = logging.getLogger(__name__)

# Why architectures of PaddleNLP that know Chinese are no encoders here, by the package that they lie in.
_NO_ENCODERS = {
    "artist": later(" (it paints pictures of texts)"),
    "ernie_layout": later(" (it reads pages, with the place of every word)"),
    "layoutxlm": later(" (it reads pages, with the place of every word)"),
    "ernie_code": later(" (it writes texts and programs)"),
    "xlm": later(" (its tokenizer needs a package beyond the requirements)"),
}


@dataclass(frozen=True)
class Source:
    """A checkpoint that was found.

    Attributes:
        name: what the user calls it.
    """

    name: str
    config: Config
    weights: Weights


def find(name_or_path: str) -> Source:
    """Find a checkpoint; one that is known by name is downloaded unless PaddleNLP's cache holds it.

    Raises:
        UserError: there is no such folder or name, or its files cannot be read.
    """
    with unshadowed(name_or_path) as source:
        if os.path.isdir(source):
            return Source(name_or_path, read_config(Path(source)), open_weights(Path(source)))
        with readable_errors(name_or_path):
            known = known_as(source)
            return _download(source) if known is None else _download_known(source, known)


def known_as(name: str) -> Family | None:
    """The architecture of a model that comes with PaddleNLP by name, None for any other name."""
    return next((family for family in FAMILIES if name in family.base_class.pretrained_init_configuration), None)


def refuse_unsupported(name: str) -> None:
    """Refuse a model that comes with PaddleNLP by name, but is of an architecture that is not among the families.

    Raises:
        UserError: it is.
    """
    if known_as(name) is not None:
        return
    for each in vars(transformers).values():
        if name in (getattr(each, "pretrained_init_configuration", None) or ()) and hasattr(each, "base_model_prefix"):
            package = each.__module__.split(".")[-2]
            if package in _NO_ENCODERS or each.config_class.model_type not in BY_TYPE:
                raise UserError(
                    say(
                        "{name}: PaddleNLP's {package} is not supported{reason}; supported are {types}",
                        name=name,
                        package=package,
                        reason=say(_NO_ENCODERS[package]) if package in _NO_ENCODERS else "",
                        types=", ".join(BY_TYPE),
                    )
                )


def _download_known(name: str, family: Family) -> Source:
    settings: Any = family.base_class.pretrained_init_configuration[name]
    if isinstance(settings, str):  # an address
        config = read_config(Path(fetch(name, [settings])).parent)
    else:
        config = Config(name, settings | {"model_type": family.model_type})
    address = family.base_class.pretrained_resource_files_map["model_state"].get(name)
    if address is None:
        raise UserError(
            say("{name}: PaddleNLP has settings of this name, but no weights; name another model", name=name)
        )
    if family.complete:
        tokenizer = getattr(transformers, f"{family.name}Tokenizer")
        fetch(name, [tokenizer.pretrained_resource_files_map["tokenizer_config_file"][name]])
    return Source(name, config, Weights([Path(fetch(name, [address]))]))


def _download(name: str) -> Source:
    config = Path(fetch(name, list(CONFIG_FILES[:2])))
    found = Path(fetch(name, [file for each in WEIGHTS_FILES for file in (each + INDEX, each)]))
    if found.name.endswith(INDEX):
        for part in list_parts(found, must_exist=False):
            fetch(name, [part.name])
        weights = Weights(list_parts(found))
    else:
        weights = Weights([found])
    return Source(name, read_config(config.parent), weights)


def fetch(name: str, files: list[str]) -> str:
    """The path of the first of the files that the model has, in PaddleNLP's cache."""
    if not any((_cache(name) / _cached_as(file)).is_file() for file in files):
        logger.info("%s: fetching %s", name, " or ".join(files))
    path: str | None = resolve_file_path(name, files, "")
    if path is None:
        raise FileNotFoundError(say("it has none of {files}", files=", ".join(files)))
    return path


@contextlib.contextmanager
def unshadowed(name: str) -> Iterator[str]:
    """Let a checkpoint's folder win over a model of that name, and the model over a folder without weights.

    Yields what to give to PaddleNLP. It takes files of a known name from the network, even where there is such a
    folder: a path is no known name. And it takes any folder of the name for a checkpoint, such as an output folder just
    made: seen from an empty working directory there is none.
    """
    if not os.path.isdir(name):
        yield name
        return
    if has_weights(Path(name)) or not is_known_name(name):
        yield os.path.abspath(name)
        return
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)
        try:
            yield name
        finally:
            os.chdir(before)


def is_known_name(name: str) -> bool:
    """Whether a model of this name is published: in the tables of scores, or with PaddleNLP."""
    return name in known_names()


@functools.cache
def known_names() -> frozenset[str]:
    """The names of all published models of the architectures that are supported."""
    with_paddlenlp = {name for family in FAMILIES for name in family.base_class.pretrained_init_configuration}
    return frozenset(with_paddlenlp | {model.name for model in published.PUBLISHED_MODELS})


def _cache(name: str) -> Path:
    """Where PaddleNLP keeps a model that it has downloaded."""
    return Path(MODEL_HOME, name)


def _cached_as(file: str) -> str:
    """What PaddleNLP calls a file there: weights that have an address of their own get the usual name."""
    is_weights = file.startswith("https://") and file.endswith("pdparams")
    return "model_state.pdparams" if is_weights else PurePosixPath(file).name


def _by_hand(name: str) -> str:
    """What to do about a model that cannot be downloaded here."""
    tables = [table for each in [*vars(transformers).values()] for table in _addresses(each)]
    addresses = dict.fromkeys(table[name] for table in tables if isinstance(table.get(name), str))
    if not addresses:
        return say("name a folder with the model's files")
    files = [
        each if (cached := _cached_as(each)) in each else say("{address} as {name}", address=each, name=cached)
        for each in addresses
    ]
    words = {"folder": _cache(name), "files": ", ".join(files)}
    return say("put what another machine fetches into {folder}: {files}", **words)


def _addresses(of: Any) -> list[Mapping[str, Any]]:
    """The tables name -> address that a class of PaddleNLP has."""
    tables = getattr(of, "pretrained_resource_files_map", None) or {}
    return [table for table in tables.values() if isinstance(table, Mapping)]


@contextlib.contextmanager
def readable_errors(name: str) -> Iterator[None]:
    """Turn whatever a download ends with into one line.

    Raises:
        UserError: in place of any other exception but what the file system forbids.
    """
    model_names.require_possible(name, known_names())
    try:
        yield
    except (UserError, PermissionError):
        raise
    except Exception as error:  # PaddleNLP's own, and those of several network libraries
        while error.__context__ is not None and isinstance(error.__context__, Exception):
            error = error.__context__  # the first, which says what happened
        reason = shorten(f"{type(error).__name__}: {' '.join(str(error).split())}", 120)
        raise UserError(
            say(
                "{shown}: neither a folder nor a model that could be downloaded ({reason}); check name and network "
                "(https_proxy names a proxy, PPNLP_ENDPOINT a mirror), or {remedy}{meant}",
                shown=shorten(name, 200),
                reason=reason,
                remedy=_by_hand(name),
                meant=model_names.meant(name, known_names()),
            )
        ) from error
