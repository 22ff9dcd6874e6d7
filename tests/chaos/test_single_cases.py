"""What the second half of ``make chaos`` writes: each case once, as what it was at its worst."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.chaos import report
from tests.chaos.single_cases import TITLE
from tests.support.stack import ROOT

_ONE = """
import pytest

@pytest.fixture(scope="module", autouse=True)
def settled():
    yield
    raise AssertionError("still held: a slot")

def test_first(): pass
def test_second(): pass
"""
_OTHER = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_each(number): assert number != 1, "an order was doubled"

def test_left_out(): pytest.skip("no such program")
"""


def test_cases_are_counted_by_module(tmp_path: Path) -> None:
    """What is found at a module's end counts; the other chapters of the page stay."""
    (tmp_path / "test_one.py").write_text(_ONE)
    (tmp_path / "test_other.py").write_text(_OTHER)
    page = tmp_path / "page.md"
    report.put("Storms", "as before", page)

    done = run("test_one.py", "test_other.py", folder=tmp_path, page=page)

    assert done.returncode == 1, done.stdout + done.stderr
    text = page.read_text()
    assert "## Storms\n\nas before\n" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows == [
        "| module | passed | failed | skipped |",
        "|---|---|---|---|",
        "| `test_one.py` | 1 | 1 | 0 |",
        "| `test_other.py` | 2 | 1 | 1 |",
        "| all | 3 | 2 | 1 |",
    ]
    assert "CHAOS_TIMES=5 pytest -p tests.chaos.single_cases" in text
    assert "still held: a slot" in text
    assert "an order was doubled" in text
    assert TITLE in text


def test_a_run_that_is_clean_has_nothing_more_to_tell(tmp_path: Path) -> None:
    """It ends with the table."""
    (tmp_path / "test_clean.py").write_text("def test_it(): pass\n")
    page = tmp_path / "page.md"

    done = run("test_clean.py", folder=tmp_path, page=page)

    assert done.returncode == 0, done.stdout + done.stderr
    assert page.read_text().endswith("| all | 1 | 0 | 0 |\n")


def test_it_is_for_that_command_only() -> None:
    """`make test` would write over what was measured."""
    makefile = (ROOT / "Makefile").read_text().splitlines()
    named = [line for line in makefile if "tests.chaos.single_cases" in line]

    assert len(named) == 1
    assert "CHAOS_TIMES=$(TIMES) $(BIN)/pytest -p tests.chaos.single_cases tests/chaos" in named[0]


def run(*files: str, folder: Path, page: Path) -> subprocess.CompletedProcess[str]:
    """Run pytest with the plugin in *folder*, which knows nothing of this suite."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.chaos.single_cases"),
            *("--single-cases", str(page), "-p", "no:randomly", "-p", "no:cacheprovider", *files),
        ],
        cwd=folder,
        env={**os.environ, "CHAOS_TIMES": "5", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
