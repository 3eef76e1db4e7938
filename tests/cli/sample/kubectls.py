"""Finding a real kubectl: the test bed's, by the KUBEBUILDER_ASSETS convention or from its cache."""

from __future__ import annotations

import os
from pathlib import Path


def find() -> str | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    places = [Path(assets)] if assets else []
    cache = Path.home() / ".cache" / "kulvert-testbed"
    places += sorted(cache.glob("*/")) if cache.is_dir() else []
    found = [place / "kubectl" for place in places if os.access(place / "kubectl", os.X_OK)]
    return str(found[0]) if found else None
