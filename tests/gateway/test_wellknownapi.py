"""The public document on how to sign in: what is in it, and which settings are refused."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.wellknownapi import PATH, LoginSettings, WellKnown

DEX = LoginSettings("https://dex.example.com", "kulvert")


async def shown(settings: LoginSettings) -> dict[str, object]:
    app = web.Application()
    app.add_routes(WellKnown(settings).routes())
    async with TestClient(TestServer(app)) as client:
        answer = await client.get(PATH)
        assert answer.content_type == "application/json"
        found: dict[str, object] = await answer.json()
        return found


async def test_it_says_how_to_sign_in() -> None:
    assert await shown(DEX) == {
        "apiVersion": "kulvert.dev/v1alpha1",
        "kind": "KulvertConfiguration",
        "issuer": "https://dex.example.com",
        "clientId": "kulvert",
        "scopes": ["openid", "profile", "email", "groups", "offline_access"],
        "redirectHost": "localhost",
    }


async def test_without_an_issuer_it_says_only_what_it_is() -> None:
    assert set(await shown(LoginSettings())) == {"apiVersion", "kind"}


@pytest.mark.parametrize("settings", [LoginSettings(), DEX, LoginSettings("http://127.0.0.1:5556/dex", "kulvert")])
def test_settings_that_can_be_used(settings: LoginSettings) -> None:
    assert settings.problem() is None


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (LoginSettings("https://x"), "go together"),
        (LoginSettings("", "kulvert"), "go together"),
        (LoginSettings("http://dex.example.com", "kulvert"), "https"),
        (LoginSettings("https://u:p@dex.example.com", "kulvert"), "https"),
        (LoginSettings("https://dex.example.com?x=1", "kulvert"), "https"),
        (LoginSettings("https://[", "kulvert"), "https"),
        (LoginSettings("https://x", "kulvert", scopes=("email",)), "openid"),
        (LoginSettings("https://x", "kulvert", scopes=("openid", "a b")), "without spaces"),
        (LoginSettings("https://x", "kulvert", redirect_host="evil.example"), "redirectHost"),
    ],
)
def test_settings_that_would_mislead_are_refused(settings: LoginSettings, word: str) -> None:
    assert word in (settings.problem() or "")
