#!/usr/bin/env python
"""Find dead links among the project's own pages: files and headings that are not there, pages nothing leads to.

A Chinese page leads to Chinese pages and an English one to English ones, but for the line that leads to the other
language. Addresses on the web are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from clue_utils import cli
from clue_utils.errors import UserError

TOP = Path(__file__).resolve().parents[2]
# From these a reader comes to every page.
FRONT = ("README.md", "README_en.md")
_CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


def pages(top: Path = TOP) -> dict[str, str]:
    """Name -> text of every page: those at the top and in docs/."""
    paths = sorted([*top.glob("*.md"), *top.glob("docs/*.md")])
    return {path.relative_to(top).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in a link, as GitHub names them."""
    found: set[str] = set()
    for heading in _HEADING.findall(_CODE.sub("", text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = sum(1 for one in found if re.fullmatch(rf"{re.escape(name)}(-\d+)?", one))
        found.add(f"{name}-{number}" if number else name)
    return found


def links(text: str) -> list[str]:
    """What a page links to, but for the web."""
    return [link for link in _LINK.findall(_CODE.sub("", text)) if not re.match(r"[a-z]+:", link)]


def twin(page: str) -> str:
    """The same page in the other language, by its name."""
    return page.replace("_en.md", ".md") if page.endswith("_en.md") else page.replace(".md", "_en.md")


def problems(texts: Mapping[str, str], top: Path = TOP, front: Sequence[str] = FRONT) -> list[str]:
    """What is wrong with the links of pages, a line each: "page: link: what"."""
    found: list[str] = []
    reached = {*front}
    for page, text in texts.items():
        for link in links(text):
            place, _, anchor = link.partition("#")
            path = (top / page).parent / place if place else top / page
            target = path.resolve()
            if not target.exists():
                found.append(f"{page}: {link}: no such file")
                continue
            name = target.relative_to(top.resolve()).as_posix() if target.is_relative_to(top.resolve()) else ""
            if name not in texts:
                continue
            if name not in (page, twin(page)):
                reached.add(name)
            if anchor and anchor not in anchors(texts[name]):
                found.append(f"{page}: {link}: no such heading")
            has_twin = twin(name) in texts and twin(page) in texts
            if has_twin and name != twin(page) and page.endswith("_en.md") != name.endswith("_en.md"):
                found.append(f"{page}: {link}: a page in the other language")
    found += [f"{page}: no link leads here" for page in texts if page.startswith("docs/") and page not in reached]
    return found


def main(argv: list[str] | None = None) -> None:
    cli.Parser(description=__doc__, epilog="example: python scripts/dev/check_links.py").parse_args(argv)
    texts = pages()
    if found := problems(texts):
        more = f" (and {len(found) - 1} more)" if found[1:] else ""
        print("\n".join(found))
        raise UserError(f"{found[0]}{more}: mend the link")
    print(f"{len(texts)} pages, no dead links")


if __name__ == "__main__":
    cli.run(main)
