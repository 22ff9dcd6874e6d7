"""What is served now, against what was installed; runs every hour."""

from __future__ import annotations

from typing import Any

from prefect import State, flow
from prefect.states import Completed

from tasks.inventory_scan import look_at_endpoints


@flow(name="inventory-scan", flow_run_name="inventory-scan", persist_result=False)
async def scan_inventory() -> State[Any]:
    """Look at the endpoints of the inventory like a client, and keep what they serve."""
    return Completed(message=await look_at_endpoints())
