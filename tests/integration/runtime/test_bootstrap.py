"""Setting a server up may be done again and again, and changes only what is missing."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from certrail.cli._server import POOL_TYPE, POOLS, asyncpg_url
from certrail.postgres import EmbeddedPostgres
from deployments.bootstrap import described
from tests.support.database import drop
from tests.support.prefect_api import PrefectApi
from tests.support.process import free_port, running, wait_for
from tests.support.stack import ROOT, Stack, environment

TOYS = "tests.support.toy_flows"
PREFECT = os.fspath(Path(sys.executable).with_name("prefect"))


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


def test_prefects_own_command_sets_a_new_server_up_the_same(
    installation: Stack, api: PrefectApi, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """Who runs Prefect already deploys by its command, on a server that has nothing yet."""
    with _bare_server(postgres, tmp_path) as (bare, env):
        assert bare.post("/deployments/filter") == bare.post("/work_pools/filter") == []

        _deploy_all(env)
        first = _everything(bare)
        _deploy_all(env)
        second = _everything(bare)

    for what, before in first.items():
        for key, one in before.items():
            assert second[what][key] == one
        assert second[what].keys() == before.keys()
    up = _everything(api)
    assert set(first["deployments"]) == {(one.entrypoint, one.name) for one in described()}
    for what, alike in (("deployments", _described), ("pools", _pool), ("queues", _queue)):
        ours = {key: alike(one) for key, one in first[what].items()}
        # Beside these, workers of the other server have queues of their own.
        assert ours == {key: alike(up[what][key]) for key in ours}, what
    assert (
        {pool for (pool,) in first["pools"]} == {pool for pool, _ in first["queues"]} == set(POOLS)
    )


@contextmanager
def _bare_server(
    postgres: EmbeddedPostgres, folder: Path
) -> Iterator[tuple[PrefectApi, dict[str, str]]]:
    """Run Prefect's own server; yield its API, and an environment that leads there."""
    name = f"bare_{secrets.token_hex(6)}"
    address = postgres.url("postgres")
    port = free_port()
    env = environment(folder) | {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": asyncpg_url(postgres.url(name)),
    }
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f'create database "{name}"')
    try:
        with (
            closing(PrefectApi(env["PREFECT_API_URL"])) as bare,
            running(
                [PREFECT, "server", "start", "--port", str(port)],
                log=folder / "bare.log",
                ready=bare.answers,
                env=env,
                within=90,
            ),
        ):
            yield bare, env
    finally:
        drop(postgres, name)


def _deploy_all(env: dict[str, str]) -> None:
    done = subprocess.run(
        [PREFECT, "--no-prompt", "deploy", "--all"],
        env=env, cwd=ROOT, text=True, capture_output=True, check=False, timeout=300,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def _everything(api: PrefectApi) -> dict[str, dict[Any, Any]]:
    """Return deployments, pools and their queues; without what workers change all the time."""
    moving = ("updated", "status", "last_polled")
    entrypoints = {entry.entrypoint for entry in described()}

    def still(found: Any) -> Any:
        if isinstance(found, dict):
            return {key: still(one) for key, one in found.items() if key not in moving}
        return [still(one) for one in found] if isinstance(found, list) else found

    def by(found: list[dict[str, Any]], *names: str) -> dict[Any, Any]:
        return {tuple(one[name] for name in names): still(one) for one in found}

    deployments = api.post("/deployments/filter")
    return {
        "deployments": by(
            [one for one in deployments if one["entrypoint"] in entrypoints], "entrypoint", "name"
        ),
        "pools": by(api.post("/work_pools/filter"), "name"),
        "queues": by(api.post("/work_queues/filter"), "work_pool_name", "name"),
    }


def _described(deployment: dict[str, Any]) -> dict[str, Any]:
    """What a deployment says of when, where and how often its flow runs."""
    kept = ("name", "work_pool_name", "tags", "parameters", "paused", "concurrency_options")
    limit = deployment["global_concurrency_limit"]
    schedules = [one["schedule"] | {"on": one["active"]} for one in deployment["schedules"]]
    return {
        **{key: deployment[key] for key in kept},
        "limit": limit and limit["limit"],
        "schedules": schedules,
    }


def _pool(pool: dict[str, Any]) -> dict[str, Any]:
    kept = ("name", "type", "base_job_template", "is_paused", "concurrency_limit")
    return {key: pool[key] for key in kept}


def _queue(queue: dict[str, Any]) -> dict[str, Any]:
    kept = ("name", "work_pool_name", "is_paused", "concurrency_limit", "priority")
    return {key: queue[key] for key in kept}


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
