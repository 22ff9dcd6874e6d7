"""Housekeeping that lost its next runs, as it does when the server's clock was wrong."""

from __future__ import annotations

import asyncio

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.upcoming import fill
from tests.support.prefect_api import PrefectApi
from tests.support.stack import Stack

TOY = "tests.support.toy_flows.five_steps"
YEARS = 10 * 365 * 86_400


def test_a_deployment_without_a_next_run_gets_one(installation: Stack, api: PrefectApi) -> None:
    """Its schedule is so long that the scheduler makes none; twice in a minute is once."""
    deployment = api.deploy("toy-kept", TOY, interval=YEARS)
    api.patch(f"/deployments/{deployment}", tags=["housekeeping"])

    async def twice() -> list[list[str]]:
        async with get_client() as client:
            return [await fill(client) for _ in range(2)]

    try:
        with temporary_settings({PREFECT_API_URL: installation.api_url}):
            first, _ = asyncio.run(twice())

        assert TOY in first
        runs = api.runs_of(deployment)
        assert runs
        for run in runs:
            assert api.wait(run["id"])["state_type"] == "COMPLETED"
    finally:
        api.delete(f"/deployments/{deployment}")
