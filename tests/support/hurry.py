"""What an installation does every minute, done every few seconds while a test waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.prefect_api import PrefectApi

EVERY_SECONDS = 4


@contextmanager
def hurried(api: PrefectApi, *flows: str) -> Iterator[None]:
    """Let *flows* run every few seconds during the block, set as an operator sets it in Prefect.

    Kill no worker inside: one that died in such a run keeps the run's only
    place for minutes. After the kill nothing stands against it.
    """
    before = {}
    for flow in flows:
        deployment = api.get(f"/deployments/name/{flow}/every-minute")
        for one in deployment["schedules"]:
            before[f"/deployments/{deployment['id']}/schedules/{one['id']}"] = one["schedule"]
    for path in before:
        api.patch(path, schedule={"interval": EVERY_SECONDS})
    try:
        yield
    finally:
        for path, schedule in before.items():
            api.patch(path, schedule=schedule)
