"""`python -m tests.charts.renew`: writes the golden files and the tables of values of both README.md anew.

Look at what has changed (git diff): it is what users will get.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.charts.cases import CASES, NAMES
from tests.charts.helm import Helm
from tests.charts.readme import renewed
from tests.testbed import BedError
from tests.testbed.place import locate


def main() -> int:
    """Gives the exit code."""
    for chart in NAMES:
        path, text = renewed(chart)
        path.write_text(text)
    try:
        binary = locate(os.environ) / "helm"
    except BedError as error:
        print(error, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as home:
        helm = Helm(binary, Path(home))
        for case in CASES:
            case.golden.write_text(helm.template(case))
    return 0


if __name__ == "__main__":
    sys.exit(main())
