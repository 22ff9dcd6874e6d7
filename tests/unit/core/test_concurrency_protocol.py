"""Every order of steps of two runs, a reconciler and crashes between: one order, nothing lost."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.support.protocol_model import Protocol, explore

# What breaks without it; the model would be worth nothing if it could not tell.
NEEDED_FOR = {
    "unique_order": "doubled",
    "named_lock": "doubled",
    "asks_ca": "doubled",
    "intent_first": "doubled",
    "expires": "lost",
    "reconciles": "lost",
    "holder_ends": "usurped",
}


def test_no_order_of_steps_doubles_or_loses_anything() -> None:
    """All interleavings and all crashes, not some of them."""
    found = explore(Protocol())

    assert found.count > 1_000
    assert (found.doubled, found.lost, found.usurped, found.left) == (0, 0, 0, 0)


def test_every_part_of_the_protocol_is_tried_without() -> None:
    """A part that is added has to show what it is for."""
    assert {field.name for field in fields(Protocol)} == {"lease", *NEEDED_FOR}


@pytest.mark.parametrize(("part", "broken"), NEEDED_FOR.items())
def test_without_one_of_its_parts_the_protocol_breaks(part: str, broken: str) -> None:
    """Each part is there for a reason, and the walk finds it."""
    found = explore(Protocol(**{part: False}))

    assert getattr(found, broken) > 0


def test_the_lease_keeps_runs_apart() -> None:
    """Unless it runs out under a slow one; then the other parts hold."""
    assert explore(Protocol(expires=False)).crowded == 0
    assert explore(Protocol(expires=False, lease=False)).crowded > 0
    assert explore(Protocol()).crowded > 0
