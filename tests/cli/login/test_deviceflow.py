"""Signing in by device code: RFC 8628's answers, and an issuer that shows what is not fit to be shown."""

from __future__ import annotations

import json

import pytest

from cli.failures import Failed
from cli.login.flow import sign_in
from cli.login.stored import Login
from tests.cli.login.conftest import CLIENT, NOW, Desk


async def by_device(desk: Desk) -> Login:
    return await sign_in(desk.tools, desk.key, CLIENT, desk.ways(None))


async def test_it_is_the_way_where_no_browser_opens(desk: Desk) -> None:
    desk.issuer.device_answers = ["authorization_pending", "authorization_pending"]
    login = await by_device(desk)
    assert login.subject == "ada"
    assert login.times.expires == NOW + 15 + 300
    assert desk.slept == [5, 5, 5]
    assert "enter the code ABCD-EFGH" in desk.text()
    assert "the-device" not in desk.text()


async def test_slow_down_slows_down(desk: Desk) -> None:
    desk.issuer.device_answers = ["slow_down", "authorization_pending", "slow_down"]
    await by_device(desk)
    assert desk.slept == [5, 10, 10, 15]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("access_denied", "refused on the other machine"),
        ("expired_token", "has expired"),
        ("invalid_grant", "refused the sign-in: invalid_grant"),
    ],
)
async def test_an_end_is_told(desk: Desk, answer: str, words: str) -> None:
    desk.issuer.device_answers = ["authorization_pending", answer]
    with pytest.raises(Failed, match=words):
        await by_device(desk)


async def test_a_code_that_nobody_uses_ends_by_itself(desk: Desk) -> None:
    desk.issuer.device_answers = ["authorization_pending"] * 1_000
    with pytest.raises(Failed, match="has expired before anybody"):
        await by_device(desk)
    assert sum(desk.slept) == 300


async def test_an_issuer_that_is_down_is_asked_ever_more_slowly(desk: Desk) -> None:
    desk.issuer.overrides["/token"] = (503, b"")
    with pytest.raises(Failed, match="has expired before anybody"):
        await by_device(desk)
    assert desk.slept == [5, 10, 20, 40, 60, 60, 60, 60]


@pytest.mark.parametrize(
    "change",
    [
        {"verification_uri": "http://evil.example/"},
        {"verification_uri": "https://x/\x1b]8;;"},
        {"user_code": ""},
        {"device_code": None},
    ],
)
async def test_what_is_not_fit_to_be_shown_is_not(desk: Desk, change: dict[str, object]) -> None:
    honest = {"device_code": "x", "user_code": "A", "verification_uri": "https://x/"}
    desk.issuer.overrides["/device"] = (200, json.dumps(honest | change).encode())
    with pytest.raises(Failed, match="lacks something"):
        await by_device(desk)
    assert not desk.said


async def test_without_browser_and_device_code_the_address_is_printed(desk: Desk) -> None:
    desk.issuer.discovery = lambda found: found.update(device_authorization_endpoint=None)
    with pytest.raises(Failed, match="nobody signed in"):
        await by_device(desk)
    assert "Open this in a browser:" in desk.said
    with pytest.raises(Failed, match="no sign-in by device code"):
        await sign_in(desk.tools, desk.key, CLIENT, desk.ways(None, device=True))
