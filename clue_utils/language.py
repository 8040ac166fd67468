"""The language in which a person is spoken to: English, as the code says it, or Chinese by one catalogue.

The catalogue is a gettext file, English text -> Chinese, that is read as it is: there is nothing to compile, and where
English is spoken it is not read at all. ``scripts/dev/catalogue.py`` keeps it. Log lines and what is written for
programs are English in both.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path

from clue_utils.project import as_typed

LANGUAGES = ("en", "zh")
# Names the language, above the locale.
VARIABLE = "CLUE_LANG"
CATALOGUE = Path(__file__).parent / "locale/zh/LC_MESSAGES/clue_utils.po"
_chosen: ContextVar[str | None] = ContextVar("language", default=None)
_ENTRY = re.compile(r'^msgid ((?:".*"\n)+)msgstr ((?:".*"(?:\n|\Z))+)', re.MULTILINE)


def default_language() -> str:
    """The language of ``CLUE_LANG``, else that which gettext takes: of ``LANGUAGE``, else of the locale.

    It is the first of those named that is spoken here, else English.
    """
    named = os.environ.get(VARIABLE) or _of_locale()
    spoken = (name.lower()[:2] for name in named.split(":"))
    return next((name for name in spoken if name in LANGUAGES), "en")


def _of_locale() -> str:
    """One language, or several in the order of preference with colons between."""
    locale = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "C")
    is_neutral = locale.partition(".")[0] in ("C", "POSIX")  # LANGUAGE says nothing there
    return (not is_neutral and os.environ.get("LANGUAGE")) or locale


def current() -> str:
    return _chosen.get() or default_language()


@contextlib.contextmanager
def using(language: str) -> Iterator[None]:
    """Have :func:`say` speak one of ``LANGUAGES`` within the block."""
    token = _chosen.set(language)
    try:
        yield
    finally:
        _chosen.reset(token)


def say(text: str, /, **values: object) -> str:
    """A text in the present language, ``{name}`` replaced by ``values``; English where the catalogue has none.

    Where there are no values, braces stand for themselves. The project's commands are named as they are typed.
    """
    said = as_typed(catalogue().get(text, text) if current() == "zh" else text)
    return said.format(**values) if values else said


def later(text: str) -> str:
    """Mark a text that :func:`say` is given later, when the language is known."""
    return text


@functools.cache
def catalogue() -> Mapping[str, str]:
    """English text -> Chinese, of what is translated."""
    entries = _ENTRY.findall(CATALOGUE.read_text(encoding="utf-8"))
    return {english: chinese for english, chinese in (map(_unquote, entry) for entry in entries) if english and chinese}


def _unquote(lines: str) -> str:
    return "".join(json.loads(line) for line in lines.splitlines())
