"""`pods/log`: what a container wrote, and with `follow` what it writes, each line sent when it is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aiohttp import web

from cli.sample.call import Call
from cli.sample.document import Obj, moment
from cli.sample.journal import Journal, Overrun
from cli.sample.pods import Line, PodHost
from cli.sample.resources import PODS
from cli.sample.status import bad_request
from cli.sample.store import Store


@dataclass(frozen=True, slots=True)
class Wish:
    """What of the log the client wants to see."""

    follow: bool
    timestamps: bool
    tail: int | None
    limit: int | None
    since: datetime | None

    def text(self, lines: Iterable[Line]) -> bytes:
        return b"".join(self._one(line) for line in lines if self.since is None or line.at >= self.since)

    def _one(self, line: Line) -> bytes:
        if not self.timestamps:
            return line.text
        stamp = line.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return stamp.encode() + b" " + line.text


class Logs:
    def __init__(self, store: Store, pods: PodHost) -> None:
        self._store = store
        self._pods = pods

    async def serve(self, call: Call) -> web.StreamResponse:
        stored = self._store.get(PODS, call.asked.namespace, call.asked.name)
        container_of(stored.data, call)
        if call.flag("previous"):
            raise bad_request(f'previous terminated container in pod "{call.asked.name}" not found')
        wish = _wish(call)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(call.request)
        await self._send(response, self._pods.pod(stored.uid).log, wish)
        await response.write_eof()
        return response

    async def _send(self, response: web.StreamResponse, log: Journal[Line], wish: Wish) -> None:
        position = log.first if wish.tail is None else max(log.first, log.end - wish.tail)
        left = wish.limit
        while True:
            try:
                lines = log.since(position)
            except Overrun:
                position = log.first  # rotated away, as a kubelet does with a log that is read too slowly
                continue
            position += len(lines)
            data = wish.text(lines)[:left]
            if data:
                await response.write(data)
            left = None if left is None else left - len(data)
            if left == 0 or not wish.follow or (log.closed and position == log.end):
                return
            await log.beyond(position)


def container_of(pod: Obj, call: Call) -> str:
    """The container that the request is about: the one it names, or the only one."""
    names = [container["name"] for container in pod["spec"]["containers"]]
    asked = call.query.get("container", "")
    if asked and asked not in names:
        raise bad_request(f"container {asked} is not valid for pod {call.asked.name}")
    if not asked and len(names) > 1:
        choices = " ".join(names)
        raise bad_request(f"a container name must be specified for pod {call.asked.name}, choose one of: [{choices}]")
    return asked or str(names[0])


def _wish(call: Call) -> Wish:
    return Wish(
        follow=call.flag("follow"),
        timestamps=call.flag("timestamps"),
        tail=call.number("tailLines"),
        limit=call.number("limitBytes"),
        since=_since(call),
    )


def _since(call: Call) -> datetime | None:
    seconds = call.number("sinceSeconds")
    if seconds is not None:
        return datetime.now(UTC) - timedelta(seconds=seconds)
    text = call.query.get("sinceTime", "")
    try:
        return moment(text) if text else None
    except ValueError as error:
        raise bad_request(f'sinceTime: Invalid value: "{text}"') from error
