"""Questions over the control messages of a session, either way (docs/protocol.md, 3): `call` and its `return`.

They are for what is rare and small (a certificate's renewal, a token, a clean-up), never for a user's request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeAlias

from tunnel.errors import ProtocolError, TunnelError
from tunnel.messages import Message, encode_message, number, printable, text

Params: TypeAlias = dict[str, Any]
Method: TypeAlias = Callable[[Params], Coroutine[Any, Any, Params]]
"""Answers one question. Raises CallFailed for what the other side is to hear; anything else is told as a bug."""

AT_ONCE: Final = 64
"""Calls of a peer that are under way; more are refused."""


class CallFailed(TunnelError):
    """The other side could not or would not. `reason` is one word for programs, the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Calls:
    """One side's calls and methods. `send` takes the payload of a CONTROL frame. Methods that answer are tasks, which
    end with the session (`close`).
    """

    def __init__(
        self,
        send: Callable[[bytes], None],
        methods: Mapping[str, Method],
        on_bug: Callable[[BaseException], None] = lambda _error: None,
    ) -> None:
        self._send = send
        self._methods = methods
        self._on_bug = on_bug
        self._next = 0
        self._waiting: dict[int, asyncio.Future[Params]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    async def call(self, method: str, params: Params, timeout: float) -> Params:
        """Ask, and wait for the answer. Raises CallFailed, also (`timeout`, `closed`) where none comes."""
        number_ = self._next = self._next + 1
        answer: asyncio.Future[Params] = asyncio.get_running_loop().create_future()
        self._waiting[number_] = answer
        try:
            self._send(encode_message("call", id=number_, method=method, params=params))
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise CallFailed("timeout", f"{method}: no answer in {timeout:g} s") from None
        finally:
            del self._waiting[number_]

    def on_message(self, message: Message) -> bool:
        """Take a control message; False where it is none of ours. Raises ProtocolError where it is malformed."""
        if message["kind"] == "call":
            self._called(message)
        elif message["kind"] == "return":
            self._returned(message)
        else:
            return False
        return True

    def close(self, reason: str) -> None:
        """The session has ended: nobody will answer."""
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(CallFailed("closed", reason))
        for task in self._answering:
            task.cancel()

    def _called(self, message: Message) -> None:
        call, name, params = number(message, "id"), text(message, "method", 64), message.get("params", {})
        if not isinstance(params, dict):
            raise ProtocolError("call: params are no object")
        method = self._methods.get(name)
        if method is None:
            self._fail(call, CallFailed("unknown", f"{name} is nothing that this side does"))
        elif len(self._answering) >= AT_ONCE:
            self._fail(call, CallFailed("overloaded", "too many calls are under way"))
        else:
            task = asyncio.get_running_loop().create_task(self._answer(call, method, params), name=f"answer {name}")
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, call: int, method: Method, params: Params) -> None:
        try:
            self._send(encode_message("return", id=call, result=await method(params)))
        except CallFailed as failed:
            self._fail(call, failed)
        except Exception as error:
            self._on_bug(error)
            self._fail(call, CallFailed("internal", "internal error"))

    def _fail(self, call: int, failed: CallFailed) -> None:
        error = {"reason": failed.reason, "message": str(failed)[:1024]}
        self._send(encode_message("return", id=call, error=error))

    def _returned(self, message: Message) -> None:
        """An answer that nobody waits for any more came too late."""
        answer = self._waiting.get(number(message, "id"))
        if answer is None or answer.done():
            return
        error, result = message.get("error"), message.get("result", {})
        if isinstance(error, dict):
            told = {"kind": "return.error"} | error
            answer.set_exception(CallFailed(text(told, "reason", 64), printable(str(told.get("message", ""))[:1024])))
        elif isinstance(result, dict):
            answer.set_result(result)
        else:
            raise ProtocolError("return: the result is no object")
