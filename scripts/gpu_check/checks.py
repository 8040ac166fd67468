"""A check, how it is shown, and how a part reports one."""

from __future__ import annotations

import contextlib
import getpass
import math
import os
import platform
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clue_utils.errors import UserError, one_line, shorten

OK, FAIL, SLOW, NOT_RUN, INFO = "ok", "FAIL", "slow", "not run", "info"
_AT_MOST, _AT_LEAST, _EQUAL = "<=", ">=", "=="
WIDTH = 100
_TOP = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Check:
    """One line of the outcome.

    Attributes:
        status: "ok", "FAIL", "slow" (a bound on time is missed, which is no failure), "not run", or "info" (a value
            without a bound).
        value: number or text that was found; None where there is none.
        unit: of ``value`` and ``bound``, "" for a text or a pure number.
        bound: what ``value`` is held against; None for "info" and "not run".
        relation: "<=", ">=" or "==", between ``value`` and ``bound``; "" without a bound.
        note: why it was not run, or what went wrong.
    """

    part: str
    name: str
    status: str
    value: float | str | None = None
    unit: str = ""
    bound: float | str | None = None
    relation: str = ""
    note: str = ""

    @property
    def shown_value(self) -> str:
        return _show(self.value, self.unit)

    @property
    def shown_bound(self) -> str:
        return "" if self.bound is None else f"{self.relation} {_show(self.bound, self.unit)}".removeprefix("== ")

    def line(self) -> str:
        """The check for a terminal of ``WIDTH`` columns; why something failed may take several lines."""
        begin = f"  {self.status:<9}{self.name}"
        if self.value is None and self.status == FAIL:
            return textwrap.fill(f"{begin} ({self.note})", WIDTH, subsequent_indent=" " * 11)
        if self.value is None:
            return shorten(f"{begin} ({self.note})", WIDTH)
        end = f"{self.shown_value:>20}  {self.shown_bound:<18}".rstrip()
        return shorten(f"{begin:<60}{end}", WIDTH)


def _show(value: float | str | None, unit: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"{value} {unit}".strip()
    large = isinstance(value, int) or abs(value) >= 1000
    return f"{value:,.0f} {unit}".strip() if large else f"{value:.3g} {unit}".strip()


class Report:
    """Takes the checks of a part, one after the other.

    Args:
        part: its name.
        send: called with each check.
    """

    def __init__(self, part: str, send: Callable[[Check], None]) -> None:
        self._part, self._send = part, send

    def _add(self, name: str, status: str, **fields: Any) -> None:
        value = fields.get("value")
        if isinstance(value, str):
            fields["value"] = anonymous(value)
        elif isinstance(value, float) and not math.isfinite(value):
            fields["value"] = str(value)  # JSON has no such number
        self._send(Check(self._part, name, status, **{**fields, "note": anonymous(fields.get("note", ""))}))

    def at_most(self, name: str, value: float, bound: float, unit: str = "", otherwise: str = FAIL) -> None:
        """A value that must not be above the bound, or the check is ``otherwise``; not a number is above any."""
        self._add(name, OK if value <= bound else otherwise, value=value, unit=unit, bound=bound, relation=_AT_MOST)

    def at_least(self, name: str, value: float, bound: float, unit: str = "", otherwise: str = FAIL) -> None:
        """A value that must not be below the bound, or the check is ``otherwise``."""
        self._add(name, OK if value >= bound else otherwise, value=value, unit=unit, bound=bound, relation=_AT_LEAST)

    def equal(self, name: str, value: float | str, expected: float | str, unit: str = "") -> None:
        """A value that must be the expected one."""
        status = OK if value == expected else FAIL
        self._add(name, status, value=value, unit=unit, bound=expected, relation=_EQUAL)

    def holds(self, name: str, value: float | str) -> None:
        """A value that was looked at and is right."""
        self._add(name, OK, value=value)

    def info(self, name: str, value: float | str, unit: str = "") -> None:
        """A value that is held against nothing."""
        self._add(name, INFO, value=value, unit=unit)

    def not_run(self, name: str, why: str) -> None:
        self._add(name, NOT_RUN, note=why)

    def fail(self, name: str, why: str) -> None:
        self._add(name, FAIL, note=why)

    @contextlib.contextmanager
    def failing(self, name: str) -> Iterator[None]:
        """A block whose UserError is a failure of this name; what comes after the block goes on.

        A precision that the card does not have, as ``device.require_precision`` says, is no failure.
        """
        try:
            yield
        except UserError as error:
            if "cannot compute with it" in str(error):
                self.not_run(name, str(error))
            else:
                self.fail(name, str(error))


def anonymous(text: str) -> str:
    """A text as one line without folders but the project's own, the user's name and the machine's."""
    with contextlib.suppress(Exception):  # a user without a name or a home
        places = {str(_TOP): ".", str(Path.home()): "~", os.path.expanduser("~"): "~"}
        for place in sorted(places, key=len, reverse=True):
            if len(place) > 1:
                text = re.sub(rf"{re.escape(place)}(?![\w-])", places[place], text)
    text = re.sub(r"(?<![\w.~/-])/(?:[^\s/:'\"()]+/)+", ".../", text)  # the folders of other paths
    names = {platform.node(): "<host>", platform.node().partition(".")[0]: "<host>"}
    with contextlib.suppress(Exception):
        names[getpass.getuser()] = "<user>"
    for name in sorted(filter(None, names), key=len, reverse=True):
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", names[name], text)
    return one_line(text.strip())
