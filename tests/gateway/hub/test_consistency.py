"""What a check finds."""

from __future__ import annotations

import pytest

from gateway.hub.asking import Asking, Gone
from gateway.hub.consistency import differences
from gateway.hub.listing import METADATA, Lister
from gateway.hub.memory import Malformed
from gateway.hub.source import Source
from tests.gateway.hub.scripted_hub import FAST, HANGS, PATH, Answer, Scripted, item, page, serving

KNOWN = {"a": "1", "b": "1", "ns/c": "1"}
C = item("c", 1, namespace="ns")


async def found(*pages: Answer) -> list[str]:
    hub = Scripted(list(pages), [HANGS])
    async with serving(hub) as api:
        try:
            return await differences(Lister(Asking(api, Source(PATH)), FAST), KNOWN, "10")
        finally:
            assert set(hub.accepts) == {METADATA}
            assert (hub.asked[0]["resourceVersion"], hub.asked[0]["resourceVersionMatch"]) == ("10", "Exact")


async def test_what_is_missing_surplus_or_of_another_version_differs() -> None:
    assert await found(page(item("a", 1), item("b", 1), C)) == []
    assert await found(page(item("a", 1), more="next"), page(item("b", 1), C)) == []
    assert await found(page(item("a", 1), item("b", 2), item("d", 1))) == ["b", "d", "ns/c"]
    assert await found(page()) == sorted(KNOWN)


async def test_a_moment_that_is_over_and_garbage_are_no_difference() -> None:
    with pytest.raises(Gone):
        await found(page(item("a", 1), more="next"), Answer(410))
    with pytest.raises(Malformed):
        await found(Answer(pieces=[b"{}"]))
