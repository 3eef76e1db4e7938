"""An API server in miniature, for a machine without a cluster, for fast tests and for benchmarks."""

from cli.sample.callers import AGENT, Caller
from cli.sample.requestlog import Logged
from cli.sample.server import SampleServer

__all__ = ["AGENT", "Caller", "Logged", "SampleServer"]
