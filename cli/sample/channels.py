"""The channel protocols of kubelet's streams over WebSocket, as bytes: v4 and v5 of channel.k8s.io.

The first byte of a message is its channel. v5 adds 255, which closes another one: without it the end of
standard input cannot be told, and `kubectl exec -i … cat < file` hangs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import orjson

from cli.sample.document import Obj, dumps, loads
from cli.sample.status import ApiError

V4 = "v4.channel.k8s.io"
V5 = "v5.channel.k8s.io"
PROTOCOLS = (V5, V4)
_SIZE_LIMIT = 65535


class Channel(IntEnum):
    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4
    CLOSE = 255


@dataclass(frozen=True, slots=True)
class Input:
    data: bytes


@dataclass(frozen=True, slots=True)
class EndOfInput:
    pass


@dataclass(frozen=True, slots=True)
class Resize:
    width: int
    height: int


Event = Input | EndOfInput | Resize


class ChannelError(ValueError):
    """The client sent what the protocol does not know."""


def decode(message: bytes, protocol: str) -> Event:
    if not message:
        raise ChannelError("a message without a channel")
    channel, data = message[0], message[1:]
    if channel == Channel.STDIN:
        return Input(data)
    if channel == Channel.RESIZE:
        return _resize(data)
    if channel == Channel.CLOSE and protocol == V5 and data == bytes([Channel.STDIN]):
        return EndOfInput()
    raise ChannelError(f"unexpected message on channel {channel}")


def encode(channel: Channel, data: bytes) -> bytes:
    return bytes([channel]) + data


def exit_status(code: int) -> bytes:
    """The message on the error channel that tells how the command ended."""
    if code == 0:
        return encode(Channel.ERROR, dumps({"metadata": {}, "status": "Success"}))
    status: Obj = {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
    return encode(Channel.ERROR, dumps(status))


def failure(error: ApiError) -> bytes:
    """The message where there was no command to end."""
    return encode(Channel.ERROR, dumps(error.status()))


def _resize(data: bytes) -> Resize:
    try:
        size = loads(data)
        width, height = int(size["Width"]), int(size["Height"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ChannelError("a terminal size that is none") from error
    if not (0 <= width <= _SIZE_LIMIT and 0 <= height <= _SIZE_LIMIT):
        raise ChannelError("a terminal size out of range")
    return Resize(width, height)
