"""What a grant may ask of a request: the part of its meaning that authorisation reads."""

from __future__ import annotations

from typing import Protocol


class Attributes(Protocol):
    """`tunnel.requestinfo.RequestInfo`, in the terms of Kubernetes' authorizer.Attributes. For what is no resource
    request, `verb` is the method in lower case, `path` counts, and the rest is empty.
    """

    @property
    def verb(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def is_resource_request(self) -> bool: ...
    @property
    def api_group(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def resource(self) -> str: ...
    @property
    def subresource(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def interactive(self) -> bool:
        """Whether it gives a hand inside a container or machine (exec, attach, port-forward, a node's proxy, …)."""
        ...
