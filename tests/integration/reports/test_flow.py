"""What looks around regularly, in a whole installation: the dashboard, and what is served."""

from __future__ import annotations

from contextlib import closing

from tasks.report import DASHBOARD_KEY
from tests.support.prefect_api import PrefectApi
from tests.support.process import wait_for
from tests.support.stack import Stack


def test_the_flow_shows_the_dashboard_in_prefect_and_as_a_page(installation: Stack) -> None:
    """Who has only Prefect's pages open sees what needs attention too."""
    with closing(PrefectApi(installation.api_url)) as api:
        (deployment,) = [
            found
            for found in api.post("/deployments/filter")
            if found["entrypoint"] == "flows.report.report"
        ]
        assert deployment["schedules"][0]["schedule"]["interval"] == 900

        run = api.run(deployment["id"])
        ended = api.wait(run)

        assert ended["state_type"] == "COMPLETED", api.logs(run)
        artifact = api.get(f"/artifacts/{DASHBOARD_KEY}/latest")
        assert artifact["flow_run_id"] == run
        assert "Needs attention" in artifact["data"]
    page = installation.data_dir / "reports" / "dashboard.html"
    assert page.read_text().startswith("<!doctype html>")


def test_the_scan_of_the_inventory_says_what_it_found(installation: Stack) -> None:
    """Once an hour, whatever the endpoints of the inventory do."""
    with closing(PrefectApi(installation.api_url)) as api:
        scan = api.get("/deployments/name/inventory-scan/every-hour")["id"]
        said: list[str] = []

        def completed() -> bool:
            # Cancelled where the run of this hour is under way.
            ended = api.wait(api.run(scan), within=300)
            said.append(ended["state"]["message"] or "")
            return bool(ended["state_type"] == "COMPLETED")

        wait_for(completed, "a scan of the inventory", within=300)

    assert "endpoints answered" in said[-1]
