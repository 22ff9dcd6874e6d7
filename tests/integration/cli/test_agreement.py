"""``certrail doctor --runs`` finds every record of Prefect that is not as our rows are."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.integration.cli.conftest import Shell
from tests.support.agreement import must_agree
from tests.support.prefect_api import PrefectApi


@pytest.fixture
def api(shell: Shell) -> Iterator[PrefectApi]:
    """Prefect's API of the installation."""
    api = PrefectApi(shell.stack.api_url)
    yield api
    api.close()


def _crash(api: PrefectApi, run: str) -> None:
    state = {"type": "CRASHED", "name": "Crashed"}
    api.post(f"/flow_runs/{run}/set_state", state=state, force=True)


def _rename(api: PrefectApi, run: str) -> None:
    api.patch(f"/flow_runs/{run}", name="brave-lynx")


def _lose_a_step(api: PrefectApi, run: str) -> None:
    tasks = api.post("/task_runs/filter", flow_runs={"id": {"any_": [run]}})
    api.delete(f"/task_runs/{tasks[0]['id']}")


def _forget(api: PrefectApi, run: str) -> None:
    api.delete(f"/flow_runs/{run}")


def test_what_agrees_passes_and_what_was_spoiled_is_found(shell: Shell, api: PrefectApi) -> None:
    """Bulk and chaos tests trust this check, so it must be able to fail."""
    location = shell.location("agree")
    run = shell.json("request", "start", location, "--wait")["flow_run_id"]
    compared = must_agree(shell.stack, locations=[location])
    found: list[set[str]] = []
    # Reconciliation would put some of it right: it looks at what ended since it last looked.
    with psycopg.connect(shell.stack.database_url) as connection:
        connection.execute(
            "update requests set ended_at = ended_at - interval '2 hours' where flow_run_id = %s",
            [run],
        )

    for spoil in (_rename, _lose_a_step, _crash, _forget):
        spoil(api, run)
        findings = shell.json("doctor", "--runs", "--location", location, "--settle", "0s", code=1)
        found.append({one["check"] for one in findings})

    assert "1 request, 5 task runs" in compared
    assert found == [
        {"run-name"},
        {"run-name", "step-missing"},
        {"run-name", "step-missing", "run-state"},
        {"run-missing"},
    ]
