"""What every authenticator raises."""

from __future__ import annotations

from auth.authenticator import AuthenticationFailed, Authenticator, NoCredentials
from auth.tokens import TokenAuthenticator
from auth.x509 import CertificateAuthenticator


def test_a_request_without_credentials_is_an_authentication_failure_too() -> None:
    failure = NoCredentials("nothing")
    assert isinstance(failure, AuthenticationFailed)
    assert failure.reason == str(failure) == "nothing"


def test_the_authenticators_fit_the_port() -> None:
    ports: list[type[Authenticator]] = [TokenAuthenticator, CertificateAuthenticator]
    assert all(callable(port.authenticate) for port in ports)
