"""Go back to the certificate before a request, asked for in Prefect's pages."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from tasks._form import Who, Why
from tasks._rollback_form import Force, Which, run_rollback_form


@flow(name="rollback", validate_parameters=False, persist_result=False)
async def start_rollback(
    request: Which, force: Force = False, reason: Why = "", requested_by: Who = ""
) -> State[Any]:
    """Check that there is a way back and make the request that goes it."""
    return await run_rollback_form(
        {"request": request, "force": force, "reason": reason, "requested_by": requested_by}
    )
