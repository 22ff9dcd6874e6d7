"""Rows of the benchmarks that are kept from one run to the next."""

from __future__ import annotations

from benchmarks.results import chapter, merged, rows_of, with_rows

HEADS = ("endpoints", "workers", "rate")


def test_a_row_replaces_the_one_of_the_same_shape_and_keeps_the_others() -> None:
    """What takes hours is measured in several sittings."""
    first = with_rows(HEADS, (), [("1000", "2", "7/s"), ("100", "1", "5/s")], key=2)
    kept = chapter("bulk-workers", f"## Workers\n\ntext\n\n{first}", machine="m", day="d")
    before = rows_of(merged("", {"bulk-workers": kept}, ["bulk-workers"]), "bulk-workers")

    again = with_rows(HEADS, before, [("1000", "2", "9/s"), ("100", "2", "6/s")], key=2)

    assert again.splitlines()[2:] == [
        "| 100 | 1 | 5/s |",
        "| 100 | 2 | 6/s |",
        "| 1000 | 2 | 9/s |",
    ]
    assert rows_of("", "bulk-workers") == []
    assert with_rows(HEADS[:2], before, [], key=1).count("\n") == 2
