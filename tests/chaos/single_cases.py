"""Counts the cases of ``make chaos``'s second half into ``benchmarks/reliability.md``.

A plugin of pytest, which only that command names: ``pytest -p tests.chaos.single_cases``.
"""

from __future__ import annotations

import datetime
import os
import shlex
import time
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import pytest

from benchmarks.measure import machine
from tests.chaos import report

TITLE = "Single cases"
_OPTION = "--single-cases"
_TOLD = 2000


class End(StrEnum):
    """How a case ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say where the chapter goes."""
    parser.addoption(_OPTION, type=Path, default=report.RESULTS, help="file that gets the counts")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    if not hasattr(config, "workerinput"):  # a process of xdist tells the first one
        config.pluginmanager.register(_Counting(config))


class _Counting:
    """Hears how each phase of each case ended."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._began = time.monotonic()
        self._ends: dict[str, End] = {}
        self._told: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a phase; what is asked at the end of a module is its last case's."""
        before = self._ends.get(report.nodeid, End.PASSED)
        if report.failed:
            self._ends[report.nodeid] = End.FAILED
            self._told[report.nodeid] = str(report.longrepr)[-_TOLD:]
        else:
            self._ends[report.nodeid] = End.SKIPPED if report.skipped else before

    def pytest_sessionfinish(self) -> None:
        """Write the chapter."""
        if not self._ends:
            return
        words = shlex.join(str(word) for word in self._config.invocation_params.args)
        command = f"CHAOS_TIMES={os.environ.get('CHAOS_TIMES', '1')} pytest {words}"
        seconds = time.monotonic() - self._began
        text = chapter(self._ends, self._told, command=command, seconds=seconds)
        report.put(TITLE, text, self._config.getoption(_OPTION))


def chapter(
    ends: Mapping[str, End], told: Mapping[str, str], *, command: str, seconds: float
) -> str:
    """Return the chapter.

    Args:
        ends: of each case, by its id.
        told: what went wrong, of those that failed.
        command: that ran them.
        seconds: that all of them took.
    """
    counts = {end: Counter(_module(one) for one, how in ends.items() if how is end) for end in End}
    rows = "\n".join(
        f"| `{module}` | {' | '.join(str(counts[end][module]) for end in End)} |"
        for module in sorted({_module(one) for one in ends})
    )
    sums = " | ".join(str(counts[end].total()) for end in End)
    wrong = "".join(f"\n`{one}`\n\n```\n{text.strip()}\n```\n" for one, text in told.items())
    return f"""Written by `make chaos`; every figure comes from one run.
One trouble at a time, each at the worst moment: processes and machines that are killed, disks that
are full, clocks that are wrong, replies that are lost or come twice. Each case checks afterwards
what has to hold whatever happened; what takes time is asked once for all cases of a module, and
counts as its last one.

- command: `{command}`
- machine: {machine()}
- date: {datetime.datetime.now(datetime.UTC).date().isoformat()}
- duration: {seconds / 60:.0f} minutes

| module | {" | ".join(End)} |
|---|---|---|---|
{rows}
| all | {sums} |
{wrong}"""


def _module(case: str) -> str:
    return case.partition("::")[0]
