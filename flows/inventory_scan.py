"""What is served now, against what was installed; runs every hour."""

from __future__ import annotations

from typing import Any

from prefect import State, flow
from prefect.states import Completed

from tasks.inventory_scan import ask_executors, look_at_endpoints


@flow(name="inventory-scan", flow_run_name="inventory-scan", persist_result=False)
async def scan_inventory() -> State[Any]:
    """Look at the endpoints of the inventory like a client, and keep what they serve.

    Those that only an agent or sensor reaches are looked at by that one, in a run of its own.
    """
    asked = await ask_executors()
    return Completed(message=await look_at_endpoints() + asked)


@flow(name="executor-scan", flow_run_name="executor-scan {executor}", persist_result=False)
async def scan_behind(executor: str) -> State[Any]:
    """Look, on the agent or sensor that runs this, at the endpoints which it alone reaches.

    Args:
        executor: its name; the run has to be in its queue.
    """
    return Completed(message=await look_at_endpoints(executor))
