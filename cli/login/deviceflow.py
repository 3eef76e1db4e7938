"""Signing in from a machine without a browser (RFC 8628): a short code is typed in on another one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from cli.failures import Failed
from cli.login.address import plain, secure
from cli.login.issuer import Issuer
from cli.login.stored import Client
from cli.login.tokens import Granted, Rejected, ask, post
from cli.login.web import Unreachable, Web

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
INTERVAL = 5.0
SLOWER = 5.0
LONGEST = 60.0
MOST = 1_800.0
"""Seconds that a code is waited for, whatever the issuer says."""
_AGAIN = "`kulvert login --device` begins another"

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Device:
    """What the issuer gave. `complete`, where there is one, has the code in it."""

    code: str = field(repr=False)
    user_code: str
    uri: str
    complete: str
    lifetime: float
    interval: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How the token endpoint is asked again and again."""

    interval: float
    unanswered: int = 0

    def after(self, error: Rejected | Unreachable) -> Pace:
        """The pace after an answer that was not yet one. :raises Failed: none will come."""
        if isinstance(error, Unreachable):  # RFC 8628, 3.5: slow down exponentially
            return Pace(min(LONGEST, self.interval * 2), self.unanswered + 1)
        if error.code == "authorization_pending":
            return Pace(self.interval)
        if error.code == "slow_down":
            return Pace(min(LONGEST, self.interval + SLOWER))
        raise Failed(_ended(error))


def _ended(error: Rejected) -> str:
    if error.code == "access_denied":
        return "the sign-in was refused on the other machine: `kulvert login --device` asks again"
    if error.code == "expired_token":
        return f"the code has expired before anybody signed in with it: {_AGAIN}"
    return f"the issuer refused the sign-in: {error}; {_AGAIN}"


async def by_device(
    web: Web, issuer: Issuer, client: Client, show: Callable[[str], None], sleep: Sleep
) -> Granted:  # fmt: skip
    """Show the code, and wait for its use. :raises Failed: there is no such way here, or nobody came."""
    device = await _begin(web, issuer, client)
    show(f"On any machine, open {device.uri} and enter the code {device.user_code}")
    if device.complete:
        show(f"or open {device.complete} and see that it shows the same code")
    show(f"Waiting for up to {device.lifetime / 60:.0f} min")
    return await _granted(web, issuer, client, device, sleep)


async def _begin(web: Web, issuer: Issuer, client: Client) -> Device:
    if not issuer.device:
        raise Failed(
            f"the issuer {issuer.url} has no sign-in by device code: run `kulvert login` where there is a browser, "
            "or with --no-browser and forward its port to this machine"
        )
    try:
        answer = await post(web, issuer, client, issuer.device, {"scope": " ".join(client.scopes)})
    except Rejected as error:
        raise Failed(f"the issuer gave no code: {error}; check --client-id and --scope") from None
    if not answer.ok:
        raise Unreachable(f"the issuer {issuer.url} answered {answer.status} where a code was asked for")
    return read(issuer, answer.document)


def read(issuer: Issuer, document: dict[str, Any]) -> Device:
    """:raises Failed: a part is missing, or not fit to be shown."""
    loopback = issuer.url.startswith("http://")
    code, user_code = document.get("device_code"), plain(document.get("user_code"), 64)
    uri = secure(document.get("verification_uri"), loopback=loopback)
    complete = secure(document.get("verification_uri_complete"), loopback=loopback)
    if not isinstance(code, str) or not code or not user_code or uri is None:
        raise Failed(f"the issuer {issuer.url} gave a device code that lacks something: its administrator must mend it")
    lifetime = _seconds(document.get("expires_in"), MOST, MOST)
    return Device(code, user_code, uri, complete or "", lifetime, _seconds(document.get("interval"), INTERVAL, LONGEST))


def _seconds(value: object, default: float, most: float) -> float:
    """At least one; RFC 8628 has no fractions."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1:
        return default
    return min(float(value), most)


async def _granted(web: Web, issuer: Issuer, client: Client, device: Device, sleep: Sleep) -> Granted:
    pace, waited = Pace(device.interval), 0.0
    while waited < device.lifetime:
        await sleep(pace.interval)
        waited += pace.interval
        try:
            return await ask(web, issuer, client, {"grant_type": GRANT, "device_code": device.code})
        except (Rejected, Unreachable) as error:
            pace = pace.after(error)
    raise Failed(f"the code has expired before anybody signed in with it: {_AGAIN}")
