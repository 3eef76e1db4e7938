"""The real test bed's programs: Kubernetes itself, and an OIDC provider, built from pinned Go modules.

`python -m tests.testbed` builds them once into a cache outside the tree and prints their directory.
Nothing is downloaded but source modules, checked against go.sum, so that a fresh clone needs no container
engine and trusts no binary. What runs them is tests/support/cluster.py.
"""


class BedError(Exception):
    """Why the test bed cannot be had, in one line."""
