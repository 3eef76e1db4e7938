"""The worked examples of a page in docs/, for tests to run: its fenced blocks, by what their info string says.

    ```sh run          a script; it has to succeed, unless what it prints is shown:
    ```text out        what the script before prints, both streams; `…` stands for any text, alone for any lines
    ```yaml server     settings of the server until the next such block, beside what all need; it is started anew
    ```yaml grants     the grants file, from its key `grants` on; likewise until the next one
    ```yaml agent      settings of the agent of edge-7; it is started anew
    ```yaml NAME.yaml  a file of this name

Everything else is not run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(?P<language>\w+) (?P<mark>\S+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^##+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """One block, and the line where it begins."""

    mark: str
    text: str
    line: int


@dataclass(frozen=True)
class Section:
    """What is under one heading, in its order."""

    page: str
    title: str
    steps: tuple[Step, ...]

    @property
    def id(self) -> str:
        """For people who look for the section that failed."""
        return f"{self.page}:{self.title}"


def sections(path: Path) -> list[Section]:
    """The sections of a page that have something to run. A block in them without a heading is an error."""
    text = path.read_text(encoding="utf-8")
    steps: dict[str, list[Step]] = {}
    for found in _FENCE.finditer(text):
        before = list(_HEADING.finditer(text, 0, found.start()))
        step = Step(found["mark"], found["text"], text.count("\n", 0, found.start()) + 1)
        steps.setdefault(before[-1][1], []).append(step)
    return [Section(path.name, title, tuple(found)) for title, found in steps.items()]


def agrees(shown: str, printed: str) -> bool:
    """Whether a program printed what the page shows. Spaces at the ends of lines, and how columns are padded, do not
    matter.
    """
    lines = [r"(.*\n)*" if line.strip() == "…" else _line(line) + r"\n" for line in shown.splitlines()]
    plain = "".join(f"{' '.join(line.split())}\n" for line in printed.splitlines())
    return re.fullmatch("".join(lines), plain) is not None


def _line(shown: str) -> str:
    return ".*".join(re.escape(part) for part in " ".join(shown.split()).split("…"))
