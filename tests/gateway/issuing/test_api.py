"""Credentials for whoever asks: they name the caller, end in time, are written down, and open the door again."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from auth.authenticator import AuthenticationFailed
from auth.identity import Credentials, Identity, credential_extra
from auth.tokens import SKEW
from auth.x509 import CertificateAuthenticator
from gateway import management
from gateway.database import Database
from gateway.handover import Caller, Handover
from gateway.issuing.api import CERTIFICATE_REQUESTS, TOKEN_REQUESTS, CertificateApi
from gateway.issuing.issuer import Issuer
from gateway.issuing.jwksapi import DISCOVERY, JWKS, JwksApi
from gateway.issuing.settings import CertificatesConfig, TokensConfig
from gateway.issuing.store import MOST, RevocationStore
from gateway.issuing.tokenkeys import TokenKeys
from gateway.state import State
from tests.auth.certificates import USER, name, request, text
from tests.gateway.test_management import Sink
from tunnel.head import RequestReader
from tunnel.limits import HeadLimits

NOW = float(int(time.time()))
HOUR, DAY = 3600.0, 86_400.0
JANE = Identity("jane", ("dev", "ops"), "u-1", credential_extra("JTI=x"), "oidc", "JTI=x", NOW + 300)


class Answer:
    """Status, fields and body."""

    def __init__(self, sink: Sink) -> None:
        assert sink.ended, sink.error
        self.status = sink.heads[0].status
        self.headers = {key.decode(): value.decode() for key, value in sink.heads[0].headers}
        self.json: dict[str, Any] = orjson.loads(sink.body)

    @property
    def message(self) -> str:
        return str(self.json["message"])


class Api:
    """The endpoints, behind the handover that a gateway uses; `time` is the test's."""

    handover: Handover

    def __init__(self, at: Path, tokens: TokensConfig) -> None:
        self.time = [NOW]
        state = State(at / "state")
        self.database = Database(at / "kulvert.db")
        self.store = RevocationStore(self.database)
        self.keys = TokenKeys(tokens, state, NOW, self.store.revocations)
        self.authority = state.authority(NOW)
        self.issuer = Issuer(
            lambda: self.authority, self.keys, self.store, CertificatesConfig(), tokens, lambda size: self._unique(size)
        )
        own = self.authority.certificate
        self.known = CertificateAuthenticator((own,), revoked=self.store.revocations, own=(own,))
        self._count = 0

    def _unique(self, size: int) -> bytes:
        self._count += 1
        return self._count.to_bytes(size, "big")

    async def ask(
        self,
        path: str,
        body: bytes = b"",
        identity: Identity | None = JANE,
        method: str = "POST",
        kind: str = "application/json",
    ) -> Answer:
        sink = Sink()
        fields = f"{method} {path} HTTP/1.1\r\nHost: gw\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        head = RequestReader(HeadLimits()).feed(fields.encode())
        assert head is not None
        exchange = self.handover.open(head, Caller(identity, "192.0.2.7", "audit-1"), sink)
        if body:
            exchange.send_data(body)
            exchange.send_end()
        for _ in range(100):
            if sink.ended or sink.error:
                break
            await asyncio.sleep(0)
        return Answer(sink)

    async def certificate(self, identity: Identity | None = JANE, asked: Any = None, **spec: Any) -> Answer:
        spec = {"request": text(request()) if asked is None else asked, **spec}
        return await self.ask(CERTIFICATE_REQUESTS, body("CertificateRequest", spec), identity)

    async def token(self, identity: Identity | None = JANE, **spec: Any) -> Answer:
        return await self.ask(TOKEN_REQUESTS, body("TokenRequest", spec), identity)

    def as_certificate(self, answer: Answer) -> Identity:
        """Whom the gateway takes the new certificate's holder for."""
        identity = self.known.authenticate(Credentials(None, loaded(answer).public_bytes(Encoding.DER)), self.time[0])
        assert identity is not None
        return identity

    def as_token(self, answer: Answer) -> Identity:
        token = answer.json["status"]["token"]
        identity = self.keys.authenticate(Credentials(b"Bearer " + token.encode()), self.time[0])
        assert identity is not None
        return identity


def body(kind: str, spec: Any, **more: Any) -> bytes:
    return orjson.dumps({"apiVersion": "kulvert.dev/v1alpha1", "kind": kind, "spec": spec, **more})


def loaded(answer: Answer) -> x509.Certificate:
    assert answer.status == 201, answer.json
    return x509.load_pem_x509_certificate(base64.b64decode(answer.json["status"]["certificate"]))


@asynccontextmanager
async def serving(at: Path, tokens: TokensConfig | None = None) -> AsyncIterator[Api]:
    api = Api(at, tokens or TokensConfig())
    app = web.Application(middlewares=[management._as_status])
    app.router.add_routes(CertificateApi(api.issuer, lambda: api.time[0]).routes())
    app.router.add_routes(JwksApi(api.keys).routes())
    runner = web.AppRunner(app, handle_signals=False, access_log=None, keepalive_timeout=0, shutdown_timeout=0.1)
    await runner.setup()
    assert runner.server is not None
    api.handover = Handover(runner.server, asyncio.get_running_loop())
    try:
        yield api
    finally:
        await runner.cleanup()
        api.database.close()


async def test_a_certificate_is_the_callers_and_opens_the_door_as_the_caller(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        answer = await api.certificate()
        made = loaded(answer)
        assert made.public_key() == USER.public_key()
        again = api.as_certificate(answer)
        assert (again.user, again.groups, again.uid) == (JANE.user, JANE.groups, JANE.uid)
        assert answer.json["spec"]["username"] == "jane"
        assert made.not_valid_after_utc.timestamp() == NOW + DAY
        assert answer.headers["cache-control"] == "no-store"
        recorded = api.store.find(again.credential_id)
        assert recorded is not None
        assert (recorded.value, recorded.user, recorded.parent) == (
            answer.json["status"]["serialNumber"],
            "jane",
            "JTI=x",
        )


async def test_a_token_is_the_callers_with_all_that_belongs_to_him(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        caller = replace(JANE, extra=(("tenant", ("a", "b")), *JANE.extra))
        answer = await api.token(caller, expirationSeconds=600, audiences=["kulvert"])
        again = api.as_token(answer)
        assert (again.user, again.groups, again.uid) == (JANE.user, JANE.groups, JANE.uid)
        assert again.extra == (("tenant", ("a", "b")), *credential_extra(again.credential_id))
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW + 600))
        assert answer.json["status"]["expirationTimestamp"] == stamp
        assert (await api.certificate(caller)).status == 403


async def test_no_renewal_passes_the_end_of_its_login(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        answer, renewals = await api.certificate(), 0
        end = NOW + CertificatesConfig().renewable_for
        while answer.status == 201:
            assert loaded(answer).not_valid_after_utc.timestamp() <= end
            shown = api.as_certificate(answer)
            api.time[0] = shown.expires - 1
            renewals += 1
            answer = await api.certificate(shown)
        assert "log in anew" in answer.message
        assert renewals == 7
        assert api.time[0] < end
        token = await api.token(shown)
        assert token.status == 403


async def test_by_turns_of_tokens_and_certificates_neither(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        shown = api.as_token(await api.token())
        api.time[0] = NOW + CertificatesConfig().renewable_for - HOUR
        kept = replace(shown, expires=api.time[0] + 60)
        made = loaded(await api.certificate(kept))
        assert made.not_valid_after_utc.timestamp() == NOW + CertificatesConfig().renewable_for


async def test_an_administrators_certificate_is_not_outlived(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        issued = api.authority.issue_client("jane", ["dev"], NOW, 2 * HOUR)
        der = x509.load_pem_x509_certificate(issued.certificate).public_bytes(Encoding.DER)
        shown = api.known.authenticate(Credentials(None, der), NOW)
        made = loaded(await api.certificate(shown))
        assert made.not_valid_after_utc.timestamp() == NOW + 2 * HOUR


async def test_what_is_revoked_is_refused_and_gets_no_successor(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        first = await api.certificate()
        second = await api.certificate(api.as_certificate(first))
        token = await api.token(api.as_certificate(first))
        shown = api.as_certificate(first)
        api.store.revoke(first.json["status"]["serialNumber"], NOW)
        for answer, read in ((first, api.as_certificate), (second, api.as_certificate), (token, api.as_token)):
            with pytest.raises(AuthenticationFailed, match="revoked"):
                read(answer)
        refused = await api.certificate(shown)
        assert (refused.status, "revoked" in refused.message) == (403, True)


async def test_of_a_revoked_user_everything_goes_and_a_new_login_works_later(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        certificate, token = await api.certificate(), await api.token()
        api.store.revoke_user("jane", NOW + 5)
        with pytest.raises(AuthenticationFailed, match="revoked"):
            api.as_certificate(certificate)
        with pytest.raises(AuthenticationFailed, match="revoked"):
            api.as_token(token)
        api.time[0] = NOW + 6
        early = await api.certificate()
        assert (early.status, early.headers["retry-after"]) == (429, "30")
        api.time[0] = NOW + 66
        assert api.as_certificate(await api.certificate()).user == "jane"


@pytest.mark.parametrize(
    ("caller", "reason"),
    [
        (replace(JANE, user="j" * 65), "ask for a token"),
        (replace(JANE, groups=("g" * 65,)), "ask for a token"),
        (replace(JANE, groups=("",)), "group is empty"),
        (replace(JANE, groups=tuple(f"group-{number:050}" for number in range(400))), "ask for a token"),
        (replace(JANE, user="system:serviceaccount:ns:sa"), "service accounts"),
        (replace(JANE, cluster="edge"), "service accounts"),
        (replace(JANE, source="front-proxy"), "front proxy"),
        (replace(JANE, groups=("system:masters",)), "system:masters"),
    ],
)
async def test_who_cannot_be_named_gets_a_clear_refusal(tmp_path: Path, caller: Identity, reason: str) -> None:
    async with serving(tmp_path) as api:
        answer = await api.certificate(caller)
        assert (answer.status, answer.json["reason"]) == (403, "Forbidden")
        assert reason in answer.message
        assert not api.store.issued()


async def test_a_token_that_would_not_be_read_is_not_issued(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        answer = await api.token(replace(JANE, groups=tuple(f"group-{number:050}" for number in range(200))))
        assert (answer.status, "too many" in answer.message) == (403, True)
        assert not api.store.issued()


async def test_a_subject_beyond_the_caller_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        asked = request(name((x509.oid.NameOID.COMMON_NAME, "root")))
        answer = await api.certificate(asked=text(asked))
        assert (answer.status, "leave it empty" in answer.message) == (400, True)


@pytest.mark.parametrize(
    "sent",
    [
        b"", b"{", b"[]", b"7", b"{}", body("TokenRequest", {}), body("CertificateRequest", {}),
        body("CertificateRequest", []), body("CertificateRequest", {"request": 7}),
        body("CertificateRequest", {"request": "", "username": "root"}),
        body("CertificateRequest", {"request": text(request())}, groups=["root"]),
        body("CertificateRequest", {"request": text(request()), "expirationSeconds": 599}),
        body("CertificateRequest", {"request": text(request()), "expirationSeconds": "9999"}),
        body("CertificateRequest", {"request": text(request()), "expirationSeconds": True}),
        body("CertificateRequest", {"request": text(request()), "expirationSeconds": 1e9}),
        body("CertificateRequest", {"request": text(request()), "expirationSeconds": 1 << 40}),
        b'{"apiVersion":"kulvert.dev/v1alpha1","kind":"CertificateRequest","spec":' + b"[" * 5000,
    ],
)  # fmt: skip
async def test_a_malformed_request_is_a_clear_400(tmp_path: Path, sent: bytes) -> None:
    async with serving(tmp_path) as api:
        answer = await api.ask(CERTIFICATE_REQUESTS, sent)
        assert (answer.status, answer.json["kind"]) == (400, "Status")
        assert not api.store.issued()


async def test_a_page_of_somebody_elses_has_nothing_issued_by_its_readers_certificate(tmp_path: Path) -> None:
    """It could not read the answer, but would use up what its reader may have."""
    async with serving(tmp_path) as api:
        sent = body("TokenRequest", {})
        assert (await api.ask(TOKEN_REQUESTS, sent, kind="text/plain;charset=UTF-8")).status == 400
        assert not api.store.issued()


async def test_a_huge_request_is_not_read_to_its_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        assert (await api.ask(CERTIFICATE_REQUESTS, b"x" * 40_000)).status == 413


@pytest.mark.parametrize("spec", [{"audiences": ["kubernetes"]}, {"audiences": "kulvert"}, {"boundObjectRef": {}}])
async def test_a_token_is_for_kulvert_alone(tmp_path: Path, spec: dict[str, Any]) -> None:
    async with serving(tmp_path) as api:
        assert (await api.token(**spec)).status == 400


async def test_a_longer_life_is_cut_to_the_settings(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        made = loaded(await api.certificate(expirationSeconds=9_999_999))
        assert made.not_valid_after_utc.timestamp() == NOW + DAY
        assert api.as_token(await api.token(expirationSeconds=9_999_999)).expires == NOW + HOUR + SKEW


async def test_a_user_with_too_many_waits(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        for _ in range(MOST):
            assert (await api.token()).status == 201
        answer = await api.token()
        assert (answer.status, answer.json["reason"]) == (429, "TooManyRequests")


async def test_without_an_identity_there_is_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        assert (await api.certificate(None)).status == 401
        assert (await api.token(None)).status == 401
        assert (await api.ask(CERTIFICATE_REQUESTS, method="GET")).status == 405


# --- the keys, published


async def test_the_public_keys_are_published_for_anybody_and_for_caches(tmp_path: Path) -> None:
    async with serving(tmp_path, TokensConfig(issuer="https://gw.example")) as api:
        keys = await api.ask(JWKS, identity=None, method="GET")
        assert (keys.status, keys.headers["cache-control"]) == (200, "public, max-age=300")
        assert keys.headers["content-type"].startswith("application/jwk-set+json")
        (only,) = keys.json["keys"]
        assert set(only) == {"kty", "crv", "x", "y", "use", "alg", "kid"}
        discovery = await api.ask(DISCOVERY, identity=None, method="GET")
        assert discovery.json["issuer"] == "https://gw.example"
        assert discovery.json["jwks_uri"] == "https://gw.example/openid/v1/jwks"
        api.keys._file.change(lambda ring: ring.rotated(NOW, HOUR), "", NOW)
        api.keys.poll(NOW)
        assert len((await api.ask(JWKS, identity=None, method="GET")).json["keys"]) == 2


async def test_an_issuer_that_is_no_address_of_ours_has_no_discovery(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        assert (await api.ask(DISCOVERY, identity=None, method="GET")).status == 404
        assert (await api.ask(JWKS, identity=None, method="GET")).status == 200
