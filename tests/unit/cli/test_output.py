"""What is printed."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

import pytest

from certrail.cli import _columns
from certrail.cli._output import cell, defused, echo_csv, echo_table
from certrail.store.inventory import COLUMNS
from certrail.tracker import Status


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_no_cell_is_taken_for_a_formula(text: str) -> None:
    """Names come from certificates of strangers, and spreadsheets run what begins so."""
    assert defused(text) == f"'{text}"


def test_csv_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Commas, quotes and line breaks in values stay inside of their cell."""
    echo_csv(["a", "b"], [{"a": 'x,"y"', "b": ["1", "2"]}, {"a": None, "b": "=cmd()"}])

    found = list(csv.reader(io.StringIO(capsys.readouterr().out)))

    assert found == [["a", "b"], ['x,"y"', "1 2"], ["", "'=cmd()"]]


def test_remote_text_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """An issuer's name may hold escape sequences."""
    echo_table([("issuer", "Issuer")], [{"issuer": "\x1b[2Jgone\nline"}])

    said = capsys.readouterr().out

    assert "\x1b" not in said
    assert said.count("\n") == 2


def test_tables_are_aligned_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Output is piped into grep and awk: nothing is cut off or broken into lines."""
    rows = [
        {"location": "a:443", "status": Status.AUTOMATION_FAILED, "at": None},
        {"location": "b" * 200 + ":443", "status": Status.READY, "at": None},
    ]
    echo_table([("location", "Location"), ("status", "Status")], rows)

    lines = capsys.readouterr().out.splitlines()

    assert len(lines) == 3
    assert lines[1].endswith("Automation failed")
    assert {
        line.index(word) for line, word in zip(lines, ("Status", "Auto", "Ready"), strict=True)
    } == {206}


def test_findings_are_shown_by_their_codes() -> None:
    """A table has room for a word, JSON has all of it."""
    assert (
        cell([{"code": "weak-key", "message": "…"}, {"code": "self-signed"}])
        == "weak-key self-signed"
    )
    assert cell(True) == "yes"
    assert cell(datetime(2027, 1, 1, tzinfo=UTC)) == "2027-01-01 00:00:00+00:00"


def test_every_column_has_a_heading() -> None:
    """A column that can be asked for must also be shown."""
    assert set(_columns.HEADINGS) == set(COLUMNS)
