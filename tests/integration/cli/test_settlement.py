"""Prefect's records are put right when a worker died before it could tell how things ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.cli.conftest import Shell
from tests.support.agreement import must_agree
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
    must_agree(shell.stack, locations=[location])


def test_repeated_runs_that_did_nothing_are_marked(shell: Shell, api: PrefectApi) -> None:
    """Sixty of them an hour would bury the requests; they are deleted after some minutes."""
    reconcile = api.get("/deployments/name/reconcile/every-minute")["id"]

    def idle() -> bool:
        # Cancelled where the run of this minute is under way.
        return bool(api.wait(api.run(reconcile))["state_name"] == "Nothing to do")

    wait_for(idle, "a run of the minute job had nothing to do", within=120)
