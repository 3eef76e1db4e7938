"""Several workers' metrics as one text: each sample says of which worker it is, each family comes once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_SAMPLE: Final = re.compile(rb"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{)?")
_UP: Final = (
    b"# HELP kulvert_worker_up Whether this worker has told its metrics.",
    b"# TYPE kulvert_worker_up gauge",
)


def merged(texts: Mapping[int, bytes | None]) -> bytes:
    """Prometheus' text format, by the workers' numbers; None where one has not answered."""
    families: dict[bytes, tuple[list[bytes], list[bytes]]] = {}
    for number, text in sorted(texts.items()):
        if text is not None:
            _add(families, number, text)
    lines = [line for about, samples in families.values() for line in (*about, *samples)]
    lines += _UP
    lines += [b'kulvert_worker_up{worker="%d"} %d' % (n, text is not None) for n, text in sorted(texts.items())]
    return b"\n".join([*lines, b""])


def _add(families: dict[bytes, tuple[list[bytes], list[bytes]]], number: int, text: bytes) -> None:
    label = b'worker="%d"' % number
    samples: list[bytes] = []
    for line in text.splitlines():
        if line.startswith((b"# HELP ", b"# TYPE ")):
            about, samples = families.setdefault(line.split(b" ", 3)[2], ([], []))
            if line not in about:
                about.append(line)
        elif line and not line.startswith(b"#"):
            samples.append(_labelled(line, label))


def _labelled(line: bytes, label: bytes) -> bytes:
    found = _SAMPLE.match(line)
    if found is None:
        return line
    name, rest = found[1], line[found.end() :]
    return b"%b{%b,%b" % (name, label, rest) if found[2] else b"%b{%b}%b" % (name, label, rest)
