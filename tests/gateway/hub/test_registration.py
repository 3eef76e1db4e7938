"""The two sides of registration come to agree from wherever they are, and then are quiet."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.hub.clusters import CLUSTER_ID, FINALIZER, Declared
from gateway.hub.registration import AT_THE_HUB, Do, Known, Step, next_step, problem
from gateway.membership.cluster import TERMINATING, Cluster
from gateway.membership.removals import Removal

A, B = "a" * 8, "b" * 8
NEW = Declared("edge")
HELD = replace(NEW, finalizers=(FINALIZER,), since=10.0)
GOING = replace(HELD, deleting=True)
ASKED = Cluster("edge")
IN = Cluster("edge", A)
KNOWN = Cluster("edge", A, hub_accepted=A)
OUT = Cluster("edge", A, denied=True)
LEAVING = Cluster("edge", A, phase=TERMINATING)
DONE = Removal("edge", 11.0, finished=12.0)


@pytest.mark.parametrize(
    ("found", "known", "step"),
    [
        (None, Known(), None),
        (None, Known(IN), Step(Do.CREATE, A)),
        (None, Known(ASKED), Step(Do.CREATE)),
        (None, Known(OUT), Step(Do.CREATE)),
        (None, Known(LEAVING), None),
        (NEW, Known(), Step(Do.HOLD)),
        (HELD, Known(), Step(Do.REGISTER)),
        (HELD, Known(removal=DONE), Step(Do.DELETE)),
        (replace(HELD, since=13.0), Known(removal=DONE), Step(Do.REGISTER)),
        (GOING, Known(), Step(Do.RELEASE)),
        (replace(NEW, deleting=True), Known(), None),
        (replace(NEW, deleting=True), Known(IN), None),
        (GOING, Known(IN), Step(Do.REMOVE)),
        (GOING, Known(LEAVING, Removal("edge", 11.0)), None),
        (replace(GOING, forced=True), Known(LEAVING, Removal("edge", 11.0)), Step(Do.REMOVE)),
        (replace(GOING, forced=True), Known(LEAVING, Removal("edge", 11.0, force=True)), None),
        (HELD, Known(LEAVING), Step(Do.DELETE)),
        (NEW, Known(LEAVING), None),
        (NEW, Known(IN), Step(Do.HOLD)),
        (replace(HELD, labels=(("env", "prod"),)), Known(IN), Step(Do.RELABEL)),
        (HELD, Known(ASKED), None),
        (HELD, Known(ASKED, asking=(A,)), None),
        (HELD, Known(IN), Step(Do.OPEN, A)),
        (replace(HELD, accepted=A), Known(IN), Step(Do.DENY)),
        (replace(HELD, accepted=B), Known(IN), Step(Do.OPEN, A)),
        (HELD, Known(KNOWN), Step(Do.DENY)),
        (replace(HELD, accepted=B), Known(KNOWN), Step(Do.DENY)),
        (HELD, Known(replace(KNOWN, uid=B)), Step(Do.OPEN, B)),
        (replace(HELD, accepted=A), Known(OUT), Step(Do.MARK)),
        (HELD, Known(OUT), None),
        (replace(HELD, accepts=True), Known(OUT), Step(Do.ADMIT)),
        (replace(HELD, accepts=True), Known(ASKED), None),
        (replace(HELD, accepts=True), Known(ASKED, asking=(A,)), Step(Do.MARK, A)),
        (replace(HELD, accepts=True, accepted=A), Known(ASKED, asking=(A,)), Step(Do.ACCEPT, A)),
        (replace(HELD, accepts=True), Known(ASKED, asking=(A, B)), None),
        (replace(HELD, accepts=True, wanted=B), Known(ASKED, asking=(A, B)), Step(Do.MARK, B)),
        (replace(HELD, accepts=True, secret="ns/s"), Known(ASKED, asking=(A,)), None),
        (replace(HELD, accepts=True), Known(IN), Step(Do.NOTE, A)),
        (replace(HELD, accepts=True), Known(KNOWN), Step(Do.MARK, A)),
        (replace(HELD, accepts=True, accepted=A, wanted=B), Known(KNOWN), Step(Do.MARK, A)),
        (replace(HELD, accepts=True, accepted=A), Known(IN), Step(Do.NOTE, A)),
        (replace(HELD, accepts=True, accepted=A), Known(KNOWN), None),
    ],
)  # fmt: skip
def test_what_is_done_next(found: Declared | None, known: Known, step: Step | None) -> None:
    assert next_step(found, known) == step


def test_who_has_to_choose_is_told() -> None:
    several = Known(ASKED, asking=(A, B))
    assert CLUSTER_ID in problem(replace(HELD, accepts=True), several)
    assert not problem(HELD, several)
    assert not problem(replace(HELD, accepts=True, wanted=A), several)


@dataclass
class World:
    """Both sides, as they are in truth, and everything that a person may do to them."""

    found: Declared | None = None
    known: Known = field(default_factory=Known)
    now: float = 100.0
    steps: list[Do] = field(default_factory=list)

    # --- people

    def declare(self) -> None:
        self.found = self.found or NEW

    def undeclare(self) -> None:
        """kubectl delete: without a finalizer it is gone at once."""
        if self.found is not None:
            self.found = replace(self.found, deleting=True) if self.found.finalizers else None

    def vanish(self) -> None:
        """Somebody takes the finalizer off by hand, or the CRD away."""
        self.found = None

    def accept_at_hub(self) -> None:
        self.edit(accepts=True)

    def take_back(self) -> None:
        self.edit(accepts=False)

    def label(self) -> None:
        self.edit(labels=(("env", "prod"),))

    def choose(self) -> None:
        self.edit(wanted=B)

    def scribble(self) -> None:
        self.edit(accepted=B)

    def strip(self) -> None:
        """A klusterlet may edit the annotations of its own."""
        self.edit(accepted="", wanted="")

    def replace(self) -> None:
        """kubectl replace, of a file that says neither."""
        self.edit(accepts=False, accepted="", wanted="")

    def edit(self, **changes: object) -> None:
        if self.found is not None:
            self.found = replace(self.found, **changes)  # type: ignore[arg-type]  # of several fields

    def ask(self) -> None:
        if self.known.cluster is not None:
            self.known = replace(self.known, asking=(A,))

    def ask_both(self) -> None:
        if self.known.cluster is not None:
            self.known = replace(self.known, asking=(A, B))

    def add(self) -> None:
        if self.known.cluster is None:
            self.known = replace(self.known, cluster=Cluster("edge", labels=(("zone", "eu"),)))

    def accept(self) -> None:
        cluster = self.known.cluster
        known = cluster.hub_accepted if cluster is not None and not cluster.denied else ""
        self.change(uid=A, denied=False, hub_accepted=known)

    def switch(self) -> None:
        self.change(uid=B)

    def remove(self) -> None:
        if self.known.cluster is not None and not self.known.cluster.phase:
            self.change(phase=TERMINATING)
            self.known = replace(self.known, removal=Removal("edge", self.now))

    def removed(self) -> None:
        """The remover has done it."""
        removal, cluster = self.known.removal, self.known.cluster
        if cluster is not None and cluster.phase and removal is not None:
            self.known = Known(None, replace(removal, finished=self.now))

    def restored(self) -> None:
        """The server's file was lost."""
        self.known = Known()

    def change(self, **changes: object) -> None:
        cluster = self.known.cluster
        if cluster is not None and not cluster.phase:
            self.known = replace(self.known, cluster=replace(cluster, **changes), asking=())  # type: ignore[arg-type]

    # --- the server

    def step(self) -> bool:
        self.now += 1
        step = next_step(self.found, self.known)
        if step is None:
            return False
        self.steps.append(step.do)
        (self._hub if step.do in AT_THE_HUB else self._registry)(step)
        return True

    def _hub(self, step: Step) -> None:
        found, cluster = self.found, self.known.cluster
        if step.do is Do.CREATE:
            assert found is None
            assert cluster is not None
            self.found = replace(HELD, labels=cluster.labels, accepts=bool(step.uid), accepted=step.uid, since=self.now)
            return
        assert found is not None
        if step.do is Do.HOLD:
            labels = dict(cluster.labels if cluster is not None else ()) | dict(found.labels)
            self.found = replace(found, finalizers=(FINALIZER,), labels=tuple(sorted(labels.items())), since=self.now)
        elif step.do in (Do.MARK, Do.OPEN):
            wanted = step.uid if found.wanted and step.uid else found.wanted
            self.found = replace(found, accepted=step.uid, wanted=wanted, accepts=found.accepts or step.do is Do.OPEN)
        elif step.do is Do.DELETE:
            self.undeclare()
        else:
            assert found.deleting
            self.found = None

    def _registry(self, step: Step) -> None:
        found = self.found
        assert found is not None
        if step.do is Do.REGISTER:
            self.known = Known(Cluster("edge", labels=found.labels), self.known.removal)
        elif step.do is Do.RELABEL:
            self.change(labels=found.labels)
        elif step.do is Do.ACCEPT:
            self.change(uid=step.uid)
        elif step.do in (Do.DENY, Do.ADMIT):
            self.change(denied=step.do is Do.DENY, hub_accepted="")
        elif step.do is Do.NOTE:
            self.change(hub_accepted=step.uid)
        elif step.do is Do.REMOVE:
            self.remove()

    def quiet(self) -> None:
        """Until nothing is left to do; a removal is done meanwhile."""
        for _ in range(20):
            if not self.step():
                self.removed()
                if not self.step():
                    return
        raise AssertionError(f"no end: {[one.value for one in self.steps]}")


PEOPLE = [
    "declare", "undeclare", "vanish", "accept_at_hub", "take_back", "label", "choose", "scribble", "strip", "replace",
    "ask", "ask_both", "add", "accept", "switch", "remove", "removed", "restored", "step",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PEOPLE), max_size=14))
def test_from_wherever_they_are_both_sides_come_to_agree_and_are_quiet(acts: list[str]) -> None:
    world = World()
    for act in acts:
        getattr(world, act)()
    world.quiet()
    world.steps.clear()
    assert not world.step(), "a step where all was done"
    found, cluster = world.found, world.known.cluster
    assert (found is None) == (cluster is None)
    if found is not None and cluster is not None:
        assert dict(found.labels) == dict(cluster.labels)
        accepted = world.known.accepted
        assert not accepted or found.accepts, "the hub says who is in"
        assert found.accepted == accepted or not accepted


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(["label", "choose", "scribble", "strip", "step"]), max_size=4),
    st.sampled_from(["take_back", "replace"]),
    st.lists(st.sampled_from(PEOPLE), max_size=10),
)
def test_what_the_hub_has_taken_back_stays_out_until_somebody_lets_it_in(
    before: list[str], back: str, acts: list[str]
) -> None:
    world = World()
    world.add()
    world.accept()
    world.quiet()
    for act in (*before, back):
        getattr(world, act)()
    world.quiet()
    lets_in = {"accept_at_hub", "accept", "restored", "removed", "remove", "undeclare"}
    for act in acts:
        if act not in lets_in:
            getattr(world, act)()
    world.quiet()
    assert not world.known.accepted


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PEOPLE), max_size=10))
def test_a_cluster_is_removed_by_a_deletion_and_by_nothing_else(acts: list[str]) -> None:
    world = World()
    world.add()
    world.accept()
    world.quiet()
    for act in acts:
        if act not in ("undeclare", "remove", "removed", "restored"):
            getattr(world, act)()
    world.quiet()
    assert world.known.cluster is not None
    assert Do.REMOVE not in world.steps
    assert Do.DELETE not in world.steps
