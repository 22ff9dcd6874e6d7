"""Time zones are looked up once, and checked as before."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import zoneinfo
from prefect.client.schemas.schedules import CronSchedule
from certrail.cli import _timezones

looked = []
original = zoneinfo._tzpath.available_timezones
import prefect.types._datetime as times
times.available_timezones = lambda: looked.append(1) or original()
{remember}
for _ in range(3):
    CronSchedule(cron="0 3 * * *", timezone="Europe/Berlin")
try:
    CronSchedule(cron="0 3 * * *", timezone="Europe/Atlantis")
except ValueError:
    print(len(looked), "refused")
"""


@pytest.mark.parametrize(("remember", "times"), [("", 4), ("_timezones.remember()", 1)])
def test_zones_are_looked_up_once(remember: str, times: int) -> None:
    """In a process of its own, since the worker's and the server's processes keep them."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(remember=remember)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(times), "refused"]
