"""How long keys are believed, and when they are asked for again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest

from auth.authenticator import AuthenticationFailed, AuthenticationUnavailable, Undecided
from auth.oidc.jwkscache import REFRESH, RETRY, STALE, IssuerKeys
from auth.oidc.jwksfetch import Fetched
from tests.support.oidc_issuer import NOW, URL, Clock, FakeIssuer


@contextlib.asynccontextmanager
async def running(keys: IssuerKeys) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(keys.run())
    await turns()
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_before_the_first_fetch_nothing_is_decided() -> None:
    keys = IssuerKeys(URL, FakeIssuer(), Clock())
    with pytest.raises(Undecided):
        keys.current(NOW)
    assert keys.due(NOW) == 0
    assert keys.problem == "not asked yet"


@pytest.mark.parametrize(
    ("max_age", "expected"), [(None, REFRESH[1]), (0.0, REFRESH[0]), (300.0, 300.0), (1e9, REFRESH[1])]
)
async def test_keys_are_fetched_again_when_the_issuer_says_within_bounds(
    max_age: float | None, expected: float
) -> None:
    fake = FakeIssuer(max_age=max_age)
    keys = IssuerKeys(URL, fake, Clock())
    async with running(keys):
        assert keys.due(NOW) == expected
        assert keys.due(NOW + expected - 1) == 1
        assert keys.due(NOW + expected + 9) == 0
        assert keys.due(NOW - 86_400) == expected, "a clock that was set back puts nothing off"


async def test_keys_are_fetched_in_the_background() -> None:
    fake, clock = FakeIssuer(max_age=0.0), Clock()
    keys = IssuerKeys(URL, fake, clock)
    async with running(keys):
        assert fake.fetches == 1
        fake.keys = []
        clock.now += REFRESH[0]
        keys._wanted.set()  # stands in for the timer, which runs by another clock
        await turns()
        assert fake.fetches == 2
        assert keys.current(clock.now).keys == ()
        assert keys.problem == "it publishes no key that can be used"


async def test_a_failure_is_tried_again_soon() -> None:
    keys = IssuerKeys(URL, FakeIssuer(down=True), Clock())
    async with running(keys):
        assert keys.due(NOW) == RETRY
        assert keys.problem == "it is down"
        with pytest.raises(AuthenticationUnavailable):
            keys.current(NOW)
        with pytest.raises(Undecided):
            keys.current(NOW + RETRY)


async def test_keys_of_an_issuer_that_is_gone_are_believed_for_a_bounded_time() -> None:
    fake, clock = FakeIssuer(), Clock()
    keys = IssuerKeys(URL, fake, clock)
    async with running(keys):
        fake.down = True
        clock.now += RETRY
        await keys.settle()
        assert keys.problem == "it is down"
        assert keys.current(NOW + STALE - 1).keys
        with pytest.raises(Undecided):
            keys.current(NOW + STALE)
        clock.now = NOW + STALE
        await keys.settle()
        with pytest.raises(AuthenticationUnavailable):
            keys.current(clock.now)


async def test_an_unknown_key_is_refused_only_by_an_issuer_that_was_just_asked() -> None:
    fake, clock = FakeIssuer(), Clock()
    keys = IssuerKeys(URL, fake, clock)
    assert isinstance(keys.unknown_key(NOW), Undecided)
    async with running(keys):
        refused = keys.unknown_key(NOW)
        assert isinstance(refused, AuthenticationFailed)
        assert not isinstance(refused, AuthenticationUnavailable)
        assert isinstance(keys.unknown_key(NOW + RETRY), Undecided)
        fake.down = True
        clock.now += RETRY
        await keys.settle()
        assert isinstance(keys.unknown_key(clock.now), AuthenticationUnavailable)


async def test_who_asks_with_an_older_time_gets_an_answer() -> None:
    fake, clock = FakeIssuer(down=True), Clock()
    keys = IssuerKeys(URL, fake, clock)
    with pytest.raises(Undecided):
        keys.current(NOW)
    clock.now += 4  # the fetch takes its time
    async with running(keys):
        with pytest.raises(AuthenticationUnavailable):
            keys.current(NOW)


class Slow(FakeIssuer):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()

    async def fetch(self) -> Fetched:
        self.fetches += 1
        await self.let.wait()
        self.fetches -= 1
        return await super().fetch()


async def test_all_who_wait_share_one_fetch_and_no_other_follows() -> None:
    slow = Slow()
    keys = IssuerKeys(URL, slow, Clock())
    async with running(keys):
        waiting = [asyncio.create_task(keys.settle()) for _ in range(50)]
        await turns()
        assert not any(task.done() for task in waiting)
        slow.let.set()
        await asyncio.gather(*waiting)
        await turns()
        assert slow.fetches == 1
        await keys.settle()
        assert slow.fetches == 1


async def test_one_who_gives_up_waiting_does_not_end_the_fetch() -> None:
    slow = Slow()
    keys = IssuerKeys(URL, slow, Clock())
    async with running(keys):
        first, second = asyncio.create_task(keys.settle()), asyncio.create_task(keys.settle())
        await turns()
        first.cancel()
        await turns()
        slow.let.set()
        await second
        assert keys.current(NOW).keys


async def test_when_nobody_fetches_any_more_nobody_waits() -> None:
    slow = Slow()
    keys = IssuerKeys(URL, slow, Clock())
    async with running(keys) as task:
        waiting = asyncio.create_task(keys.settle())
        await turns()
        task.cancel()
        await asyncio.wait_for(waiting, 1)
        await asyncio.wait_for(keys.settle(), 1)


class Broken(FakeIssuer):
    """Has a defect, as long as it is down."""

    async def fetch(self) -> Fetched:
        if self.down:
            self.fetches += 1
            raise RuntimeError("unforeseen")
        return await super().fetch()


async def test_a_defect_ends_one_attempt_and_not_the_task() -> None:
    broken, clock = Broken(down=True), Clock()
    keys = IssuerKeys(URL, broken, clock)
    async with running(keys) as task:
        assert keys.problem == "a defect of Kulvert's: RuntimeError"
        assert not task.done()
        broken.down = False
        clock.now += RETRY
        await keys.settle()
        assert keys.problem is None
        assert keys.current(clock.now).keys


async def test_a_lasting_problem_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="auth.oidc.jwkscache")
    fake, clock = FakeIssuer(down=True), Clock()
    keys = IssuerKeys(URL, fake, clock)
    async with running(keys):
        for _ in range(3):
            clock.now += RETRY
            await keys.settle()
        fake.down = False
        clock.now += RETRY
        await keys.settle()
    assert [record.getMessage() for record in caplog.records] == [
        f"the keys of the issuer {URL} cannot be fetched: it is down",
        f"the keys of the issuer {URL} are known",
    ]
