"""The two lines that replicas add to heads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stub.peers.heads import NoCluster, agent_line, take_agent, with_agent, with_cluster, without_cluster
from tunnel.block import MAX_LINES, decode_request, decode_response, encode_request, encode_response
from tunnel.errors import HeadError
from tunnel.known import LineMemory
from tunnel.ports import Headers, RequestBlock, ResponseBlock

AUDIT = (b"audit-id", b"0123")
NAME = (b"kulvert-cluster", b"alpha")
BETA = (b"kulvert-cluster", b"beta")


def over_the_link(head: RequestBlock, memory: LineMemory | None = None) -> RequestBlock:
    """As the holder reads it."""
    return decode_request(*encode_request(head, 0), memory)[1]


@pytest.mark.parametrize("headers", [[], [AUDIT], [AUDIT, (b"a", b"b")], [(b"a", b"b")]], ids=str)
@pytest.mark.parametrize("remembered", [False, True])
def test_the_cluster_comes_out_as_it_went_in(headers: Headers, remembered: bool) -> None:
    memory = LineMemory()
    head = RequestBlock(b"POST", b"/x?y", list(headers), False, True)
    for _ in range(1 + remembered):
        cluster, bare = without_cluster(over_the_link(with_cluster(head, "alpha"), memory))
        assert cluster == "alpha"
        assert bare == head
    assert head.headers == headers


@pytest.mark.parametrize("flags", [{"upgrade": True, "ended": False}, {"pass_through": True}, {"long": True}], ids=str)
def test_what_else_a_head_says_stays(flags: dict[str, bool]) -> None:
    own: Headers = [(b"upgrade", b"spdy/3.1")] if "upgrade" in flags else []
    own += [(b"authorization", b"Bearer x")] if "pass_through" in flags else []
    head = replace(RequestBlock(b"GET", b"/", own), **flags)  # type: ignore[arg-type]  # fields that are bool
    assert without_cluster(over_the_link(with_cluster(head, "alpha"))) == ("alpha", head)


@pytest.mark.parametrize("own", [[BETA], [NAME], [BETA, BETA], [AUDIT, BETA, (b"a", b"b")]], ids=str)
def test_a_users_own_line_never_counts(own: Headers) -> None:
    sent = with_cluster(RequestBlock(b"GET", b"/", own), "alpha")
    cluster, bare = without_cluster(over_the_link(sent))
    assert cluster == "alpha"
    assert not [line for line in bare.headers if line[0] == b"kulvert-cluster"]


@pytest.mark.parametrize(
    "headers",
    [[], [AUDIT], [NAME, AUDIT], [NAME, NAME], [BETA, NAME], [(b"kulvert-cluster", b"")],
     [(b"kulvert-cluster", b"a/b")], [(b"kulvert-cluster", b"A")], [(b"kulvert-cluster", b"x" * 64)]],
    ids=range(9),
)  # fmt: skip
def test_a_head_that_does_not_name_one_cluster_last_is_refused(headers: Headers) -> None:
    with pytest.raises(NoCluster):
        without_cluster(RequestBlock(b"GET", b"/", headers))


def test_what_a_replica_answers_by_itself_has_a_name_that_no_cluster_can_have() -> None:
    head = RequestBlock(b"GET", b"/", [AUDIT])
    assert without_cluster(over_the_link(with_cluster(head, "_management"))) == ("_management", head)


def test_a_head_keeps_room_for_the_line() -> None:
    lines = [(b"x", b"y")] * (MAX_LINES - 1)
    over_the_link(with_cluster(RequestBlock(b"GET", b"/", lines), "alpha"))
    with pytest.raises(HeadError) as raised:
        with_cluster(RequestBlock(b"GET", b"/", [*lines, (b"x", b"y")]), "alpha")
    assert raised.value.status == 431


@pytest.mark.parametrize("own", [[], [(b"a", b"b")], [(b"kulvert-agent", b"liar")]], ids=str)
@pytest.mark.parametrize("name", ["agent-1", " spaced ", "größe"])
def test_the_agents_name_comes_out_and_nothing_else_does(own: Headers, name: str) -> None:
    sent = with_agent(ResponseBlock(200, own), agent_line(name))
    head = decode_response(*encode_response(sent))
    assert take_agent(head) == name.strip()
    assert head.headers == own


@pytest.mark.parametrize("name", ["", "a\r\nb", "\x00", "a\u2028b"], ids=range(4))
def test_a_name_that_is_no_header_is_left_out(name: str) -> None:
    head = ResponseBlock(200, [(b"a", b"b")])
    assert with_agent(head, agent_line(name)) is head
    assert take_agent(head) == ""


def test_an_answer_that_is_full_goes_without() -> None:
    full = ResponseBlock(200, [(b"a", b"b")] * MAX_LINES)
    decode_response(*encode_response(with_agent(full, b"agent-1")))
