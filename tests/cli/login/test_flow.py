"""Signing in, as an honest issuer does it, and as a hostile, slow or broken one, or a page in the browser, would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import jwt
import pytest

from cli.failures import Failed
from cli.login.flow import renewed, revoked, sign_in
from cli.login.stored import Login
from tests.cli.login.conftest import CLIENT, NOW, Desk

Visit = Callable[[str], None]


class Browser:
    """Opens what it is given, follows redirects, and keeps the pages."""

    def __init__(self) -> None:
        self.pages: list[tuple[int, str]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.before: Callable[[str], str] = lambda url: url

    def open(self, url: str) -> bool:
        self.tasks.append(asyncio.get_running_loop().create_task(self._visit(url), name="a browser"))
        return True

    async def _visit(self, url: str) -> None:
        async with aiohttp.ClientSession() as session:
            async with session.get(url, allow_redirects=False) as answer:
                back = answer.headers["Location"]
            await self.get(self.before(back))

    async def get(self, url: str, **headers: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            self.pages.append((answer.status, await answer.text()))
            return self.pages[-1]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    made = Browser()
    yield made
    await asyncio.gather(*made.tasks, return_exceptions=True)


async def signed_in(desk: Desk, browser: Browser) -> Login:
    return await sign_in(desk.tools, desk.key, CLIENT, desk.ways(browser.open))


def rewritten(url: str, **changes: str) -> str:
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()} | changes
    return f"{parts.scheme}://{parts.netloc}{parts.path}?{urlencode(query)}"


async def test_the_browser_comes_back_and_the_login_is_whole(desk: Desk, browser: Browser) -> None:
    login = await signed_in(desk, browser)
    assert (login.subject, login.name) == ("ada", "ada@example.com")
    assert login.times.expires == NOW + 300
    assert login.refresh_token in desk.issuer.refresh_tokens
    await asyncio.gather(*browser.tasks)
    assert browser.pages[0][0] == 200
    assert "Back to the terminal" in browser.pages[0][1]


async def test_the_authorisation_request_has_pkce_state_and_nonce_of_its_own(desk: Desk, browser: Browser) -> None:
    urls: list[str] = []

    def opens(url: str) -> bool:
        urls.append(url)
        return browser.open(url)

    for _ in range(2):
        await sign_in(desk.tools, desk.key, CLIENT, desk.ways(opens))
    first, second = (parse_qs(urlsplit(url).query) for url in urls)
    assert first["code_challenge_method"] == ["S256"]
    assert first["response_type"] == ["code"]
    assert first["redirect_uri"][0].startswith("http://localhost:")
    assert all(first[name] != second[name] for name in ("state", "nonce", "code_challenge"))
    assert all(len(first[name][0]) == 43 for name in ("state", "nonce", "code_challenge"))


async def test_a_wrong_state_is_turned_away_and_waited_past(desk: Desk, browser: Browser) -> None:
    def before(url: str) -> str:
        browser.before = lambda same: same
        browser.tasks.append(asyncio.get_running_loop().create_task(later(url), name="the honest answer"))
        return rewritten(url, state="forged")

    async def later(url: str) -> None:
        while not browser.pages:  # noqa: ASYNC110 -- the forged one comes first
            await asyncio.sleep(0.01)
        await browser.get(url)

    browser.before = before
    login = await signed_in(desk, browser)
    assert login.subject == "ada"
    await asyncio.gather(*browser.tasks)
    assert [status for status, _ in browser.pages] == [400, 200]


async def test_a_forged_refusal_does_not_end_the_sign_in(desk: Desk, browser: Browser) -> None:
    browser.before = lambda url: rewritten(url, state="forged", error="access_denied")
    with pytest.raises(Failed, match="nobody signed in within"):
        await signed_in(desk, browser)


async def test_a_second_answer_is_too_late(desk: Desk, browser: Browser) -> None:
    desk.issuer.delay["/token"] = 0.2

    def before(url: str) -> str:
        async def twice() -> None:
            await asyncio.sleep(0.05)
            await browser.get(rewritten(url, code="stolen"))

        browser.tasks.append(asyncio.get_running_loop().create_task(twice(), name="again"))
        return url

    browser.before = before
    assert (await signed_in(desk, browser)).subject == "ada"
    await asyncio.gather(*browser.tasks)
    assert [status for status, _ in browser.pages] == [200, 410]


async def test_other_paths_methods_and_hosts_are_not_answered(desk: Desk, browser: Browser) -> None:
    seen: list[int] = []

    def before(url: str) -> str:
        async def odd() -> None:
            origin = url.partition("/callback")[0]
            seen.append((await browser.get(origin + "/"))[0])
            seen.append((await browser.get(url.replace("/callback", "/callback/")))[0])
            seen.append((await browser.get(url, Host="evil.example:80"))[0])
            async with aiohttp.ClientSession() as session, session.post(url) as answer:
                seen.append(answer.status)

        browser.tasks.append(asyncio.get_running_loop().create_task(odd(), name="odd requests"))
        return url.replace("/callback", "/elsewhere")

    browser.before = before
    with pytest.raises(Failed, match="nobody signed in"):
        await signed_in(desk, browser)
    await asyncio.gather(*browser.tasks)
    assert seen == [404, 404, 404, 405]


async def test_a_refusal_in_the_browser_is_told_fit_for_a_terminal(desk: Desk, browser: Browser) -> None:
    def refuse(answer: dict[str, Any]) -> None:
        del answer["code"]
        answer |= {"error": "access_denied", "error_description": "no\x1b[2J way" + "y" * 1_000}

    desk.issuer.callback = refuse
    with pytest.raises(Failed, match="refused the sign-in: access_denied no") as caught:
        await signed_in(desk, browser)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


async def test_an_answer_of_another_issuer_is_not_used(desk: Desk, browser: Browser) -> None:
    desk.issuer.callback = lambda answer: answer.update(iss="https://other.example")
    with pytest.raises(Failed, match="another issuer's"):
        await signed_in(desk, browser)
    assert desk.issuer.count("/token") == 0


async def test_an_issuer_that_says_so_must_name_itself(desk: Desk, browser: Browser) -> None:
    desk.issuer.discovery = lambda found: found.update(authorization_response_iss_parameter_supported=True)
    with pytest.raises(Failed, match="another issuer's"):
        await signed_in(desk, browser)
    desk.issuer.callback = lambda answer: answer.update(iss=desk.issuer.url)
    assert (await signed_in(desk, browser)).subject == "ada"


async def test_a_parameter_that_comes_twice_is_no_answer(desk: Desk, browser: Browser) -> None:
    browser.before = lambda url: url + "&code=another"
    with pytest.raises(Failed, match="nobody signed in"):
        await signed_in(desk, browser)


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"nonce": "another"}, "nonce"),
        ({"iss": "https://other.example"}, "another issuer"),
        ({"aud": "someone-else"}, "another client"),
        ({"aud": ["kulvert", "someone-else"]}, "another client"),
        ({"aud": ["kulvert", "someone-else"], "azp": "someone-else"}, "another client"),
        ({"exp": int(NOW) - 1}, "clock"),
        ({"exp": True}, "times"),
        ({"exp": 10**400}, "times|wrongly signed"),
        ({"nbf": int(NOW) + 600}, "not valid yet"),
    ],
)
async def test_a_token_that_is_not_what_was_asked_for(
    desk: Desk, browser: Browser, claims: dict[str, Any], words: str
) -> None:
    desk.issuer.claims = lambda found: found.update(claims)
    with pytest.raises(Failed, match=words):
        await signed_in(desk, browser)


async def test_a_token_without_a_nonce_is_refused(desk: Desk, browser: Browser) -> None:
    desk.issuer.claims = lambda found: found.pop("nonce")
    with pytest.raises(Failed, match="nonce"):
        await signed_in(desk, browser)


async def test_a_token_with_a_foreign_signature_or_none_is_refused(desk: Desk, browser: Browser) -> None:
    honest = desk.issuer.keys[0]
    desk.issuer.sign = lambda claims: jwt.encode(claims, "", "none")
    with pytest.raises(Failed, match="not signed with a public key"):
        await signed_in(desk, browser)
    desk.issuer.sign = lambda claims: jwt.encode(claims, "s" * 32, "HS256", headers={"kid": honest.kid})
    with pytest.raises(Failed, match="not signed with a public key"):
        await signed_in(desk, browser)
    desk.issuer.rotate()
    desk.issuer.sign = honest.sign
    with pytest.raises(Failed, match="does not publish"):
        await signed_in(desk, browser)
    desk.issuer.keys[0].kid = honest.kid
    with pytest.raises(Failed, match="wrongly signed"):
        await signed_in(desk, browser)
    desk.issuer.sign = None
    desk.issuer.with_id_token = False
    with pytest.raises(Failed, match="is missing"):
        await signed_in(desk, browser)


async def test_a_symmetric_key_among_the_issuers_is_not_used(desk: Desk, browser: Browser) -> None:
    desk.issuer.keys[0].__class__ = type(
        "Oct",
        (desk.issuer.keys[0].__class__,),
        {"jwk": {"kty": "oct", "k": "c2VjcmV0", "kid": desk.issuer.keys[0].kid}},
    )
    with pytest.raises(Failed, match="another algorithm"):
        await signed_in(desk, browser)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"issuer": "https://other.example"}, "says that it is the issuer"),
        ({"issuer": None}, "says that it is the issuer"),
        ({"token_endpoint": "http://evil.example/token"}, "has no token_endpoint"),
        ({"token_endpoint": "https://u:p@evil.example/"}, "has no token_endpoint"),
        ({"jwks_uri": None}, "has no jwks_uri"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "has no authorization_endpoint"),
        ({"authorization_endpoint": "https://x/\x1b[2J"}, "has no authorization_endpoint"),
    ],
)
async def test_a_discovery_document_that_misleads(
    desk: Desk, browser: Browser, change: dict[str, Any], words: str
) -> None:
    desk.issuer.discovery = lambda found: found.update(change)
    with pytest.raises(Failed, match=words):
        await signed_in(desk, browser)


DISCOVERY = "/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b"nothing here", "no discovery document: check the issuer's URL"),
        (200, b"<html>a captive portal</html>", "no discovery document"),
        (200, b"[1]", "no discovery document"),
        (200, b"[" * 100_000, "no discovery document"),
        (200, b" " * (1 << 20) + b"{}", "more than"),
        (302, b"https://evil.example/", "no discovery document"),
        (503, b"", "answered 503; try again"),
    ],
)
async def test_a_discovery_that_is_none(desk: Desk, browser: Browser, status: int, body: bytes, words: str) -> None:
    desk.issuer.overrides[DISCOVERY] = (status, body)
    with pytest.raises(Failed, match=words):
        await signed_in(desk, browser)


@pytest.mark.parametrize("path", [DISCOVERY, "/token", "/keys"])
async def test_a_slow_issuer_is_told_of_and_given_up(desk: Desk, browser: Browser, path: str) -> None:
    desk.issuer.delay[path] = 5.0
    with pytest.raises(Failed, match=r"did not answer within 0\.5 s; try again"):
        await signed_in(desk, browser)


async def test_nobody_is_there(desk: Desk, browser: Browser) -> None:
    key = type(desk.key)(desk.key.server, "http://127.0.0.1:1", "kulvert")
    with pytest.raises(Failed, match=r"127\.0\.0\.1:1 cannot be reached"):
        await sign_in(desk.tools, key, CLIENT, desk.ways(browser.open))


@pytest.mark.parametrize(
    "url", ["http://issuer.example", "ftp://x", "https://", "https://[", "https://x?y=z", "nothing"]
)
async def test_an_issuer_that_is_no_https_url(desk: Desk, browser: Browser, url: str) -> None:
    key = type(desk.key)(desk.key.server, url, "kulvert")
    with pytest.raises(Failed, match="no https:// URL"):
        await sign_in(desk.tools, key, CLIENT, desk.ways(browser.open))


# --- silent renewal


async def test_a_renewal_uses_each_refresh_token_once_and_keeps_the_new_one_first(desk: Desk, browser: Browser) -> None:
    login = await signed_in(desk, browser)
    kept: list[Login] = []
    for _ in range(5):
        desk.time[0] += 250
        login = await renewed(desk.tools, login, kept.append)
        assert login.times.expires == desk.time[0] + 300
    assert desk.issuer.reused == 0
    assert kept[-1].refresh_token == login.refresh_token
    assert kept[-1].id_token != login.id_token


async def test_keys_that_rotate_between_two_renewals_matter_to_nobody(desk: Desk, browser: Browser) -> None:
    login = await signed_in(desk, browser)
    desk.issuer.rotate()
    desk.time[0] += 250
    assert (await renewed(desk.tools, login, lambda _: None)).times.expires == desk.time[0] + 300


async def test_keys_that_rotate_in_the_midst_of_a_renewal_matter_to_nobody(desk: Desk, browser: Browser) -> None:
    login = await signed_in(desk, browser)
    desk.time[0] += 250
    desk.issuer.claims = lambda _: desk.issuer.rotate()
    assert (await renewed(desk.tools, login, lambda _: None)).times.expires == desk.time[0] + 300


@pytest.mark.parametrize("path", [DISCOVERY, "/keys"])
async def test_what_fails_before_leaves_the_refresh_token_unused(desk: Desk, browser: Browser, path: str) -> None:
    login = await signed_in(desk, browser)
    desk.issuer.overrides[path] = (503, b"")
    after = await renewed(desk.tools, login, lambda _: None)
    assert after.refresh_token == login.refresh_token
    assert after.times.failures == 1
    assert desk.issuer.used_up == set()


async def test_a_renewal_with_a_bad_token_still_keeps_the_new_refresh_token(desk: Desk, browser: Browser) -> None:
    login = await signed_in(desk, browser)
    desk.issuer.claims = lambda found: found.update(sub="eve")
    after = await renewed(desk.tools, login, lambda _: None)
    assert after.id_token == login.id_token
    assert after.refresh_token != login.refresh_token
    assert after.refresh_token in desk.issuer.refresh_tokens
    assert "another user's" in desk.text()


async def test_a_refresh_token_that_is_good_no_more_is_forgotten(desk: Desk, browser: Browser) -> None:
    login = await signed_in(desk, browser)
    desk.issuer.refresh_tokens.clear()
    after = await renewed(desk.tools, login, lambda _: None)
    assert (after.refresh_token, after.id_token) == ("", login.id_token)
    assert login.refresh_token not in desk.text()


async def test_an_issuer_that_is_down_takes_nothing_away(desk: Desk, browser: Browser) -> None:
    login = await signed_in(desk, browser)
    for answer in ((500, b'{"error":"server_error"}'), (200, b"not json"), (429, b"")):
        desk.issuer.overrides["/token"] = answer
        after = await renewed(desk.tools, login, lambda _: None)
        assert after.refresh_token == login.refresh_token
        assert after.times.retry_at == desk.time[0] + 2


async def test_a_clock_that_is_wrong_here_changes_no_lifetime(desk: Desk, browser: Browser) -> None:
    desk.issuer.clock = lambda: NOW - 1_234.0
    login = await signed_in(desk, browser)
    assert login.times.expires == NOW + 300


async def test_a_revocation_tells_the_issuer(desk: Desk, browser: Browser) -> None:
    login = await signed_in(desk, browser)
    assert await revoked(desk.tools, login)
    assert desk.issuer.revoked == [login.refresh_token]
    desk.issuer.discovery = lambda found: found.update(revocation_endpoint=None)
    assert not await revoked(desk.tools, login)
