"""The settings of recordings, apart from what they set up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RecordingSettings:
    """Recording of exec and attach."""

    policy_file: Path | None = None
    """A kulvert.dev/v1alpha1 RecordingPolicy. Without one nothing is recorded."""
    directory: Path | None = None
    """Where the files go (mode 0700); without it `recordings` in the state directory."""
    max_bytes: int = 256 * 1024 * 1024
    """Of one recording. A session whose recording is required ends there."""
    input: bool = False
    """What is typed is recorded too, passwords that no terminal shows included."""
