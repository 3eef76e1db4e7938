"""Where the API server is, as a value."""

from __future__ import annotations

import ssl

import pytest

from agent.access import ApiServer, FixedAccess, verifying_context
from tests.agent.pki import Authority

SERVER = ApiServer("10.0.0.1", 6443, "kubernetes")


def test_the_authority_names_the_port_unless_it_is_https() -> None:
    assert SERVER.authority == b"10.0.0.1:6443"
    assert ApiServer("a.test", 443, "a.test").authority == b"a.test"
    assert ApiServer("fd00::1", 443, "fd00::1").authority == b"[fd00::1]"


def test_a_context_always_verifies(authority: Authority) -> None:
    for context in (verifying_context(authority.pem), verifying_context(None)):
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        verifying_context("no certificate")


def test_the_token_is_in_no_repr(authority: Authority) -> None:
    access = FixedAccess(SERVER, verifying_context(authority.pem), b"secret")
    assert "secret" not in repr(access)
    assert access.authorization(0) == b"Bearer secret"
