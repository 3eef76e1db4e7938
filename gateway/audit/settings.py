"""The settings of the audit, apart from what they set up: who only reads settings should not have to import it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MODES: Final = ("block", "drop")


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """The names are those of kube-apiserver's flags, without `audit-`."""

    log_path: tuple[str, ...] = ()
    """Files, `-` for standard output, or `none` alone; empty: audit.log in the state directory."""
    log_maxsize: int = 100
    """Megabytes of a file, after which it is moved away. (Standard output is never.)"""
    log_maxbackup: int = 0
    """Moved files that are kept; 0: all."""
    log_maxage: int = 0
    """Days that moved files are kept; 0: for ever."""
    log_compress: bool = False
    log_mode: str = "block"
    """Where the log cannot be written: `block` lets nothing new through, `drop` loses records, and counts them."""
    policy_file: Path | None = None
    """An audit.k8s.io/v1 Policy. Without one every request is recorded."""
    webhook_config_file: Path | None = None
    webhook_mode: str = "block"
    webhook_batch_max_size: int = 400
    webhook_batch_max_wait: float = 1.0
    webhook_initial_backoff: float = 0.5
    buffer_size: int = 10_000
    """Records that may wait for each of the places where they go."""

    def problems(self) -> Iterator[str]:
        """What contradicts what."""
        for name, mode in (("logMode", self.log_mode), ("webhookMode", self.webhook_mode)):
            if mode not in _MODES:
                yield f"audit.{name} must be block or drop, not {mode!r}"
        if "none" in self.log_path and len(self.log_path) > 1:
            yield "audit.logPath is none, and something else"
        if len(set(self.log_path)) < len(self.log_path):
            yield "audit.logPath names a file twice"
