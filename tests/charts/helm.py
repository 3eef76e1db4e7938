"""The test bed's helm, offline: lint, template."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.charts.cases import CHARTS, NAMESPACE, Case


@dataclass(frozen=True)
class Helm:
    """One helm binary, with a home of its own."""

    binary: Path
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *args: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs it to its end, whatever that is."""
        env = {"PATH": os.defpath, "HOME": str(self.home), **self.environment}
        return subprocess.run(
            [self.binary, *args], env=env, capture_output=True, text=True, timeout=timeout, check=False
        )

    def template(self, case: Case, *args: str) -> str:
        """A case as YAML. The CRDs of crds/ are files already, and not in it."""
        done = self.run(
            "template", case.chart, CHARTS / case.chart, "--namespace", NAMESPACE, "--values", case.values,
            "--kube-version", case.kubernetes, *args,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout
