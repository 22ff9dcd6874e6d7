"""Setting a server up may be done again and again, and changes only what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from certrail.cli._server import POOL_TYPE, POOLS
from deployments.bootstrap import described
from tests.support.prefect_api import PrefectApi
from tests.support.process import wait_for
from tests.support.stack import ROOT, Stack

TOYS = "tests.support.toy_flows"


def _run(installation: Stack, *command: str) -> subprocess.CompletedProcess[str]:
    env = {
        **installation.env,
        "PREFECT_API_URL": installation.api_url,
        "PREFECT_HOME": str(installation.data_dir / "client"),
    }
    return subprocess.run(
        command, env=env, cwd=ROOT, text=True, capture_output=True, check=False, timeout=120
    )


def _deployments(api: PrefectApi) -> dict[str, Any]:
    entrypoints = {entry.entrypoint for entry in described()}
    found = api.post("/deployments/filter")
    return {d["entrypoint"]: d for d in found if d["entrypoint"] in entrypoints}


def _unmoved(deployments: dict[str, Any]) -> dict[str, Any]:
    return {
        entrypoint: {key: d[key] for key in ("id", "version", "schedules", "work_pool_name")}
        for entrypoint, d in deployments.items()
    }


def test_every_entrypoint_imports_and_is_deployed(installation: Stack, api: PrefectApi) -> None:
    """Prefect deploys a flow whose import fails, and it breaks when it runs."""
    flows = {entry.entrypoint: entry.load() for entry in described()}

    assert set(_deployments(api)) == set(flows)


def test_schedules_make_runs(installation: Stack, api: PrefectApi) -> None:
    """With SQLAlchemy 2.1 Prefect's scheduler fails at each turn and only its log tells."""
    reconcile = _deployments(api)["flows.reconcile.reconcile"]["id"]

    wait_for(lambda: bool(api.runs_of(reconcile)), "runs of the minute job", within=150)


def test_pools_are_of_our_type(installation: Stack, api: PrefectApi) -> None:
    """With Prefect's process type every request would start an interpreter."""
    types = {pool["name"]: pool["type"] for pool in api.post("/work_pools/filter")}

    assert {name: types.get(name) for name in POOLS} == dict.fromkeys(POOLS, POOL_TYPE)


def test_every_connector_can_be_made_in_the_ui(installation: Stack, api: PrefectApi) -> None:
    """The UI offers the block types that the server knows."""
    import blocks  # noqa: F401
    from blocks._base import ConnectorBlock

    known = {kind["slug"] for kind in api.post("/block_types/filter")}

    assert {block.get_block_type_slug() for block in ConnectorBlock.vendors()} <= known


def test_a_second_time_changes_nothing(installation: Stack, api: PrefectApi) -> None:
    """It runs at each start; a schedule that people paused must stay paused."""
    _run(installation, sys.executable, "-m", "deployments.bootstrap")
    scheduled = _deployments(api)["flows.reconcile.reconcile"]
    schedule = scheduled["schedules"][0]["id"]
    api.patch(f"/deployments/{scheduled['id']}/schedules/{schedule}", active=False)
    before = _unmoved(_deployments(api))

    done = _run(installation, sys.executable, "-m", "deployments.bootstrap")

    assert done.returncode == 0, done.stderr
    assert _unmoved(_deployments(api)) == before
    api.patch(f"/deployments/{scheduled['id']}/schedules/{schedule}", active=True)


def test_prefects_own_command_deploys_the_same(installation: Stack, api: PrefectApi) -> None:
    """Who runs Prefect already deploys by its command, into the pools that exist."""
    _run(installation, sys.executable, "-m", "deployments.bootstrap")
    before = _deployments(api)
    prefect = Path(sys.executable).with_name("prefect")
    # Some are not there yet, as on a new server; runs of requests belong to none of them.
    for gone in ("report.report", "inventory_scan.scan_inventory", "report.make_saved_report"):
        api.delete(f"/deployments/{before[f'flows.{gone}']['id']}")
    try:
        done = _run(installation, os.fspath(prefect), "--no-prompt", "deploy", "--all")
        assert done.returncode == 0, done.stdout + done.stderr
        after = _deployments(api)
    finally:
        again = _run(installation, sys.executable, "-m", "deployments.bootstrap")

    assert again.returncode == 0, again.stderr
    assert {name: _described(one) for name, one in after.items()} == {
        name: _described(one) for name, one in before.items()
    }


def _described(deployment: dict[str, Any]) -> dict[str, Any]:
    """What a deployment says of when, where and how often its flow runs."""
    kept = ("name", "work_pool_name", "tags", "parameters", "paused", "concurrency_options")
    limit = deployment["global_concurrency_limit"]
    schedules = [
        {k: v for k, v in one["schedule"].items() if k != "anchor_date"} | {"on": one["active"]}
        for one in deployment["schedules"]
    ]
    return {
        **{key: deployment[key] for key in kept},
        "limit": limit and limit["limit"],
        "schedules": schedules,
    }


def test_runs_missed_while_nobody_worked_do_not_pile_up(
    installation: Stack, api: PrefectApi
) -> None:
    """After a night off, hundreds of runs of the same minute job would begin at once."""
    code = "import asyncio; from deployments.bootstrap import drop_missed as d; asyncio.run(d())"
    now = datetime.now(UTC)
    with api.idle_pool() as pool:
        deployment = api.deploy("toy-missed", f"{TOYS}.five_steps", pool=pool, interval=60)
        window = [(now - timedelta(minutes=10)).isoformat(), now.isoformat()]
        api.post(f"/deployments/{deployment}/schedule", start_time=window[0], end_time=window[1])
        asked_for = api.run(deployment)
        missed = [run for run in api.runs_of(deployment) if run["auto_scheduled"]]
        overdue = [run for run in missed if run["expected_start_time"] < now.isoformat()]
        assert len(overdue) > 1

        done = _run(installation, sys.executable, "-c", code)

        assert done.returncode == 0, done.stderr
        left = {run["id"] for run in api.runs_of(deployment)}
    latest = max(overdue, key=lambda run: str(run["expected_start_time"]))
    assert left & {run["id"] for run in overdue} == {latest["id"]}
    assert asked_for in left
