"""The server's token keys: rotated by itself, and followed when somebody else rotates them."""

from __future__ import annotations

from pathlib import Path

import pytest

from auth.authenticator import AuthenticationFailed
from auth.identity import Credentials
from auth.revocations import Revocations
from auth.statefile import StateFileError
from auth.tokenkeys import KEPT
from gateway.issuing.settings import TokensConfig
from gateway.issuing.tokenkeys import TokenKeys
from gateway.state import ISSUER, State

NOW = 1_800_000_000.0
DAY = 86_400.0
CONFIG = TokensConfig()


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state")


def token(keys: TokenKeys, now: float, lifetime: float = 600) -> Credentials:
    return Credentials(b"Bearer " + keys.signer(now).issue("jane", [], "", "t1", now, lifetime).encode())


def known(keys: TokenKeys, shown: Credentials, now: float) -> bool:
    try:
        return keys.authenticate(shown, now) is not None
    except AuthenticationFailed:
        return False


def test_a_key_is_rotated_in_time_and_old_tokens_stay_good(state: State) -> None:
    keys = TokenKeys(CONFIG, state, NOW)
    due = NOW + CONFIG.rotate_every - CONFIG.publish_lead
    assert not keys.poll(due - 1)
    first = keys.signer(due).verification_key.kid
    assert keys.poll(due)
    assert len(keys.ring.keys) == 2
    assert keys.signer(due).verification_key.kid == first
    turn = due + CONFIG.publish_lead
    old = token(keys, turn - 1, DAY)
    assert keys.signer(turn).verification_key.kid != first
    assert known(keys, old, turn + DAY - 2)
    assert not keys.poll(turn + KEPT - 1)
    assert keys.poll(turn + KEPT)
    assert len(keys.ring.keys) == 1
    assert not known(keys, old, turn)


def test_two_servers_on_one_directory_make_one_new_key(state: State) -> None:
    one, two = TokenKeys(CONFIG, state, NOW), TokenKeys(CONFIG, state, NOW)
    due = NOW + CONFIG.rotate_every
    assert one.poll(due)
    assert two.poll(due)
    assert [key.verification.kid for key in one.ring.keys] == [key.verification.kid for key in two.ring.keys]
    assert len(one.ring.keys) == 2
    assert known(two, token(one, due + CONFIG.publish_lead), due + CONFIG.publish_lead)


def test_the_commands_rotation_is_followed_and_a_compromise_ends_tokens(state: State) -> None:
    keys = TokenKeys(CONFIG, state, NOW)
    old = token(keys, NOW)
    state.token_keys.change(lambda ring: ring.rotated(NOW, 60), ISSUER, NOW)
    assert keys.poll(NOW)
    assert known(keys, old, NOW)
    state.token_keys.change(lambda ring: ring.replaced(NOW), ISSUER, NOW)
    assert keys.poll(NOW)
    assert not known(keys, old, NOW)
    assert known(keys, token(keys, NOW), NOW)


def test_a_damaged_file_changes_nothing_and_is_told(state: State) -> None:
    keys = TokenKeys(CONFIG, state, NOW)
    shown = token(keys, NOW)
    state.token_keys.path.write_bytes(b"{")
    with pytest.raises(StateFileError, match="no signing keys"):
        keys.poll(NOW)
    assert known(keys, shown, NOW)


def test_the_command_signs_as_the_server_says(state: State) -> None:
    keys = TokenKeys(TokensConfig(issuer="https://gw.example/"), state, NOW)
    assert keys.publishes
    assert keys.ring.issuer == "https://gw.example"
    assert state.signer(NOW).issuer == "https://gw.example"
    made = state.signer(NOW).issue("jane", [], "", "t1", NOW, 60)
    assert known(keys, Credentials(b"Bearer " + made.encode()), NOW)
    assert not TokenKeys(CONFIG, state, NOW).publishes


def test_revoked_tokens_are_refused(state: State) -> None:
    revoked = Revocations(tokens=frozenset(("t1",)))
    keys = TokenKeys(CONFIG, state, NOW, lambda: revoked)
    assert not known(keys, token(keys, NOW), NOW)
