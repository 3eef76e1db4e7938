"""Links between the project's own pages lead somewhere: to a file that is there, and to a heading that it has; and the
tests that pages name exist.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for place in (".", "docs", "docs/decisions", "charts", "charts/kulvert", "charts/kulvert-agent")
    for page in (ROOT / place).glob("*.md")
)
_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_TEST = re.compile(r"`((?:tests/|test_)[\w/]*\.py)(?:::(\w+))?`")
_SHORT = re.compile(r"`…::(\w+)`")
_NAMED = (ROOT / "tests", ROOT / "tests/e2e", ROOT / "tests/e2e/threats")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def anchors(page: Path) -> frozenset[str]:
    """As GitHub makes them of headings."""
    titles = _HEADING.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))
    return frozenset(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)


def broken(page: Path, text: str) -> list[str]:
    """The links that lead nowhere."""
    found = []
    for link in _LINK.findall(_BLOCK.sub("", text)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@cache
def every_test() -> frozenset[str]:
    """By their names alone."""
    files = (ROOT / "tests").rglob("test_*.py")
    return frozenset(name for file in files for name in re.findall(r"def (test_\w+)\(", file.read_text("utf-8")))


def missing(text: str) -> list[str]:
    """Tests that are named, and are not there. `…::NAME` is a test of a file that was named before."""
    found = [name for name in _SHORT.findall(text) if name not in every_test()]
    for path, name in _TEST.findall(text):
        base = (ROOT,) if path.startswith("tests/") else _NAMED
        files = [place / path for place in base if (place / path).exists()]
        if not files or (name and not any(f"def {name}(" in file.read_text(encoding="utf-8") for file in files)):
            found.append(f"{path}::{name}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    assert not broken(page, page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_tests_that_are_named_exist(page: Path) -> None:
    assert not missing(page.read_text(encoding="utf-8"))


def test_a_link_that_leads_nowhere_is_seen() -> None:
    page = ROOT / "README.md"
    assert broken(page, "[a](docs/nothing.md) [b](docs/protocol.md#nothing) [c](https://x.example/y)") == [
        "docs/nothing.md",
        "docs/protocol.md#nothing",
    ]
    assert not broken(page, "[a](docs/protocol.md#1-carriage)\n```\n[b](nowhere)\n```\n")
    assert missing("`tests/test_docs_links.py::test_nothing` and `tests/nothing.py`, `…::test_no_such`") == [
        "test_no_such",
        "tests/test_docs_links.py::test_nothing",
        "tests/nothing.py::",
    ]
