"""Settings that contradict each other, or would leave a door open or shut, are refused with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import ConfigError, ServerConfig, host_and_port
from gateway.spelling import load
from tests.gateway.test_spelling import written


@pytest.mark.parametrize(
    ("address", "parts"),
    [("0.0.0.0:8443", ("0.0.0.0", 8443)), ("[::1]:0", ("::1", 0)), ("localhost:1", ("localhost", 1))],
)
def test_addresses_are_host_and_port(address: str, parts: tuple[str, int]) -> None:
    assert host_and_port(address) == parts


@pytest.mark.parametrize("address", ["8443", ":8443", "a:", "a:x", "a:70000", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        host_and_port(address)


def test_what_is_under_way_is_given_less_time_than_kubernetes_gives_the_server() -> None:
    assert ServerConfig().timeouts.drain == 25.0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("authentication: {order: [token, tokens]}", "authentication.order"),
        ("authentication: {order: [token, token]}", "authentication.order"),
        ("authentication: {order: []}", "authentication.order"),
        ("hub: {tokenReview: true}", "need a hub"),
        ("hub: {inCluster: true, audiences: []}", "hub.audiences"),
        ("hub: {inCluster: yes}", "neither true nor false"),
        ("adminGroups: []", "adminGroups"),
        ("tokens: {lifetime: 100000}", "more than a day"),
        ("tokens: {issuer: http://x}", "https"),
        ("login: {issuer: https://x}", "go together"),
        ("audit: {logMode: maybe}", "block or drop"),
        ("audit: {logPath: [none, a]}", "something else"),
        ("audit: {logMaxsize: 0}", "no positive whole number"),
    ],
)
def test_settings_that_would_leave_a_door_open_or_shut_are_refused(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(written(tmp_path, text + "\n"), {}, {})
