"""Tokens of OIDC issuers: whose they are, what passes, and that nothing else does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from auth.authenticator import AuthenticationFailed, AuthenticationUnavailable, Undecided
from auth.identity import Credentials, Identity
from auth.oidc.authenticator import OidcAuthenticator
from auth.oidc.claims import SKEW
from auth.oidc.config import PrefixedClaim
from auth.oidc.jwkscache import REFRESH, RETRY
from tests.support.oidc_issuer import CLAIMS, ISSUER, NOW, URL, Clock, FakeIssuer, PrivateKey, configured, rsa_key


def ask(authenticator: OidcAuthenticator, token: str, now: float = NOW) -> Identity | None:
    return authenticator.authenticate(Credentials(b"Bearer " + token.encode()), now)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@contextlib.asynccontextmanager
async def running(authenticator: OidcAuthenticator) -> AsyncIterator[None]:
    task = asyncio.create_task(authenticator.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def knowing(fake: FakeIssuer, *issuers: Any) -> OidcAuthenticator:
    """With the keys fetched, and no task left."""
    authenticator = OidcAuthenticator(configured(*(issuers or (ISSUER,))), fake, Clock())

    async def once() -> None:
        async with running(authenticator):
            assert not authenticator.problems

    asyncio.run(once())
    return authenticator


@pytest.fixture(scope="module")
def fake() -> FakeIssuer:
    return FakeIssuer()


@pytest.fixture(scope="module")
def knows(fake: FakeIssuer) -> OidcAuthenticator:
    return knowing(fake)


def test_a_good_token_is_its_user(knows: OidcAuthenticator, fake: FakeIssuer) -> None:
    identity = ask(knows, fake.sign())
    assert identity is not None
    assert (identity.user, identity.groups) == ("oidc:jane", ("oidc:dev", "oidc:ops"))
    assert (identity.source, identity.credential_id, identity.cluster) == (f"oidc:{URL}", "JTI=t1", "")
    assert identity.extra == (("authentication.kubernetes.io/credential-id", ("JTI=t1",)),)
    assert identity.expires == CLAIMS["exp"] + SKEW


def test_it_is_good_up_to_the_moment_that_its_identity_tells(knows: OidcAuthenticator, fake: FakeIssuer) -> None:
    identity = ask(knows, fake.sign())
    assert identity
    assert ask(knows, fake.sign(), identity.expires - 0.1)
    with pytest.raises(AuthenticationFailed, match="expired"):
        ask(knows, fake.sign(), identity.expires)


@pytest.mark.parametrize("header", [None, b"", b"Basic eA==", b"Bearer opaque", b"Bearer a.b.c", b"Bearer e30.e30.e30"])
def test_other_credentials_are_not_its_business(knows: OidcAuthenticator, header: bytes | None) -> None:
    assert knows.authenticate(Credentials(header), NOW) is None


@pytest.mark.parametrize("iss", ["https://other.test", URL + "/", URL.upper(), "", None, [URL], {"": URL}])
def test_another_issuers_token_is_not_its_business(knows: OidcAuthenticator, iss: Any) -> None:
    token = f"{part({'alg': 'RS256'})}.{part({**CLAIMS, 'iss': iss})}.AAAA"
    assert ask(knows, token) is None


def test_an_unsigned_token_is_refused(knows: OidcAuthenticator, fake: FakeIssuer) -> None:
    for alg in ("none", "None", "NONE", None):
        for signature in ("", "AAAA", fake.sign().rpartition(".")[2]):
            with pytest.raises(AuthenticationFailed):
                ask(knows, f"{part({'alg': alg, 'kid': 'k0'})}.{part(CLAIMS)}.{signature}")


@pytest.mark.parametrize("alg", ["none", "HS256", "ES256K", "RSA-OAEP", "dir", "RS1", "rs256", ""])
def test_an_algorithm_that_is_not_taken_makes_nobody_ask_the_issuer(knows: OidcAuthenticator, alg: str) -> None:
    token = f"{part({'alg': alg, 'kid': 'unknown'})}.{part(CLAIMS)}.AAAA"
    with pytest.raises(AuthenticationFailed, match="not taken, or not at all"):
        ask(knows, token, NOW + RETRY)


def test_a_public_key_is_no_secret_to_sign_with(knows: OidcAuthenticator, fake: FakeIssuer) -> None:
    public = fake.keys[0][1].public_key()
    forms = [
        public.public_bytes(encoding, form)
        for encoding, form in (
            (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
            (serialization.Encoding.PEM, serialization.PublicFormat.PKCS1),
        )
    ]
    for alg, digest in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")):
        signed = f"{part({'alg': alg, 'kid': 'k0'})}.{part(CLAIMS)}"
        for secret in (*forms, json.dumps(fake.published()[0]).encode(), b""):
            signature = base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), digest)).rstrip(b"=").decode()
            with pytest.raises(AuthenticationFailed, match="algorithm"):
                ask(knows, f"{signed}.{signature}")


EVERY_ALGORITHM: list[tuple[str, PrivateKey]] = [
    *((name, rsa_key(0)) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    ("ES256", ec.generate_private_key(ec.SECP256R1())),
    ("ES384", ec.generate_private_key(ec.SECP384R1())),
    ("ES512", ec.generate_private_key(ec.SECP521R1())),
    ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
]


@pytest.mark.parametrize(("algorithm", "key"), EVERY_ALGORITHM, ids=[name for name, _ in EVERY_ALGORITHM])
def test_each_algorithm_goes_with_its_own_kind_of_key(algorithm: str, key: PrivateKey) -> None:
    fake = FakeIssuer([("k0", key)], algorithm)
    authenticator = knowing(fake)
    assert ask(authenticator, fake.sign())
    head, rest = fake.sign().split(".", 1)
    for other, _ in EVERY_ALGORITHM:
        if other != algorithm:
            with pytest.raises(AuthenticationFailed):
                ask(authenticator, f"{part({'alg': other, 'kid': 'k0'})}.{rest}")
    assert head != rest


def test_a_key_of_another_issuer_signs_nothing_here(knows: OidcAuthenticator) -> None:
    stranger = FakeIssuer([("k0", rsa_key(1))])
    with pytest.raises(AuthenticationFailed, match="signature"):
        ask(knows, stranger.sign())
    with pytest.raises(AuthenticationFailed, match="does not publish"):
        ask(knows, jwt.encode(CLAIMS, rsa_key(1), "RS256"))


def test_two_issuers_keys_are_kept_apart() -> None:
    own, other = FakeIssuer([("k0", rsa_key(0))]), FakeIssuer([("k0", rsa_key(1))])
    second = dataclasses.replace(ISSUER, url="https://second.test")

    class Both:
        def __call__(self, source: Any) -> FakeIssuer:
            return own if source.issuer == URL else other

    authenticator = knowing(Both(), ISSUER, second)  # type: ignore[arg-type]  # a FakeIssuer is a maker, as this is
    assert ask(authenticator, own.sign())
    assert ask(authenticator, other.sign(iss="https://second.test"))
    for token in (own.sign(iss="https://second.test"), other.sign()):
        with pytest.raises(AuthenticationFailed, match="signature"):
            ask(authenticator, token)


@pytest.mark.parametrize(
    "headers",
    [
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"jku": "https://evil.test/keys"},
        {"x5u": "https://evil.test/x"},
        {"x5c": ["AAAA"]},
    ],
)
def test_keys_in_the_header_are_not_looked_at(knows: OidcAuthenticator, headers: dict[str, Any]) -> None:
    evil = FakeIssuer([("evil", rsa_key(1))])
    with pytest.raises(AuthenticationFailed, match="does not publish"):
        ask(knows, evil.sign(headers=headers))


@pytest.mark.parametrize("kid", ["", "../k0", "K0", "k0 ", "k0\0", "' or 1=1", "/dev/null", "k" * 4000])
def test_a_kid_is_a_name_and_nothing_more(knows: OidcAuthenticator, fake: FakeIssuer, kid: str) -> None:
    with pytest.raises(AuthenticationFailed, match="does not publish"):
        ask(knows, fake.sign(headers={"kid": kid}))


def test_a_token_without_kid_is_checked_with_all_keys() -> None:
    several = FakeIssuer([("a", rsa_key(1)), ("b", rsa_key(0))])
    bare = jwt.encode(CLAIMS, rsa_key(0), "RS256")
    assert ask(knowing(several), bare)


def test_of_two_keys_of_one_name_either_will_do() -> None:
    twins = FakeIssuer([("k", rsa_key(0)), ("k", rsa_key(1))])
    authenticator = knowing(twins)
    assert ask(authenticator, twins.sign())
    twins.keys.reverse()
    assert ask(authenticator, twins.sign())


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "other"}, "another audience"),
        ({"aud": []}, "another audience"),
        ({"aud": None}, "aud"),
        ({"aud": [7]}, "aud"),
        ({"aud": {"kulvert": 1}}, "aud"),
        ({"exp": None}, "no exp"),
        ({"exp": NOW - SKEW - 1}, "expired"),
        ({"exp": float("1e300")}, "not a time"),
        ({"nbf": NOW + SKEW + 1}, "not valid yet"),
        ({"iat": NOW + SKEW + 1}, "not valid yet"),
        ({"sub": None}, "lacks sub"),
        ({"sub": ""}, "empty"),
        ({"sub": ["jane"]}, "not text"),
        ({"groups": [["dev"]]}, "groups"),
        ({"groups": 7}, "groups"),
    ],
)
def test_wrong_claims_are_refused(
    knows: OidcAuthenticator, fake: FakeIssuer, claims: dict[str, Any], reason: str
) -> None:
    with pytest.raises(AuthenticationFailed, match=reason):
        ask(knows, fake.sign(**claims))


def test_what_is_signed_and_names_a_claim_twice_is_refused(knows: OidcAuthenticator) -> None:
    payload = json.dumps(CLAIMS)[:-1] + ', "sub": "admin"}'
    token = jwt.api_jws.encode(payload.encode(), rsa_key(0), "RS256", {"kid": "k0"})
    with pytest.raises(AuthenticationFailed, match="twice"):
        ask(knows, token)


def test_a_token_must_be_what_the_rules_require(fake: FakeIssuer) -> None:
    authenticator = knowing(fake, dataclasses.replace(ISSUER, required=(("hd", "example.com"),)))
    assert ask(authenticator, fake.sign(hd="example.com"))
    for hd in ("example.org", None):
        with pytest.raises(AuthenticationFailed, match="hd is not what"):
            ask(authenticator, fake.sign(hd=hd))


@pytest.fixture(scope="module")
def good(fake: FakeIssuer) -> str:
    return fake.sign()


@settings(max_examples=300, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_token_with_a_bit_changed_passes(knows: OidcAuthenticator, good: str, position: float, bit: int) -> None:
    changed = bytearray(good.encode())
    changed[int(position * len(changed))] ^= 1 << bit
    try:
        identity = knows.authenticate(Credentials(b"Bearer " + bytes(changed)), NOW)
    except (AuthenticationFailed, Undecided):
        return
    assert identity is None


@settings(max_examples=100, deadline=None)
@given(
    header=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit"]), st.text(max_size=8) | st.none() | st.integers()
    ),
    changes=st.dictionaries(
        st.sampled_from(["aud", "sub", "groups", "exp"]), st.text(max_size=8) | st.integers() | st.lists(st.text())
    ),
)
def test_nobody_makes_a_token_from_the_signature_of_another(
    knows: OidcAuthenticator, good: str, header: dict[str, Any], changes: dict[str, Any]
) -> None:
    head = part({"alg": "RS256", "kid": "k0", **header}) if header else good.split(".")[0]
    body = part({**CLAIMS, **changes}) if changes else good.split(".")[1]
    forged = f"{head}.{body}.{good.rpartition('.')[2]}"
    assume(forged != good)
    with pytest.raises((AuthenticationFailed, Undecided)):
        ask(knows, forged)


def test_refusals_never_hold_the_token(knows: OidcAuthenticator, fake: FakeIssuer) -> None:
    for token in (fake.sign(aud="other"), fake.sign(sub=["jane-the-secret"]), fake.sign(exp="planted-text")):
        with pytest.raises(AuthenticationFailed) as caught:
            ask(knows, token)
        assert "planted" not in caught.value.reason
        assert "secret" not in caught.value.reason
        assert token.rpartition(".")[2] not in caught.value.reason


async def test_a_request_before_the_first_fetch_waits_for_it() -> None:
    fake = FakeIssuer()
    authenticator = OidcAuthenticator(configured(ISSUER), fake, Clock())
    with pytest.raises(Undecided) as undecided:
        ask(authenticator, fake.sign())
    async with running(authenticator):
        await undecided.value.settle()
        assert ask(authenticator, fake.sign())
        assert fake.fetches == 1


async def test_new_keys_are_found_without_a_restart_and_old_ones_are_gone() -> None:
    fake, clock = FakeIssuer(), Clock()
    authenticator = OidcAuthenticator(configured(ISSUER), fake, clock)
    async with running(authenticator):
        old = fake.sign()
        assert ask(authenticator, old)
        fake.keys = [("k1", rsa_key(1))]
        clock.now += RETRY
        with pytest.raises(Undecided) as undecided:
            ask(authenticator, fake.sign(), clock.now)
        await asyncio.gather(*(undecided.value.settle() for _ in range(20)))
        assert fake.fetches == 2
        assert ask(authenticator, fake.sign(), clock.now)
        with pytest.raises(AuthenticationFailed, match="does not publish"):
            ask(authenticator, old, clock.now)


async def test_a_flood_of_unknown_keys_asks_the_issuer_no_more_often() -> None:
    fake, clock = FakeIssuer(), Clock()
    authenticator = OidcAuthenticator(configured(ISSUER), fake, clock)
    async with running(authenticator):
        for number in range(100):
            clock.now += RETRY / 50
            try:
                ask(authenticator, fake.sign(headers={"kid": f"unknown-{number}"}), clock.now)
            except Undecided as undecided:
                await undecided.settle()
            except AuthenticationFailed:
                continue
        assert fake.fetches <= 1 + 2


async def test_while_the_issuer_is_down_known_keys_go_on_and_unknown_ones_wait() -> None:
    fake, clock = FakeIssuer(), Clock()
    authenticator = OidcAuthenticator(configured(ISSUER), fake, clock)
    async with running(authenticator):
        fake.down = True
        clock.now += RETRY
        with pytest.raises(Undecided) as undecided:
            ask(authenticator, fake.sign(headers={"kid": "new"}), clock.now)
        await undecided.value.settle()
        with pytest.raises(AuthenticationUnavailable, match="try again"):
            ask(authenticator, fake.sign(headers={"kid": "new"}), clock.now)
        assert ask(authenticator, fake.sign(), clock.now)
        assert authenticator.problems == (f"the keys of the issuer {URL}: it is down",)


async def test_another_configuration_takes_effect_and_keeps_known_keys() -> None:
    fake = FakeIssuer()
    authenticator = OidcAuthenticator(configured(ISSUER), fake, Clock())
    second = dataclasses.replace(ISSUER, url="https://second.test")
    async with running(authenticator):
        authenticator.replace(configured(dataclasses.replace(ISSUER, username=PrefixedClaim("sub", "new:")), second))
        identity = ask(authenticator, fake.sign())
        assert identity is not None
        assert identity.user == "new:jane"
        with pytest.raises(Undecided) as undecided:
            ask(authenticator, fake.sign(iss="https://second.test"))
        await undecided.value.settle()
        assert ask(authenticator, fake.sign(iss="https://second.test"))
        assert fake.fetches == 2
        authenticator.replace(configured(second))
        assert ask(authenticator, fake.sign()) is None
        await asyncio.sleep(0.01)
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert "keys of https://second.test" in names
        assert f"keys of {URL}" not in names


async def test_other_authorities_mean_other_keys() -> None:
    fake = FakeIssuer()
    authenticator = OidcAuthenticator(configured(ISSUER), fake, Clock())
    async with running(authenticator):
        assert ask(authenticator, fake.sign())
        authenticator.replace(configured(dataclasses.replace(ISSUER, authorities="another CA")))
        with pytest.raises(Undecided):
            ask(authenticator, fake.sign())


def test_the_bounds_are_those_that_the_docs_tell() -> None:
    assert (SKEW, RETRY, REFRESH) == (10.0, 10.0, (60.0, 600.0))
