"""The two lines that replicas add to heads, and take away again: which cluster a request is for, who has answered it.

Both stand last, so that what stands before them is remembered by the line memory as usual. A user's or an API server's
own line of the same name never passes for ours: of the cluster there is exactly one, and only the last line counts as
the agent's.
"""

from __future__ import annotations

import re
from typing import Final

from tunnel.block import MAX_LINES
from tunnel.errors import HeadError
from tunnel.ports import RequestBlock, ResponseBlock

CLUSTER: Final = b"kulvert-cluster"
AGENT: Final = b"kulvert-agent"
_CLUSTER_NAME: Final = re.compile(rb"_?[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
"""With a `_` before it, it is no cluster's but something that a replica answers by itself."""


class NoCluster(Exception):
    """A head between replicas that does not name its cluster once, and last."""


def with_cluster(head: RequestBlock, cluster: str) -> RequestBlock:
    """The head as it goes to the holder. Raises HeadError for one that has no room for another line."""
    headers = [line for line in head.headers if line[0] != CLUSTER]
    if len(headers) >= MAX_LINES:  # the holder would end the link, and with it everybody's requests
        raise HeadError("more headers and groups than the link takes", 431)
    headers.append((CLUSTER, cluster.encode("ascii")))
    return RequestBlock(head.method, head.target, headers, head.ended, head.long, head.upgrade, head.pass_through)


def without_cluster(head: RequestBlock) -> tuple[str, RequestBlock]:
    """The cluster, and the head as its agent gets it. Raises NoCluster."""
    headers = head.headers
    if not headers or headers[-1][0] != CLUSTER or not _CLUSTER_NAME.fullmatch(headers[-1][1]):
        raise NoCluster("the head names no cluster")
    _, name = headers[-1]
    headers = headers[:-1]
    for line in headers:
        if line[0] == CLUSTER:
            raise NoCluster("the head names two clusters")
    bare = RequestBlock(head.method, head.target, headers, head.ended, head.long, head.upgrade, head.pass_through)
    return name.decode("ascii"), bare


def with_agent(head: ResponseBlock, agent: bytes) -> ResponseBlock:
    """The head as it goes to the replica that asked. One that is full already goes without."""
    if not agent or len(head.headers) >= MAX_LINES:
        return head
    return ResponseBlock(head.status, [*head.headers, (AGENT, agent)], head.interim, head.upgrade, head.ended)


def take_agent(head: ResponseBlock) -> str:
    """The agent's name, whose line is taken out of the head; "" where there is none."""
    headers = head.headers
    if headers and headers[-1][0] == AGENT:
        return headers.pop()[1].decode("utf-8", "replace")
    return ""


def agent_line(agent: str) -> bytes:
    """An agent's name as a header's value."""
    return agent.strip().encode("utf-8", "replace") if agent.isprintable() else b""
