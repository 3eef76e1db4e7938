"""What each setting of the server is, for `kulvert serve --help`. Sizes are bytes, times seconds, lists have commas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

HELP: Final[Mapping[str, str]] = {
    "listen": "Where users connect: HOST:PORT, several with commas.",
    "agentsListen": "Where agents connect: HOST:PORT.",
    "names": "Host names and addresses that users and agents dial; they go into the server's own certificate.",
    "domain": "Users may also reach a cluster as NAME.DOMAIN. A domain for clusters alone.",
    "stateDir": "Where the CA, the keys and the clusters are kept (mode 0700).",
    "grants": "Who may reach which cluster; re-read when it changes. Without it grants.yaml in the state directory.",
    "audit": "The audit log: a file, - for stdout, or none. Without it audit.log in the state directory.",
    "serverId": "This server's name, which agents see.",
    "metricsGroup": "The group that may read /metrics.",
    "tls.certificate": "PEM file of the server's certificate chain. Without it, one by the platform's own CA.",
    "tls.key": "PEM file of its key.",
    "limits.connections": "Users' connections at a time.",
    "limits.held": "What is held of a client that sends ahead of its answer.",
    "limits.writeBuffer": "What is held for a client that does not read.",
    "limits.discarded": "What a client may still send after an answer that ended its connection.",
    "limits.largeBody": "From this length on, a request's body gets a link of its own.",
    "limits.head.headBytes": "The length of a request's head.",
    "limits.head.headers": "The headers of a request.",
    "limits.head.targetBytes": "The length of a request's path and query.",
    "limits.head.interimResponses": "The 1xx answers before an answer.",
    "limits.head.trailerBytes": "The length of a body's trailers.",
    "limits.head.trailers": "The trailers of a body.",
    "timeouts.handshake": "For a TLS handshake.",
    "timeouts.head": "From a head's first byte to its last.",
    "timeouts.idle": "Between two requests of a connection.",
    "timeouts.progress": "Without a byte of a request's body.",
    "timeouts.linger": "For a client to close after the last answer.",
    "timeouts.flush": "For the last bytes of an exec or port-forward whose client has gone.",
    "timeouts.recheck": "How often the user of a live stream is authorised anew.",
    "timeouts.sweep": "How often deadlines are looked at.",
    "timeouts.drain": "For what is under way when the server stops.",
}
