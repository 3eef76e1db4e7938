"""Exchanges with clusters, opened: at once, a second time, or when an agent is there.

A request that was decided is sent through one agent. Where that agent is lost before an answer has begun, a read is
sent once more, through another (`gateway.retry`). Where none is there, but one is on its way (`gateway.arrivals`), or
another replica gives back what it has sent to nobody, it waits a moment, and is decided again from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway import failures
from gateway.arrivals import Arrivals, Arriving, unsent_of
from gateway.clusters import Clusters
from gateway.failures import Refused
from gateway.metrics import Traffic
from gateway.passage import Passage
from gateway.refusal import refuse, tell
from gateway.retry import may_retry
from gateway.settling import Settling
from stub.errors import StubError
from tunnel.errors import ExchangeReset, HeadError

AGAIN = 1
"""Seconds after which a client is to try again what nobody has sent, and what is about to pass."""


class Opening:
    """See above. To decide a request again is its pipeline's: `decide` does that."""

    def __init__(self, clusters: Clusters, arrivals: Arrivals, settling: Settling, traffic: Traffic) -> None:
        self._clusters = clusters
        self._arrivals = arrivals
        self._settling = settling
        self._traffic = traffic

    def open(self, passage: Passage) -> None:
        """Raises Arriving where the cluster's agents are on their way, Refused where none can be had, HeadError."""
        assert passage.block is not None
        try:
            exchange = self._clusters.open(passage.cluster, passage.block, passage)
        except StubError as error:
            raise self._arrivals.refusal(error, passage.started) from None
        passage.tries += 1
        if passage.block.long:
            self._traffic.long_running += passage.tries == 1
        passage.opened(exchange)

    def wait(self, arriving: Arriving, decide: Callable[[], None]) -> bool:
        """Decide anew when they are there, or soon; `gateway.arrivals` says for how long. False: too many wait."""
        return self._settling.wait_for_agents(arriving, decide)

    def failed(self, passage: Passage, error: ExchangeReset, decide: Callable[[], None]) -> None:
        """An exchange has ended before its answer began: try again, or tell its client."""
        if (unsent := unsent_of(error, passage.cluster)) is not None:
            self._return_to_sender(passage, unsent, decide)
            return
        self._traffic.reset(error.hop, error.reason)
        if may_retry(passage, error) and self._retry(passage, decide):
            return
        passage.reason = error.message
        tell(passage, failures.of_reset(error, passage.cluster, passage.audit_id))

    def _retry(self, passage: Passage, decide: Callable[[], None]) -> bool:
        try:
            self.open(passage)
        except (Refused, HeadError):
            return False  # nobody else is there: the first failure is what its user should read
        except Arriving as arriving:
            return self.wait(arriving, decide)
        self._traffic.retries += 1
        return True

    def _return_to_sender(self, passage: Passage, unsent: StubError, decide: Callable[[], None]) -> None:
        """The replica that holds the cluster did not send it either: as if it had been refused here, but for a large
        body, of which some is gone already: its client has it still.
        """
        if passage.block is not None and passage.block.long:
            self._traffic.long_running -= passage.tries == 1
        passage.tries = 0
        refused = self._arrivals.refusal(unsent, passage.started)
        if not isinstance(refused, Arriving):
            refuse(passage, refused)
        elif not passage.returnable or not self.wait(refused, decide):
            refused.otherwise.retry_after = refused.otherwise.retry_after or AGAIN
            refuse(passage, refused.otherwise)
