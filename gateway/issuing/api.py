"""`POST …/certificaterequests` and `…/tokenrequests`: a short-lived credential of Kulvert's for whoever asks, in the
manner of Kubernetes' CertificateSigningRequest and TokenRequest. It names the caller, and nobody else.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from auth.csr import RequestRefused
from auth.identity import Identity
from gateway import status
from gateway.database import RegistryError
from gateway.failures import Refused
from gateway.handover import caller_of
from gateway.issuing.issuance import NotIssued
from gateway.issuing.issuer import Issuer
from gateway.issuing.requestspec import read_spec, seconds_of
from gateway.issuing.store import CredentialRefused, TryLater
from gateway.management import API_VERSION
from gateway.state import AUDIENCE

CERTIFICATE_REQUESTS: Final = f"/apis/{API_VERSION}/certificaterequests"
TOKEN_REQUESTS: Final = f"/apis/{API_VERSION}/tokenrequests"
_CERTIFICATE_FIELDS: Final = frozenset(("request", "expirationSeconds"))
_TOKEN_FIELDS: Final = frozenset(("audiences", "expirationSeconds"))
_SECRET: Final = {"Cache-Control": "no-store"}


class CertificateApi:
    """The two endpoints. `wall` tells the time that credentials expire by."""

    def __init__(self, issuer: Issuer, wall: Callable[[], float]) -> None:
        self._issuer = issuer
        self._wall = wall

    def routes(self) -> list[web.RouteDef]:
        """For the management application."""
        return [web.post(CERTIFICATE_REQUESTS, self._certificate), web.post(TOKEN_REQUESTS, self._token)]

    async def _certificate(self, request: web.Request) -> web.Response:
        identity = _caller(request)
        spec = await read_spec(request, "CertificateRequest", _CERTIFICATE_FIELDS)
        asked = spec.get("request")
        if not isinstance(asked, str):
            raise Refused(status.BAD_REQUEST, "spec.request is missing: give a signing request's PEM in base64")
        seconds = seconds_of(spec, self._issuer.certificates.lifetime)
        with _refusing():
            made = self._issuer.certificate(identity, asked, seconds, self._wall())
        return _created("CertificateRequest", _of_caller(identity, spec), _of_certificate(made))

    async def _token(self, request: web.Request) -> web.Response:
        identity = _caller(request)
        spec = await read_spec(request, "TokenRequest", _TOKEN_FIELDS)
        if spec.get("audiences") not in (None, [], [AUDIENCE]):
            raise Refused(status.BAD_REQUEST, f"spec.audiences: Kulvert's tokens are for {AUDIENCE!r} alone")
        seconds = seconds_of(spec, self._issuer.tokens.lifetime)
        with _refusing():
            token, expires = self._issuer.token(identity, seconds, self._wall())
        return _created("TokenRequest", dict(spec), {"token": token, "expirationTimestamp": _time(expires)})


def _caller(request: web.Request) -> Identity:
    identity = caller_of(request).identity
    if identity is None:
        raise Refused(status.UNAUTHENTICATED, "this path is not public")
    return identity


@contextmanager
def _refusing() -> Iterator[None]:
    """Failures in the API's terms."""
    try:
        yield
    except RequestRefused as refused:
        raise Refused(status.BAD_REQUEST, str(refused)) from None
    except (NotIssued, CredentialRefused) as refused:
        raise Refused(status.FORBIDDEN, str(refused)) from None
    except TryLater as refused:
        raise Refused(status.TOO_MANY_REQUESTS, str(refused), retry_after=30) from None
    except RegistryError:  # another process is writing
        raise Refused(status.OVERLOADED, retry_after=1) from None


def _of_caller(identity: Identity, spec: Any) -> dict[str, object]:
    """As in Kubernetes' CertificateSigningRequest, the spec says who asked."""
    return {**spec, "username": identity.user, "uid": identity.uid, "groups": list(identity.groups)}


def _of_certificate(made: x509.Certificate) -> dict[str, object]:
    pem = made.public_bytes(Encoding.PEM)
    return {
        "certificate": base64.b64encode(pem).decode("ascii"),
        "serialNumber": f"{made.serial_number:x}",
        "expirationTimestamp": _time(made.not_valid_after_utc.timestamp()),
    }


def _created(kind: str, spec: object, state: object) -> web.Response:
    body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {}, "spec": spec, "status": state}
    return web.Response(body=orjson.dumps(body), status=201, content_type="application/json", headers=_SECRET)


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
