"""Prefect's records are put right when a worker died before it could tell how things ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from prefect.client.orchestration import PrefectClient
from psycopg import sql
from sqlalchemy import make_url

from tasks import retelling
from tests.integration.cli.conftest import Shell
from tests.support.agreement import must_agree, repair
from tests.support.prefect_api import PrefectApi
from tests.support.process import wait_for


@pytest.fixture
def api(shell: Shell) -> Iterator[PrefectApi]:
    """Prefect's API."""
    api = PrefectApi(shell.stack.api_url)
    yield api
    api.close()


def _force(api: PrefectApi, kind: str, run: str, state: str) -> None:
    body = {"type": state, "name": state.capitalize()}
    api.post(f"/{kind}/{run}/set_state", state=body, force=True)


def test_what_a_dead_worker_left_open_is_closed_as_our_rows_say(
    shell: Shell, api: PrefectApi
) -> None:
    """Killed between its last commit and its last report, a run would be running for ever."""
    location = shell.location("settled")
    done = shell.json("request", "start", location, "--wait")
    run = done["flow_run_id"]
    must_agree(shell.stack, locations=[location])
    (last,) = [
        one
        for one in api.post("/task_runs/filter", flow_runs={"id": {"any_": [run]}})
        if one["name"].startswith("5. ")
    ]
    earlier = api.post(
        "/task_runs/",
        flow_run_id=run,
        task_key="left",
        dynamic_key="left",
        name="4. Certificate installed",
        state={"type": "RUNNING", "name": "Running"},
    )
    _force(api, "flow_runs", run, "RUNNING")
    reconcile = api.get("/deployments/name/reconcile/every-minute")["id"]
    said: list[str] = []

    def settled() -> bool:
        # Cancelled where the run of this minute is under way.
        said.append(api.wait(api.run(reconcile))["state"]["message"] or "")
        states = [api.read(run)["state_type"]]
        states += [api.get(f"/task_runs/{one['id']}")["state_type"] for one in (last, earlier)]
        return states == ["COMPLETED", "COMPLETED", "CRASHED"]

    wait_for(settled, "the records are settled", within=120)

    assert "died before it could tell" in api.read(run)["state"]["message"]
    assert any("flow runs: " in one for one in said)
    assert any("task runs: " in one for one in said)
    assert [one["action"] for one in _repairs(shell, run)] == ["repair.end-run"]
    assert [one["action"] for one in _repairs(shell, earlier["id"])] == ["repair.end-step"]
    must_agree(shell.stack, locations=[location])


def test_what_did_not_arrive_at_prefect_is_told_again(
    shell: Shell, api: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker says goes over a connection that can break; our rows know how steps ended."""
    location = shell.location("untold")
    run = shell.json("request", "start", location, "--wait")["flow_run_id"]
    must_agree(shell.stack, locations=[location])
    with psycopg.connect(shell.stack.database_url) as connection:
        # The installation's own repair has it behind itself then.
        ended = connection.execute(
            "update requests set ended_at = ended_at - interval '1 day' where flow_run_id = %s"
            " returning ended_at",
            [run],
        ).fetchone()
    assert ended is not None
    tasks = sorted(
        api.post("/task_runs/filter", flow_runs={"id": {"any_": [run]}}),
        key=lambda one: str(one["name"]),
    )
    for lost in tasks[:2]:
        api.delete(f"/task_runs/{lost['id']}")
    _force(api, "task_runs", tasks[3]["id"], "CRASHED")
    _force(api, "flow_runs", run, "FAILED")
    monkeypatch.setenv("CERTRAIL_DATABASE_URL", shell.stack.database_url)
    monkeypatch.setattr(retelling, "_reached", ended[0] - timedelta(seconds=1))
    day = timedelta(days=1) - timedelta(minutes=10)

    async def retell() -> tuple[list[str], list[str]]:
        async with PrefectClient(shell.stack.api_url) as client:
            seen = await retelling.retell(client, day)
            assert not seen.short
            return [name for name, _ in seen.told], [str(one.id) for one in seen.wrong]

    first, second = asyncio.run(retell()), asyncio.run(retell())
    _force(api, "flow_runs", run, "COMPLETED")

    assert first == ([tasks[0]["name"], tasks[1]["name"], tasks[3]["name"]], [run])
    assert second == ([], [])
    must_agree(shell.stack, locations=[location])


def test_a_beginning_that_prefects_database_forgot_is_counted_again(
    shell: Shell, api: PrefectApi
) -> None:
    """It does not wait for the disk; a kill takes the last moments, here the one of Running."""
    location = shell.location("forgotten")
    run = shell.json("request", "start", location, "--wait")["flow_run_id"]
    own = make_url(shell.stack.database_url).set(database="prefect")
    with psycopg.connect(own.render_as_string(hide_password=False)) as connection:
        connection.execute("update flow_run set run_count = 0 where id = %s", [run])
    assert api.read(run)["run_count"] == 0
    ended = api.read(run)["state"]

    def counted() -> bool:
        repair(api)
        return bool(api.read(run)["run_count"] == 1)

    wait_for(counted, "the run is counted again", within=180)

    shown = api.read(run)["state"]
    assert (shown["type"], shown["name"], shown["message"]) == (
        *(ended["type"], ended["name"]),
        ended["message"],
    )
    assert [one["action"] for one in _repairs(shell, run)] == ["repair.count-run"]
    must_agree(shell.stack, locations=[location])


def _age(shell: Shell, table: str, key: str, column: str, minutes: int) -> None:
    """Let a record of Prefect's be older than it is."""
    url = make_url(shell.stack.database_url).set(database="prefect", drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        connection.execute(
            sql.SQL("update {} set {column} = {column} - {} where {} = %s").format(
                sql.Identifier(table),
                sql.Literal(timedelta(minutes=minutes)),
                sql.Identifier("name" if table == "concurrency_limit_v2" else "flow_run_id"),
                column=sql.Identifier(column),
            ),
            [key],
        )


def _repairs(shell: Shell, object_: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shell.json("audit", "list", "--object", object_)
    return found


def test_what_the_dead_hold_is_given_back(shell: Shell, api: PrefectApi) -> None:
    """Housekeeping that is Pending for ever, and a slot of its limit that no run has any more."""
    reconcile = api.get("/deployments/name/reconcile/every-minute")["id"]
    with api.idle_pool() as pool:
        known = api.post("/flows/", name="held")
        deployment = api.post(
            "/deployments/",
            name="held",
            flow_id=known["id"],
            entrypoint="flows.report.report",
            work_pool_name=pool,
            tags=["housekeeping"],
            concurrency_limit=1,
        )
        limit = deployment["global_concurrency_limit"]["name"]
        run = api.run(deployment["id"])
        # A worker took it, and with it the only slot, and died.
        api.set_state(run, "PENDING")

        def slots() -> int:
            return int(api.get(f"/v2/concurrency_limits/{limit}")["active_slots"])

        assert slots() == 1
        _age(shell, "flow_run_state", run, "timestamp", 11)

        def ended() -> bool:
            api.wait(api.run(reconcile))
            return bool(api.read(run)["state_type"] == "CRASHED")

        wait_for(ended, "the dead run is ended", within=120)
        assert slots() == 0
        (repair,) = _repairs(shell, run)
        assert (repair["action"], repair["actor"]) == ("repair.end-run", "reconcile")
        assert repair["detail"]["was"] == "Pending"

        # The lease was lost with the server's memory: the slot is taken and nobody has it.
        api.patch(f"/v2/concurrency_limits/{limit}", active_slots=1)
        _age(shell, "concurrency_limit_v2", limit, "updated", 6)

        def freed() -> bool:
            api.wait(api.run(reconcile))
            return slots() == 0

        wait_for(freed, "the slot is free", within=120)
        (repair,) = _repairs(shell, "held")
        assert repair["action"] == "repair.free-slots"
        assert repair["detail"] == {"limit": limit, "held": 1, "used": 0}
        api.delete(f"/deployments/{deployment['id']}")


def test_a_run_that_no_request_has_is_ended(shell: Shell, api: PrefectApi) -> None:
    """Its request was taken over by another run, or is in no inventory any more."""
    reconcile = api.get("/deployments/name/reconcile/every-minute")["id"]
    with api.idle_pool() as pool:
        known = api.post("/flows/", name="web-server")
        deployment = api.post(
            "/deployments/",
            name="stray",
            flow_id=known["id"],
            entrypoint="flows.report.report",
            work_pool_name=pool,
        )["id"]
        run, young = (api.run(deployment, request_id=str(uuid4())) for _ in range(2))
        for one in (run, young):
            api.set_state(one, "PENDING")
            api.set_state(one, "RUNNING")
        _age(shell, "flow_run_state", run, "timestamp", 11)

        def ended() -> bool:
            api.wait(api.run(reconcile))
            return bool(api.read(run)["state_type"] == "CRASHED")

        wait_for(ended, "the stray run is ended", within=120)

        assert "No request belongs to it" in api.read(run)["state"]["message"]
        assert api.read(young)["state_type"] == "RUNNING"
        (repair,) = _repairs(shell, run)
        assert (repair["action"], repair["detail"]["was"]) == ("repair.end-run", "Running")
        api.delete(f"/deployments/{deployment}")


def test_repeated_runs_that_did_nothing_are_marked(shell: Shell, api: PrefectApi) -> None:
    """Sixty of them an hour would bury the requests; they are deleted after some minutes."""
    reconcile = api.get("/deployments/name/reconcile/every-minute")["id"]

    def idle() -> bool:
        # Cancelled where the run of this minute is under way.
        return bool(api.wait(api.run(reconcile))["state_name"] == "Nothing to do")

    wait_for(idle, "a run of the minute job had nothing to do", within=120)
