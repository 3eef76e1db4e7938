"""`kulvert credential`: what kubectl gets, over hours of simulated time and from many calls at once."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509

from cli.credential import Wanted, cached, of_login
from cli.credentialexec import ExecInfo, Shown
from cli.credentialsource import Source
from cli.failures import Failed
from cli.login.flow import Ways
from cli.login.stored import Client, Login
from cli.tokencache import LOGIN, LoginKey, TokenCache
from gateway.wellknownapi import LoginSettings
from tests.cli.command import PROGRAM
from tests.cli.fakegateway import Town, town
from tests.cli.fakeissuer import FakeIssuer

V1 = "client.authentication.k8s.io/v1"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Town]:
    with town(tmp_path) as made:
        yield made


def arguments(place: Town, *more: str) -> list[str]:
    return [
        "credential",
        "--server",
        place.gateway.url,
        "--issuer-url",
        place.issuer.url,
        "--client-id",
        "kulvert",
        *more,
    ]


def exec_info(place: Town, *, version: str = V1, interactive: bool = False, server: str = "") -> dict[str, str]:
    ca = base64.b64encode(place.gateway.ca_file.read_bytes()).decode()
    cluster = {"server": server or f"{place.gateway.url}/clusters/alpha", "certificate-authority-data": ca}
    spec = {"interactive": interactive, "cluster": cluster}
    return {"KUBERNETES_EXEC_INFO": json.dumps({"apiVersion": version, "kind": "ExecCredential", "spec": spec})}


def given(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    assert found["kind"] == "ExecCredential"
    return found


def aged(place: Town, kind: str = LOGIN, **values: float) -> None:
    """Changes the times of what is kept."""
    (path,) = place.files(kind)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"retryAt": 0, "obtained": time.time() - 1_000} | values))


def test_after_a_login_kubectl_gets_the_id_token(place: Town) -> None:
    result = place.log_in()
    assert result.exit_code == 0, result.output
    assert f"signed in as ada@example.com at {place.gateway.url}, renewed silently" in result.stdout
    result = place.kulvert(*arguments(place), env=exec_info(place))
    found = given(result.stdout)
    assert found["apiVersion"] == V1
    claims = jwt.decode(found["status"]["token"], options={"verify_signature": False})
    assert claims["sub"] == "ada"
    assert found["status"]["expirationTimestamp"] < time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(claims["exp"]))
    assert result.stderr == ""
    assert place.files(LOGIN)[0].stat().st_mode & 0o777 == 0o600


def test_an_older_kubectl_is_answered_in_its_version_and_an_unknown_one_not(place: Town) -> None:
    place.log_in()
    beta = "client.authentication.k8s.io/v1beta1"
    assert given(place.kulvert(*arguments(place), env=exec_info(place, version=beta)).stdout)["apiVersion"] == beta
    result = place.kulvert(*arguments(place), env=exec_info(place, version="client.authentication.k8s.io/v1alpha1"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "kulvert answers client.authentication.k8s.io/v1" in result.stderr


@pytest.mark.parametrize("text", ["{", "[]", "1", '{"spec": 3}', '{"spec": {"cluster": {"server": 3}}}'])
def test_an_exec_info_that_makes_no_sense_is_told(place: Town, text: str) -> None:
    result = place.kulvert(*arguments(place), env={"KUBERNETES_EXEC_INFO": text})
    assert (result.exit_code, result.stdout) == (1, "")
    assert "makes no sense" in result.stderr


def test_it_is_not_handed_out_for_a_cluster_elsewhere(place: Town) -> None:
    place.log_in()
    result = place.kulvert(*arguments(place), env=exec_info(place, server="https://evil.example/clusters/alpha"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "it is not handed out" in " ".join(result.stderr.split())


def test_what_is_about_to_expire_is_renewed_silently(place: Town) -> None:
    place.log_in()
    aged(place, expires=time.time() + 30)
    result = place.kulvert(*arguments(place), env=exec_info(place))
    assert "token" in given(result.stdout)["status"]
    assert result.stderr == ""
    assert len(place.issuer.used_up) == 1


def test_without_a_silent_way_a_script_is_told_what_to_do(place: Town) -> None:
    result = place.kulvert(*arguments(place), env=exec_info(place))
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"kulvert login --server {place.gateway.url} --issuer-url {place.issuer.url}" in result.stderr


def test_at_a_terminal_the_sign_in_begins_by_itself(tmp_path: Path) -> None:
    with town(tmp_path, lambda issuer: LoginSettings(issuer, "kulvert", ("openid", "groups"), "127.0.0.1")) as place:
        result = place.kulvert(*arguments(place), env=exec_info(place, interactive=True))
        assert "token" in given(result.stdout)["status"], result.stderr
        assert "Sign in in the browser" in result.stderr
        assert "Waiting for up to 5 min at http://127.0.0.1:" in result.stderr, "as the gateway has it"
        assert json.loads(place.files(LOGIN)[0].read_text())["scopes"] == ["openid", "groups"]


def test_an_issuer_that_is_down_is_a_warning_while_the_token_lasts_then_an_error(place: Town) -> None:
    place.log_in()
    aged(place, expires=time.time() + 30)
    place.issuer.overrides["/token"] = (503, b"")
    result = place.kulvert(*arguments(place), env=exec_info(place))
    assert "token" in given(result.stdout)["status"]
    assert "answered 503" in result.stderr
    before = len(place.issuer.asked)
    assert "token" in given(place.kulvert(*arguments(place), env=exec_info(place)).stdout)["status"]
    assert len(place.issuer.asked) == before, "it was asked again at once"
    aged(place, expires=time.time() - 1)
    result = place.kulvert(*arguments(place), env=exec_info(place))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "try again in a minute" in result.stderr


def test_a_login_that_the_issuer_ended_is_told(place: Town) -> None:
    place.log_in()
    place.issuer.refresh_tokens.clear()
    aged(place, expires=time.time() - 1)
    result = place.kulvert(*arguments(place), env=exec_info(place))
    assert result.exit_code == 1
    assert "renews this login no more" in result.stderr
    assert "run `kulvert login" in result.stderr


def test_many_kubectls_at_once_use_a_refresh_token_once(place: Town) -> None:
    place.log_in()
    aged(place, expires=time.time() + 20)
    place.issuer.delay["/token"] = 0.2
    env = {**place.env(), **exec_info(place)}
    argv = [str(PROGRAM), *arguments(place)]
    running = [subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    tokens = {given(process.communicate(timeout=30)[0])["status"]["token"] for process in running}
    assert len(tokens) <= 2, "the old one is good still, and the new one"
    assert (place.issuer.reused, len(place.issuer.used_up)) == (0, 1)


def test_the_cached_path_imports_nothing_heavy(place: Town) -> None:
    place.log_in()
    argv = [str(PROGRAM), *arguments(place)]
    env = {**place.env(), **exec_info(place), "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=True)
    assert "token" in given(done.stdout)["status"]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "click" in imported
    assert not imported & {"aiohttp", "cryptography", "asyncio", "jwt", "yaml", "rich", "ssl", "gateway", "orjson"}


# --- what the gateway gives


def test_a_certificate_is_made_for_a_key_of_this_machine_and_renewed_in_place(place: Town) -> None:
    place.log_in()
    first = given(place.kulvert(*arguments(place, "--certificate"), env=exec_info(place)).stdout)["status"]
    assert "token" not in first
    again = given(place.kulvert(*arguments(place, "--certificate"), env=exec_info(place)).stdout)["status"]
    assert again == first
    certificate = x509.load_pem_x509_certificate(first["clientCertificateData"].encode())
    assert "PRIVATE KEY" in first["clientKeyData"]
    assert certificate.not_valid_after_utc.timestamp() > time.time() + 3_000
    now = time.time()
    aged(place, "certificate", expires=now + 499)
    renewed = given(place.kulvert(*arguments(place, "--certificate"), env=exec_info(place)).stdout)["status"]
    assert renewed["clientCertificateData"] != first["clientCertificateData"]
    assert renewed["clientKeyData"] != first["clientKeyData"]
    assert place.gateway.asked == ["certificaterequests"] * 2
    assert place.files("certificate")[0].stat().st_mode & 0o777 == 0o600


def test_a_certificate_renews_itself_where_the_login_is_over(place: Town) -> None:
    place.log_in()
    given(place.kulvert(*arguments(place, "--certificate"), env=exec_info(place)).stdout)
    now = time.time()
    aged(place, "certificate", expires=now + 499)
    place.files(LOGIN)[0].unlink()
    renewed = given(place.kulvert(*arguments(place, "--certificate"), env=exec_info(place)).stdout)["status"]
    assert x509.load_pem_x509_certificate(renewed["clientCertificateData"].encode())
    assert place.gateway.asked == ["certificaterequests"] * 2


def test_a_token_renews_itself_where_the_login_is_over(place: Town) -> None:
    place.log_in()
    given(place.kulvert(*arguments(place, "--kulvert-token"), env=exec_info(place)).stdout)
    aged(place, "token", expires=time.time() + 30)
    place.files(LOGIN)[0].unlink()
    result = place.kulvert(*arguments(place, "--kulvert-token"), env=exec_info(place, interactive=True))
    assert given(result.stdout)["status"]["token"] == "kulvert-kulvert-ada"
    assert result.stderr == "", "silently, even at a terminal"


def test_a_gateway_that_gives_none_is_a_warning_while_the_old_one_lasts(place: Town) -> None:
    place.log_in()
    first = given(place.kulvert(*arguments(place, "--certificate"), env=exec_info(place)).stdout)["status"]
    now = time.time()
    aged(place, "certificate", expires=now + 499)
    place.gateway.refuses["certificaterequests"] = 503
    result = place.kulvert(*arguments(place, "--certificate"), env=exec_info(place))
    assert given(result.stdout)["status"]["clientKeyData"] == first["clientKeyData"]
    assert "going on with what there is" in result.stderr
    assert "PRIVATE" not in result.stderr


@pytest.mark.parametrize(
    ("code", "words"), [(403, "refused by the test"), (404, "switched off"), (401, "kulvert login")]
)
def test_a_gateway_that_says_no_is_told(place: Town, code: int, words: str) -> None:
    place.log_in()
    place.gateway.refuses["tokenrequests"] = code
    result = place.kulvert(*arguments(place, "--kulvert-token"), env=exec_info(place))
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr


def test_a_token_of_kulverts_own(place: Town) -> None:
    place.log_in()
    result = place.kulvert(*arguments(place, "--kulvert-token"), env=exec_info(place))
    assert given(result.stdout)["status"]["token"] == "kulvert-ada"
    given(place.kulvert(*arguments(place, "--kulvert-token"), env=exec_info(place)).stdout)
    assert place.gateway.asked == ["tokenrequests"]


def test_two_kinds_at_once_are_refused(place: Town) -> None:
    result = place.kulvert(*arguments(place, "--kulvert-token", "--certificate"))
    assert result.exit_code == 2
    assert "choose one" in result.stderr


def test_no_secret_is_in_what_is_said(place: Town) -> None:
    place.log_in()
    path = place.files(LOGIN)[0]
    kept = json.loads(path.read_text())
    aged(place, expires=time.time() + 30)
    place.issuer.overrides["/token"] = (400, b'{"error":"invalid_request"}')
    result = place.kulvert(*arguments(place), env=exec_info(place))
    path.write_bytes(path.read_bytes()[:-1])
    damaged = place.kulvert(*arguments(place), env=exec_info(place))
    path.chmod(0o644)
    opened = place.kulvert(*arguments(place), env=exec_info(place))
    told = result.stderr + damaged.stderr + opened.stderr
    assert kept["idToken"] not in told
    assert kept["refreshToken"] not in told
    login = Login.read(_key(place), kept)
    assert login is not None
    assert kept["refreshToken"] not in repr(login)


def _key(place: Town) -> LoginKey:
    return LoginKey(place.gateway.url, place.issuer.url, "kulvert")


# --- an hour and a day, with the time in the test's hand


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("span", "lifetime", "pause"), [(3_600, 300, 7), (86_400, 3_600, 97)])
def test_over_hours_with_keys_that_rotate_no_call_fails(
    place: Town, span: float, lifetime: float, pause: float
) -> None:
    """Each token that is handed out verifies by the keys of that moment, and is not expired by the issuer's clock."""
    clock, issuer = Clock(), place.issuer
    issuer.clock, issuer.lifetime = clock, lifetime
    said: list[str] = []
    cache = TokenCache(place.cache, said.append)
    source = Source(cache, _key(place), said.append, False, Ways(None), clock=clock)
    issuer.refresh_tokens.add("first")
    client = Client("kulvert", ("openid",))
    begun = Login(_key(place), client, replace(_times(clock.now)), "ada", "ada", "expired", "first")
    cache.save(_key(place), LOGIN, begun.document())
    asyncio.run(_hours(issuer, cache, source, clock, span, pause))
    assert said == []
    assert issuer.reused == 0
    assert issuer.count("/token") <= span / (lifetime - 60) + 2


def _times(now: float) -> Any:
    from cli.credentialplan import Times

    return Times(now - 100, now - 50)


async def _hours(
    issuer: FakeIssuer, cache: TokenCache, source: Source, clock: Clock, span: float, pause: float
) -> None:  # fmt: skip
    end, rotate_at, wanted = clock.now + span, clock.now, Wanted(source.key, LOGIN, ExecInfo())
    while clock.now < end:
        if clock.now >= rotate_at:  # the old key is published for as long as its tokens live
            old = issuer.keys[0]
            issuer.rotate()
            issuer.keys.append(old)
            rotate_at = clock.now + issuer.lifetime + 11
        shown = cached(cache, wanted, clock.now) or of_login(await source.login(), clock.now)
        _check(shown, issuer, clock.now)
        clock.now += pause


def _check(shown: Shown, issuer: FakeIssuer, now: float) -> None:
    kid = jwt.get_unverified_header(shown.token)["kid"]
    key = next(jwt.PyJWK(key.jwk) for key in issuer.keys if key.kid == kid)
    claims = jwt.decode(shown.token, key, ["ES256"], {"verify_exp": False, "verify_iat": False}, audience="kulvert")
    assert now < shown.until < claims["exp"]


async def test_a_login_that_is_damaged_is_none(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path / "cache", lambda _: None)
    key = LoginKey("https://gateway.test", "https://issuer.test", "kulvert")
    cache.save(key, LOGIN, {"idToken": 3, "obtained": "x"})
    with pytest.raises(Failed, match="not signed in at gateway"):
        await Source(cache, key, lambda _: None, False, Ways(None)).login()
    assert os.listdir(tmp_path / "cache")
