"""Text in the columns of a terminal, two of which a Chinese character takes."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

# What stands at no line's begin, and at no line's end.
_CLOSING, _OPENING = "，。；：、！？）》”’…", "（《“‘"


def display_width(text: str) -> int:
    """Columns that a text takes in a terminal: two for each wide character, as Chinese ones are."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def left(text: str, columns: int) -> str:
    """A text with blanks behind it, up to so many columns."""
    return text + " " * (columns - display_width(text))


def right(text: str, columns: int) -> str:
    """A text with blanks before it, up to so many columns."""
    return " " * (columns - display_width(text)) + text


def wrapped(text: str, columns: int) -> Iterator[str]:
    """Lines of at most so many columns; not within words of Latin letters nor before closing marks, if that can be."""
    line = ""
    for letter in " ".join(text.split()):
        if display_width(line + letter) > columns:
            head, tail = _broken(line, letter, columns)
            yield head
            line = tail
            if letter == " " and not line:
                continue
        line += letter
    if line:
        yield line


def _broken(line: str, letter: str, columns: int) -> tuple[str, str]:
    """A full line and what of it goes to the next one, before ``letter``."""
    if letter == " ":
        return line, ""
    place = len(line)
    while place and not _may_break(line, place, letter):
        place -= 1
    if not place or display_width(line[place:]) > max(2, columns // 2):
        place = len(line) - (letter in _CLOSING and len(line) > 1)
    return line[:place].rstrip(" "), line[place:]


def _may_break(line: str, place: int, letter: str) -> bool:
    """Whether a line may end before ``line[place]``, or before ``letter`` at its end."""
    before, after = line[place - 1], (line[place:] + letter)[0]
    return after not in _CLOSING and before not in _OPENING and (before == " " or _is_wide(before) or _is_wide(after))


def _is_wide(letter: str) -> bool:
    return unicodedata.east_asian_width(letter) in "WF"
