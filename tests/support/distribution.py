"""Which tests one process runs when several run the suite (``pytest -n 3``).

Those of a file stay together, since modules share servers. Files that need a
whole installation (:mod:`tests.support.installation`) form two lanes, so that
no more than two are running; a folder with a world of its own stays together.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_ROOT = Path(__file__).resolve().parents[2]
LAST = "runs_last: waits for something that goes on while the other tests of its file run"
_LANES = 2
_INSTALLATION = re.compile(r"\binstallation: (Stack|Any)\b")
# The folders whose tests take longest come first, so that none of them is left for the end.
_SLOWEST_FIRST = ("e2e", "integration/cli", "integration/runtime", "contract", "integration")


class Distribution(LoadScopeScheduling):
    """Gives each process one group of files after the other."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False
        self._lane_of = _lanes()

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return self._lane_of.get(file, file)


def rank(file: Path) -> int:
    """Return the place of a test file in the order of execution, 0 for the first."""
    text = file.as_posix()
    found = (n for n, part in enumerate(_SLOWEST_FIRST) if f"/tests/{part}/" in text)
    return next(found, len(_SLOWEST_FIRST))


def put_last(items: list[pytest.Item]) -> None:
    """Within each file, put the tests marked ``runs_last`` behind the others."""
    first: dict[Path, int] = {}
    for number, item in enumerate(items):
        first.setdefault(item.path, number)
    items.sort(
        key=lambda item: (first[item.path], item.get_closest_marker("runs_last") is not None)
    )


def _lanes() -> dict[str, str]:
    """Return the lane of each file that needs an installation."""
    units: list[list[Path]] = []
    for folder in sorted({path.parent for path in _ROOT.glob("tests/**/test_*.py")}):
        files = sorted(folder.glob("test_*.py"))
        conftest = folder / "conftest.py"
        if conftest.exists() and _INSTALLATION.search(conftest.read_text()):
            units.append(files)
        else:
            units += [[file] for file in files if _INSTALLATION.search(file.read_text())]
    lanes: list[list[Path]] = [[] for _ in range(_LANES)]
    for unit in sorted(units, key=_tests_in, reverse=True):
        min(lanes, key=_tests_in).extend(unit)
    return {
        file.relative_to(_ROOT).as_posix(): f"installation {number}"
        for number, lane in enumerate(lanes)
        for file in lane
    }


def _tests_in(files: list[Path]) -> int:
    return sum(file.read_text().count("def test_") for file in files)
