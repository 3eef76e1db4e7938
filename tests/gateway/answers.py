"""Reading what a client got, with h11: another parser than the gateway's own, and a strict one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import h11


@dataclass
class Got:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    interims: list[int]
    trailers: dict[str, str]

    @property
    def message(self) -> str:
        return str(self.json["message"])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def hop(self) -> str:
        causes = {cause["reason"]: cause["message"] for cause in self.json["details"]["causes"]}
        return str(causes["Hop"])


def read(data: bytes, *methods: str, closed: bool = False) -> list[Got]:
    """All answers in `data`, for requests with these methods (GET, if none are named); they must be whole."""
    methods = methods or ("GET",)
    answers = []
    for number, method in enumerate(methods):
        last = number == len(methods) - 1
        got, data = _one(data, method, closed=closed and last)
        answers.append(got)
    assert not data, f"surplus: {data!r}"
    return answers


def _one(data: bytes, method: str, *, closed: bool) -> tuple[Got, bytes]:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    if closed:
        client.receive_data(b"")
    interims, body, trailers = [], b"", {}
    head: h11.Response | None = None
    while True:
        event = client.next_event()
        if isinstance(event, h11.InformationalResponse):
            interims.append(event.status_code)
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            trailers = {name.decode(): value.decode() for name, value in event.headers}
            break
        else:
            raise AssertionError(f"not whole: {event!r} after {data!r}")
    assert head is not None
    headers = {name.decode(): value.decode() for name, value in head.headers}
    assert len(headers) == len(list(head.headers)), "a repeated header"
    return Got(head.status_code, headers, body, interims, trailers), client.trailing_data[0]
