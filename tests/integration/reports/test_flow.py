"""The report flow in a whole installation: artifact and page."""

from __future__ import annotations

from contextlib import closing

from tasks.report import DASHBOARD_KEY
from tests.support.prefect_api import PrefectApi
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
