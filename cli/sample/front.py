"""The way in: every request is logged, authenticated, authorised, then answered, with errors as `Status`."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping

import structlog
from aiohttp import web

from cli.sample import attributes, callers, rules
from cli.sample.call import Call, answer
from cli.sample.callers import Caller
from cli.sample.document import dumps
from cli.sample.requestlog import RequestLog
from cli.sample.status import ApiError, bad_request, internal

_log = structlog.get_logger(__name__)
Serve = Callable[[Call], Awaitable[web.StreamResponse]]


class Front:
    def __init__(self, known: Mapping[str, Caller], requests: RequestLog, serve: Serve) -> None:
        self._known = known
        self._requests = requests
        self._serve = serve
        self._active: set[asyncio.Task[object]] = set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._active.add(task)
        try:
            return await self._answer(request)
        finally:
            self._active.discard(task)

    async def close(self) -> None:
        """End what is still being answered: watches, followed logs, execs."""
        active = list(self._active)
        for task in active:
            task.cancel()
        if active:
            await asyncio.wait(active)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self._requests.add(request)
        try:
            return await self._serve(self._call(request))
        except ApiError as error:
            if request.writer.output_size:
                raise  # an answer has begun: the connection ends, rather than carry a second one in it
            return _refusal(error)
        except Exception as error:
            if request.writer.output_size or isinstance(error, ConnectionError):
                raise
            _log.exception("sample request failed", method=request.method, path=request.path)
            return _refusal(internal(type(error).__name__))

    def _call(self, request: web.BaseRequest) -> Call:
        caller = callers.caller_of(request.headers, self._known, rules.require)
        try:
            asked = attributes.read(request.method, request.rel_url.raw_path, request.rel_url.query)
        except ValueError as error:
            raise bad_request("the path cannot be read") from error
        rules.require(caller, asked)
        return Call(request, asked, caller)


def _refusal(error: ApiError) -> web.Response:
    response = answer(dumps(error.status()), error.code)
    response.headers["Audit-Id"] = str(uuid.uuid4())
    if error.code == 413:
        response.force_close()
    return response
