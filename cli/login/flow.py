"""A sign-in from its beginning to a checked login, by the way that this machine has; and a login's silent renewal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from cli.credentialplan import Times, failed, obtained
from cli.failures import Failed
from cli.login.attempt import Attempt, Random
from cli.login.deviceflow import by_device
from cli.login.idtoken import Checked, Expected, UnknownKey, check
from cli.login.issuer import Issuer, discover
from cli.login.loopback import Loopback
from cli.login.stored import Client, Login
from cli.login.tokens import Granted, Rejected, ask, post
from cli.login.web import Unreachable, Web
from cli.tokencache import LoginKey

BROWSER_TIME = 300.0


@dataclass(frozen=True, slots=True)
class Ways:
    """How to sign in. Without `opens` no browser can be opened here."""

    opens: Callable[[str], bool] | None
    device: bool = False
    print_only: bool = False
    host: str = "localhost"
    port: int = 0
    timeout: float = BROWSER_TIME


@dataclass(frozen=True, slots=True)
class Tools:
    """What a flow takes from outside: the network, the clock (epoch seconds), randomness, and where it speaks."""

    web: Web
    clock: Callable[[], float]
    random: Random
    sleep: Callable[[float], Awaitable[None]]
    show: Callable[[str], None]


async def sign_in(tools: Tools, key: LoginKey, client: Client, ways: Ways, ca: str = "") -> Login:
    """:raises Failed: it did not come to a login; the text says what to do."""
    try:
        issuer = await discover(tools.web, key.issuer)
        device = ways.device or (ways.opens is None and not ways.print_only and bool(issuer.device))
        if device:
            granted, nonce = await by_device(tools.web, issuer, client, tools.show, tools.sleep), None
        else:
            attempt = Attempt.new(tools.random)
            granted, nonce = await _by_browser(tools, issuer, client, ways, attempt), attempt.nonce
        checked, times = await _checked(tools, issuer, granted, Expected(issuer.url, client.id, nonce))
    except Unreachable as error:
        raise Failed(f"{error}; try again when it can be reached") from None
    return Login(key, client, times, checked.subject, checked.name, granted.id_token, granted.refresh_token, ca)


async def _by_browser(tools: Tools, issuer: Issuer, client: Client, ways: Ways, attempt: Attempt) -> Granted:
    def judge(query: str) -> str:
        return attempt.code(issuer, query)

    async with Loopback(judge, host=ways.host, port=ways.port) as loopback:
        url = attempt.url(issuer, client, loopback.redirect)
        opened = ways.opens is not None and not ways.print_only and ways.opens(url)
        tools.show("Sign in in the browser. If none has opened, open this:" if opened else "Open this in a browser:")
        tools.show(url)
        tools.show(f"Waiting for up to {ways.timeout / 60:.0f} min at {loopback.redirect}")
        code = await loopback.code(ways.timeout)
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": loopback.redirect}
        try:
            return await ask(tools.web, issuer, client, form | {"code_verifier": attempt.verifier})
        except Rejected as error:
            raise Failed(
                f"the issuer took its code for no good: {error}; check --client-id, or sign in again"
            ) from None


async def renewed(tools: Tools, login: Login, keep: Callable[[Login], None]) -> Login:
    """The login with a new token, or with what is to be remembered of the failure. Who calls it holds the lock.

    `keep` is called with each new refresh token as soon as there is one: the old one is used up then. What can fail
    without using it up (the issuer's discovery, its keys) is done before.
    """
    now = tools.clock()
    try:
        issuer = await discover(tools.web, login.key.issuer)
        keys = await _keys(tools.web, issuer)
        form = {"grant_type": "refresh_token", "refresh_token": login.refresh_token}
        granted = await ask(tools.web, issuer, login.client, form)
    except Rejected as error:
        tools.show(f"the issuer renews this login no more ({error})")
        return replace(login, refresh_token="", times=failed(login.times, now))
    except (Unreachable, Failed) as error:
        tools.show(str(error))
        return login.at(failed(login.times, now))
    login = replace(login, refresh_token=granted.refresh_token or login.refresh_token)
    keep(login.at(failed(login.times, now)))
    return await _with_token(tools, issuer, login, granted, keys)


async def _with_token(
    tools: Tools, issuer: Issuer, login: Login, granted: Granted, keys: dict[str, Any]
) -> Login:  # fmt: skip
    try:
        expected = Expected(issuer.url, login.client.id, subject=login.subject)
        checked, times = await _checked(tools, issuer, granted, expected, keys)
    except (Unreachable, Failed) as error:
        tools.show(str(error))
        return login.at(failed(login.times, tools.clock()))
    return replace(login, times=times, name=checked.name, id_token=granted.id_token)


async def _checked(
    tools: Tools, issuer: Issuer, granted: Granted, expected: Expected, keys: dict[str, Any] | None = None
) -> tuple[Checked, Times]:
    """The token's life is taken over by its length, so that it is right by this machine's clock too."""
    now = tools.clock()
    issuers_now = granted.date if granted.date is not None else now
    keys = await _keys(tools.web, issuer) if keys is None else keys
    try:
        checked = check(granted.id_token, keys, expected, issuers_now)
    except UnknownKey:  # it has new ones since a moment ago
        checked = check(granted.id_token, await _keys(tools.web, issuer), expected, issuers_now)
    return checked, obtained(now, now + checked.lifetime)


async def _keys(web: Web, issuer: Issuer) -> dict[str, Any]:
    answer = await web.get(issuer.jwks)
    if not answer.ok or "keys" not in answer.document:
        raise Unreachable(f"the issuer {issuer.url} answered {answer.status} and no keys where its JWKS should be")
    return answer.document


async def revoked(tools: Tools, login: Login) -> bool:
    """Whether the issuer was told to forget the refresh token (RFC 7009). False: it has no way to be told.

    :raises Failed, Unreachable: it should have been.
    """
    issuer = await discover(tools.web, login.key.issuer)
    if not issuer.revocation or not login.refresh_token:
        return not login.refresh_token
    form = {"token": login.refresh_token, "token_type_hint": "refresh_token"}
    try:
        answer = await post(tools.web, issuer, login.client, issuer.revocation, form)
    except Rejected as error:
        raise Failed(f"the issuer did not revoke the refresh token: {error}") from None
    if answer.status >= 400:
        raise Unreachable(f"the issuer answered {answer.status} where the refresh token was to be revoked")
    return True
