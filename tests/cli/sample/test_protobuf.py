"""Protobuf bodies: what client-go writes, byte by byte, and what nobody should."""

from __future__ import annotations

import base64

import pytest

from cli.sample.protobuf import decode
from cli.sample.status import ApiError


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def envelope(kind: str, raw: bytes, api_version: str = "v1") -> bytes:
    meta = field(1, api_version) + field(2, kind)
    return b"k8s\x00" + field(1, meta) + field(2, raw) + field(3, "") + field(4, "")


META = field(1, "a") + field(2, "") + field(11, field(1, "app") + field(2, "x")) + field(8, b"")


def test_a_config_map_is_read() -> None:
    raw = field(1, META) + field(2, field(1, "k") + field(2, "v")) + field(2, field(1, "empty"))
    assert decode(envelope("ConfigMap", raw)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "labels": {"app": "x"}},
        "data": {"k": "v", "empty": ""},
    }


def test_bytes_are_encoded_as_in_json() -> None:
    raw = field(1, META) + field(2, field(1, "k") + field(2, b"\xff")) + field(3, "Opaque")
    found = decode(envelope("Secret", raw))
    assert (found["data"], found["type"]) == ({"k": base64.b64encode(b"\xff").decode()}, "Opaque")


def test_numbers_flags_times_and_either_are_read() -> None:
    port = field(3, 80) + field(4, field(1, 1) + field(3, "http")) + field(5, 0)
    other = field(3, 81) + field(4, field(1, 0) + field(2, 8080))
    service = decode(envelope("Service", field(2, field(1, port) + field(1, other))))
    assert service["spec"]["ports"] == [{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8080}]
    lease = decode(envelope("Lease", field(2, field(3, field(1, 1) + field(2, 5000))), "coordination.k8s.io/v1"))
    assert lease["spec"]["acquireTime"] == "1970-01-01T00:00:01.000005Z"
    options = decode(envelope("DeleteOptions", field(1, 2**64 - 1) + field(3, 1) + field(5, "All")))
    assert (options["gracePeriodSeconds"], options["orphanDependents"], options["dryRun"]) == (-1, True, ["All"])


def test_fields_that_are_not_known_are_passed_over() -> None:
    raw = field(1, META) + field(99, "x") + field(98, 7) + varint(97 << 3 | 5) + b"1234"
    assert decode(envelope("Namespace", raw))["metadata"]["name"] == "a"


def test_a_kind_that_is_not_read_is_an_unsupported_type() -> None:
    with pytest.raises(ApiError) as caught:
        decode(envelope("Deployment", b""))
    assert (caught.value.code, "send application/json" in caught.value.message) == (415, True)


BROKEN = [
    b"",
    b"{}",
    envelope("ConfigMap", b"\x0a\xff"),
    envelope("ConfigMap", field(1, 7)),
    envelope("ConfigMap", b"\x0b"),
    envelope("ConfigMap", b"\xff" * 11),
    envelope("ConfigMap", field(1, field(1, b"\xff\xfe"))),
    envelope("DeleteOptions", field(1, "x")),
]


@pytest.mark.parametrize("data", BROKEN)
def test_what_is_broken_is_refused(data: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        decode(data)
    assert caught.value.code == 400


@pytest.mark.parametrize("length", range(len(envelope("ConfigMap", field(1, META)))))
def test_what_is_cut_short_is_refused_or_less_and_never_a_crash(length: int) -> None:
    try:
        decode(envelope("ConfigMap", field(1, META))[:length])
    except ApiError as error:
        assert error.code in (400, 415)  # noqa: PT017 - success is fine too
