"""One round of attempts: the places in turn, and where one of them sends the agent to."""

from __future__ import annotations

from agent.address import Address, Target
from agent.course import MOVES, Course

A, B, C = (Target(Address(host)) for host in ("a", "b", "c"))


def all_of(course: Course) -> list[Target]:
    found = []
    while (target := course.next()) is not None:
        found.append(target)
    return found


def test_each_place_is_tried_once_and_the_last_is_known() -> None:
    course = Course([A, B])
    assert (course.next(), course.last) == (A, False)
    assert (course.next(), course.last) == (B, True)
    assert course.next() is None


def test_where_it_is_sent_to_comes_next_and_then_the_others() -> None:
    course = Course([A, B])
    course.next()
    course.sent_to(C)
    assert all_of(course) == [C, B]


def test_two_that_send_it_to_one_another_end_the_round() -> None:
    course = Course([A, B, C])
    tried = [course.next()]
    while True:
        course.sent_to(A if tried[-1] is B else B)
        target = course.next()
        if target is None:
            break
        tried.append(target)
    assert len(tried) == 1 + MOVES
    assert not course.pending


def test_what_no_other_place_would_answer_differently_ends_it() -> None:
    course = Course([A, B])
    course.next()
    course.give_up()
    assert all_of(course) == []


def test_a_place_that_knows_the_agent_is_the_one_to_come_back_to() -> None:
    course = Course([A, B])
    course.next()
    course.wait()
    assert (course.pending, all_of(course)) == (True, [])
