"""The file of benchmark results: measuring one chapter keeps the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from benchmarks import inventory
from benchmarks.results import chapter, merged
from certrail.store.inventory import parse_filter
from certrail.store.inventory_query import FIELDS

ORDER = ["web-server", "inventory", "bulk"]


def made(name: str, figure: str, day: str = "2027-01-01") -> str:
    return chapter(name, f"## {name.title()}\n\n| {figure} |\n", machine="2 cores", day=day)


def test_a_chapter_is_replaced_and_the_others_are_kept() -> None:
    """A run of hours must not be lost to one of minutes."""
    first = merged(
        "", {"bulk": made("bulk", "9.5/s"), "inventory": made("inventory", "80 ms")}, ORDER
    )

    again = merged(first, {"inventory": made("inventory", "7 ms", "2027-02-02")}, ORDER)

    assert again.index("## Inventory") < again.index("## Bulk")
    assert "| 9.5/s |" in again
    assert "80 ms" not in again
    assert again.count("## Inventory") == 1
    assert "Measured on 2027-02-02 by `python -m benchmarks --only inventory`: 2 cores." in again
    assert merged(again, {}, ORDER) == again


def test_what_is_measured_no_more_is_dropped() -> None:
    """Figures of a benchmark that is gone cannot be checked."""
    before = merged("", {"bulk": made("bulk", "1")}, ORDER)

    assert "Bulk" not in merged(before, {}, ["inventory"])


def test_every_filter_is_measured() -> None:
    """ "Instant" holds for the fields that somebody has looked at."""
    asked = {clause.field for text in inventory.FILTERS if text for clause in parse_filter(text)}

    assert asked == set(FIELDS)


def test_a_question_that_finds_nothing_is_not_measured() -> None:
    """Its figure would be that of no answer."""
    asked: dict[str, Callable[[], Sequence[object]]] = {
        "filter `a`": lambda: [1],
        "filter `b`": lambda: [],
        "filter `c`": lambda: (),
    }

    with pytest.raises(RuntimeError, match="filter `b`, filter `c`"):
        inventory.must_find(asked)
    inventory.must_find({"filter `a`": lambda: [1]})
