"""The messages of enrolment: what goes out comes in, and nothing else does."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from agent.enrolment import request
from agent.identityfile import new_key
from tunnel.enrolment import MAX_CSR, EnrolHello, Issued, cluster_uri, common_name
from tunnel.errors import ProtocolError
from tunnel.handshake import MAX_TRUST, Hello, Refused
from tunnel.limits import KIB
from tunnel.messages import parse_message

PEM = "-----BEGIN X-----\nAAAA\n-----END X-----\n"
HELLO = EnrolHello(
    1, "tunnel.example", "m" * 43, "p" * 43, "t" * 16, "berlin", "1234", "agent-0", "0" * 32, PEM, "kulvert/1"
)


def said(message: EnrolHello | Issued | Refused) -> dict[str, Any]:
    return parse_message(message.encode(), 64 * KIB)


def test_round_trips() -> None:
    assert EnrolHello.parse(said(HELLO)) == HELLO
    assert Issued.parse(said(Issued(PEM, PEM))) == Issued(PEM, PEM)
    assert Issued.parse(said(Issued(PEM))) == Issued(PEM)
    assert "trust" not in said(Issued(PEM))


def test_it_is_no_hello_of_a_link() -> None:
    with pytest.raises(ProtocolError, match="neither shared nor own"):
        Hello.parse(said(HELLO))


BAD: dict[str, list[Any]] = {
    "version": [-1, 256, "1", None, True],
    "name": ["x" * 254, "a\nb", None],
    "nonce": ["x" * 65, None],
    "proof": ["x" * 65, None],
    "token": ["x" * 65, None, "\n"],
    "cluster": ["x" * 64, None, "a\n"],
    "clusterId": ["x" * 65, None],
    "agent": ["x" * 254, "\0", None],
    "instance": ["x" * 33, None],
    "csr": ["x" * (MAX_CSR + 1), None, 1, "\0", "a\rb", "ü"],
    "software": ["x" * 129, 1],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, bad in BAD.items() for value in bad])
def test_a_malformed_hello(field: str, value: object) -> None:
    with pytest.raises(ProtocolError):
        EnrolHello.parse(said(HELLO) | {field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", "welcome"), ("certificate", None), ("certificate", "\0"), ("certificate", "x" * (16 * KIB + 1)),
     ("trust", 1), ("trust", "x" * (MAX_TRUST + 1))],
)  # fmt: skip
def test_a_malformed_answer(field: str, value: object) -> None:
    with pytest.raises(ProtocolError):
        Issued.parse(said(Issued(PEM)) | {field: value})


def test_a_refusal_is_raised() -> None:
    with pytest.raises(Refused) as caught:
        Issued.parse(said(Refused("pending", "waits for an administrator", retry_after=30)))
    assert (caught.value.reason, caught.value.retry_after) == ("pending", 30)


def test_the_widest_hello_fits_its_limit() -> None:
    wide = {"name": 253, "cluster": 63, "agent": 253, "software": 128, "instance": 32, "csr": MAX_CSR}
    names = [one.name for one in dataclasses.fields(HELLO) if one.name != "version"]
    texts: dict[str, Any] = {name: "x" * wide.get(name, 64) for name in names}
    widest = dataclasses.replace(HELLO, **texts | {"csr": "\n" * MAX_CSR, "agent": "€" * 253})
    assert EnrolHello.parse(parse_message(widest.encode(), 8 * KIB)) == widest


def test_an_agents_request_is_small() -> None:
    assert len(request(new_key(), "edge-7", "8f3c0f0e-1c2d-4a57-9d3e-0a1b2c3d4e5f")) < 600
    assert len(request(new_key(), "x" * 63, "8f3c0f0e-1c2d-4a57-9d3e-0a1b2c3d4e5f")) < MAX_CSR


def test_a_cluster_is_named_by_a_uri_and_a_common_name_that_fits() -> None:
    assert cluster_uri("edge-7", "uid") == "kulvert://cluster/edge-7/uid"
    assert common_name("edge-7") == "kulvert:agent:edge-7"
    assert len(common_name("x" * 63)) == 64


def test_a_request_is_in_no_representation() -> None:
    assert "AAAA" not in repr(HELLO)
