"""Hard limits, each with its reason, so that no peer can make a buffer or a table grow without bound."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """What an HTTP/1.1 head may measure; larger ones are refused with 431 (or 414 for the target)."""

    head_bytes: int = 64 * KIB
    headers: int = 200
    target_bytes: int = 16 * KIB
    interim_responses: int = 16
    trailer_bytes: int = 8 * KIB
    trailers: int = 32


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """What one link and its exchanges may hold (docs/protocol.md, "Limits"). All sizes are bytes."""

    frame_payload: int = 64 * KIB
    data_slice: int = 16 * KIB
    hello_bytes: int = 8 * KIB
    control_bytes: int = 64 * KIB
    head_block: int = 96 * KIB
    shared_credit: int = 64 * KIB
    own_credit: int = 256 * KIB
    own_credit_max: int = 4 * MIB
    own_credit_sum: int = 64 * MIB
    """What the windows of a session's own links may grow to together, so that many stalled readers stay affordable."""
    send_queue: int = 64 * KIB
    transport_buffer: int = 64 * KIB
    control_queue: int = 256 * KIB
    exchanges: int = 10_000
    remembered_resets: int = 10_000
    empty_frames: int = 1_000


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. One sweep a link every `sweep` drives all of them: there is no timer for each exchange."""

    hello: float = 5.0
    ping_after: float = 10.0
    dead_after: float = 30.0
    ack_deadline: float = 1.0
    progress: float = 30.0
    flush: float = 10.0
    farewell: float = 600.0
    """What the last bytes of a connection whose work is done may take in all, however slowly they go."""
    sweep: float = 0.25
    rest: float = 1.0
    """Where nothing is under way in a session, so much lies between two sweeps: thousands of them are idle."""
    silence: float = 0.0
    """What a stub promises in welcome: on a shared link it says something at least every half of this. 0: nothing."""
