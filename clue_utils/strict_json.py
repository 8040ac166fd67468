"""JSON as RFC 8259 has it, of files that anybody may have written."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from clue_utils.language import later, say

JsonObject = dict[str, Any]
# What Python says of mistakes that people make.
_MISTAKES = (
    *(later("Expecting value,"), later("Expecting property name enclosed in double quotes,"), later("Extra data,")),
    *(later("Expecting ',' delimiter,"), later("Expecting ':' delimiter,")),
    *(later("Unterminated string starting at"), later("Invalid control character at"), later("Invalid \\escape,")),
    later("Illegal trailing comma before end of object,"),
)


class NotJson(Exception):
    """Text that cannot be taken as JSON; ``line`` is where it stops being that, from 1, if that is known."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


def parse(
    content: bytes,
    what: str = later("JSON that can be read"),
    allow_nan: bool = False,
    remedy: str = later("save the file in UTF-8"),
) -> tuple[Any, list[str]]:
    """The value of a JSON text in UTF-8, and each key that one of its objects holds twice (where the last counts).

    Half of a surrogate pair, written as an escape, is taken; a byte order mark is not.

    Args:
        what: what a text that nests too deeply or holds a number of thousands of digits is not, in English.
        allow_nan: take NaN and infinities, which Python and with it many files of models write.
        remedy: what to do about another encoding.

    Raises:
        NotJson: it is none, or beyond what Python takes.
    """
    repeated: list[str] = []

    def build(pairs: list[tuple[str, Any]]) -> JsonObject:
        value = dict(pairs)
        if len(value) < len(pairs):
            repeated.extend(key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
        return value

    def take(constant: str) -> float:
        if not allow_nan:
            raise NotJson(say("not JSON ({constant} is not a JSON number)", constant=constant))
        return float(constant)

    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=build, parse_constant=take), repeated
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        text = say("not UTF-8 ({reason}); {remedy}", reason=error.reason, remedy=say(remedy))
        raise NotJson(text, line) from None
    except json.JSONDecodeError as error:
        # The column of a line break at the end would be in the line after it.
        line = min(error.lineno, content.rstrip().count(b"\n") + 1)
        message = error.msg + ("" if error.msg.endswith(" at") else ",")
        raise NotJson(
            say("not JSON ({message} column {colno})", message=say(message), colno=error.colno), line
        ) from None
    except RecursionError:
        raise NotJson(say("not {what} (nested too deeply)", what=say(what))) from None
    except ValueError:  # Python takes no number of thousands of digits
        raise NotJson(say("not {what} (a number with too many digits)", what=say(what))) from None
