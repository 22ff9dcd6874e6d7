"""What every test can ask for, and how the suite is divided among processes."""

from __future__ import annotations

import shutil
import tempfile

import pytest
from xdist.remote import Producer

from certrail.heap import keep
from tests.support import distribution, needs
from tests.support.shared import AT_END

pytest_plugins = ["tests.support.database", "tests.support.installation"]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Put temporary files into a folder of this run's own; it goes with the run.

    Its path is short, since sockets lie below it, and no other run of pytest
    closes it to the accounts of servers. To keep it: ``--basetemp``.
    """
    if config.option.basetemp is None:
        config.option.basetemp = tempfile.mkdtemp(prefix="ct-")
        config.add_cleanup(lambda: shutil.rmtree(config.option.basetemp, ignore_errors=True))
    config.add_cleanup(AT_END.close)
    config.addinivalue_line("markers", needs.MEANING)
    config.addinivalue_line("markers", distribution.LAST)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a case lacks, and begin with what takes longest; else the order is random."""
    lacking = [item for item in items if needs.is_lacking(item)]
    config.hook.pytest_deselected(items=lacking)
    items[:] = [item for item in items if item not in set(lacking)]
    items.sort(key=lambda item: distribution.rank(item.path))
    distribution.put_last(items)


def pytest_collection_finish() -> None:
    """Look for garbage among what tests make, not among modules and thousands of tests."""
    keep()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> distribution.Distribution:
    """Divide the suite among processes as :mod:`tests.support.distribution` says."""
    return distribution.Distribution(config, log)
