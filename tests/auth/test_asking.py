"""Questions to somebody else: asked once for all who wait, handed over, and forgotten."""

from __future__ import annotations

import asyncio

import pytest

from auth.asking import Asking
from auth.authenticator import AuthenticationUnavailable, Undecided


class Oracle:
    def __init__(self) -> None:
        self.now = 1_000.0
        self.asked: list[str] = []
        self.speaks = asyncio.Event()
        self.away = False
        self.asking: Asking[str, str] = Asking(self.ask, lambda: self.now, keep=5.0, most=3)

    async def ask(self, key: str) -> str:
        self.asked.append(key)
        await self.speaks.wait()
        if self.away:
            raise AuthenticationUnavailable("nobody is there")
        return key.upper()

    def settle(self, key: str) -> asyncio.Task[None]:
        with pytest.raises(Undecided) as undecided:
            self.asking.get(key)
        return asyncio.ensure_future(undecided.value.settle())


@pytest.fixture
async def oracle() -> Oracle:
    return Oracle()


async def test_all_who_wait_share_one_question(oracle: Oracle) -> None:
    waiting = [oracle.settle("a") for _ in range(5)]
    await asyncio.sleep(0)
    oracle.speaks.set()
    await asyncio.gather(*waiting)
    assert oracle.asking.get("a") == "A"
    assert oracle.asked == ["a"]


async def test_an_answer_is_kept_for_a_while_only(oracle: Oracle) -> None:
    oracle.speaks.set()
    await oracle.settle("a")
    oracle.now += 4.9
    assert oracle.asking.get("a") == "A"
    oracle.now += 0.2
    await oracle.settle("a")
    assert oracle.asked == ["a", "a"]


async def test_no_answer_is_told_to_all_and_not_as_a_no(oracle: Oracle) -> None:
    oracle.away = True
    oracle.speaks.set()
    await oracle.settle("a")
    for _ in range(2):
        with pytest.raises(AuthenticationUnavailable):
            oracle.asking.get("a")


async def test_whoever_gives_up_lets_the_next_one_ask(oracle: Oracle) -> None:
    first, second = oracle.settle("a"), oracle.settle("a")
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    oracle.speaks.set()
    await second
    assert oracle.asking.get("a") == "A"
    assert oracle.asked == ["a", "a"]


async def test_a_flood_of_questions_is_bounded_and_so_is_what_is_kept(oracle: Oracle) -> None:
    waiting = [oracle.settle(key) for key in "abcd"]
    await asyncio.sleep(0)
    assert oracle.asked == ["a", "b", "c"]
    with pytest.raises(AuthenticationUnavailable, match="too many"):
        oracle.asking.get("d")
    oracle.speaks.set()
    await asyncio.gather(*waiting)
    assert len(oracle.asking._kept) <= 3
