"""The issuer's token endpoint: what it gives for a code, a device code or a refresh token, and how it says no."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote_plus

from cli.login.address import plain
from cli.login.issuer import Issuer
from cli.login.stored import Client
from cli.login.web import Answer, Unreachable, Web

_TEMPORARY = frozenset(("temporarily_unavailable", "server_error"))


class Rejected(Exception):
    """The issuer says no. `code` is of RFC 6749 or 8628; the text is the issuer's, fit for a terminal."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(f"{code}: {description}" if description else code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Granted:
    """Tokens. Either may be empty: the caller says what it cannot do without. `date` is the issuer's clock."""

    id_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    date: float | None = None


async def ask(web: Web, issuer: Issuer, client: Client, form: Mapping[str, str]) -> Granted:
    """:raises Rejected: the issuer says no. :raises Unreachable: it says nothing, or nothing that makes sense."""
    answer = await post(web, issuer, client, issuer.token, form)
    id_token, refresh_token = answer.document.get("id_token"), answer.document.get("refresh_token")
    if not answer.ok or not answer.document:
        raise Unreachable(f"the issuer {issuer.url} answered {answer.status} where tokens were asked for")
    return Granted(_text(id_token), _text(refresh_token), answer.date)


async def post(web: Web, issuer: Issuer, client: Client, url: str, form: Mapping[str, str]) -> Answer:
    """A form to one of its endpoints, as this client. Raises as `ask`."""
    fields, headers = _as_client(issuer, client)
    answer = await web.post_form(url, dict(form) | fields, headers)
    code = answer.document.get("error")
    if answer.status >= 400 and isinstance(code, str) and code not in _TEMPORARY and answer.status < 500:
        raise Rejected(plain(code, 64), plain(answer.document.get("error_description")))
    return answer


def _as_client(issuer: Issuer, client: Client) -> tuple[dict[str, str], dict[str, str]]:
    """RFC 6749, 2.3.1."""
    if not client.secret:
        return {"client_id": client.id}, {}
    if issuer.secret_in_form:
        return {"client_id": client.id, "client_secret": client.secret}, {}
    pair = f"{quote_plus(client.id)}:{quote_plus(client.secret)}"
    return {}, {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _text(value: object) -> str:
    """A header's worth of printable ASCII, else nothing."""
    fits = isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value
    return value if fits and isinstance(value, str) else ""
