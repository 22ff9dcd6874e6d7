"""A crash between a slot and its lease closes no limit for ever."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.prefect_api import PrefectApi
from tests.support.process import wait_for
from tests.support.stack import Stack

NAME = "device:lost-slots"


@pytest.fixture
def api(installation: Stack) -> Iterator[PrefectApi]:
    with closing(PrefectApi(installation.api_url)) as made:
        yield made


def test_slots_without_a_lease_are_given_back(installation: Stack, api: PrefectApi) -> None:
    """Those that somebody holds stay theirs, and a lease that was forgotten runs out."""
    api.post("/v2/concurrency_limits/", name=NAME, limit=3)
    held, lost, forgotten = (lease(api) for _ in range(3))
    (folder,) = installation.data_dir.rglob("concurrency_leases")

    # As after a full disk, or a database that has forgotten that the slot was given back.
    (folder / f"{lost}.json").unlink()
    index = folder / "expirations.json"

    def forget() -> bool:
        # Other leases are written to it meanwhile.
        known = json.loads(index.read_text())
        known.pop(forgotten, None)
        index.write_text(json.dumps(known))
        return forgotten not in json.loads(index.read_text())

    wait_for(forget, "the lease is forgotten", within=10)
    assert slots(api) == 3

    def only_what_is_held() -> bool:
        api.tell(f"/v2/concurrency_limits/leases/{held}/renew", lease_duration=60)
        return slots(api) == 1

    wait_for(only_what_is_held, "the others are free", within=400)

    assert not (folder / f"{forgotten}.json").exists()
    api.tell("/v2/concurrency_limits/decrement-with-lease", lease_id=held)
    assert slots(api) == 0
    api.delete(f"/v2/concurrency_limits/{NAME}")


def lease(api: PrefectApi) -> str:
    taken = api.post(
        "/v2/concurrency_limits/increment-with-lease", names=[NAME], slots=1, lease_duration=60
    )
    return str(taken["lease_id"])


def slots(api: PrefectApi) -> int:
    return int(api.get(f"/v2/concurrency_limits/{NAME}")["active_slots"])
