"""An OIDC issuer's discovery document: where its doors are. Each is checked, for each is sent secrets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cli.failures import Failed
from cli.login.address import plain, secure
from cli.login.web import Unreachable, Web

Document = dict[str, Any]
DISCOVERY = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class Issuer:
    """Its name and its endpoints; an optional one that it has not is empty."""

    url: str
    authorization: str
    token: str
    jwks: str
    device: str = ""
    revocation: str = ""
    names_itself: bool = False
    """Its answers in the browser carry `iss` (RFC 9207)."""
    secret_in_form: bool = False
    """It wants a client's secret among the form's fields, not as Basic authentication."""


def checked(url: str) -> str:
    """An issuer's name as it may be used. :raises Failed: it may not."""
    if secure(url, loopback=True) is None or "?" in url:
        raise Failed(f"the issuer {plain(url)!r} is no https:// URL: check --issuer-url, or the server's login.issuer")
    return url


async def discover(web: Web, url: str) -> Issuer:
    """:raises Unreachable: it may be worth trying later. :raises Failed: it is no issuer of that name."""
    answer = await web.get(checked(url).rstrip("/") + DISCOVERY)
    if answer.status >= 500 or answer.status == 429:
        raise Unreachable(f"the issuer {url} answered {answer.status}")
    if not answer.ok or not answer.document:
        raise Failed(
            f"{url}{DISCOVERY} answered {answer.status} and no discovery document: "
            "check the issuer's URL (--issuer-url, or the server's login.issuer), its path included"
        )
    return read(url, answer.document)


def read(url: str, document: Document) -> Issuer:
    """:raises Failed: the document is another issuer's, or sends secrets where they would not be secret."""
    if document.get("issuer") != url:
        raise Failed(
            f"{url} says that it is the issuer {plain(document.get('issuer'))!r}: "
            "give the issuer's name exactly as it says it, if that is the one you mean"
        )
    methods = document.get("token_endpoint_auth_methods_supported")
    return Issuer(
        url,
        _endpoint(url, document, "authorization_endpoint"),
        _endpoint(url, document, "token_endpoint"),
        _endpoint(url, document, "jwks_uri"),
        _endpoint(url, document, "device_authorization_endpoint", optional=True),
        _endpoint(url, document, "revocation_endpoint", optional=True),
        document.get("authorization_response_iss_parameter_supported") is True,
        isinstance(methods, list) and "client_secret_post" in methods and "client_secret_basic" not in methods,
    )


def _endpoint(url: str, document: Document, name: str, *, optional: bool = False) -> str:
    value = document.get(name)
    if value is None and optional:
        return ""
    found = secure(value, loopback=urlsplit(url).scheme == "http")
    if found is None:
        raise Failed(f"the issuer {url} has no {name} that is an https:// URL: its administrator must mend that")
    return found
