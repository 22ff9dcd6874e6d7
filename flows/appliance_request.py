"""Request and install a certificate on an appliance or cloud service, through its API."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from certrail.model import Workflow
from flows._form import form_of
from tasks._step import in_order
from tasks._turn import run_in_turn
from tasks.appliance import install
from tasks.csr import generate_csr
from tasks.issuing import issue
from tasks.probe import test_installation

_STEPS = in_order(Workflow.APPLIANCE, generate_csr, issue, install, test_installation)


@flow(name="appliance", validate_parameters=False, persist_result=False)
async def request_appliance_certificate(request_id: str) -> State[Any]:
    """The four documented steps, in order."""
    return await run_in_turn(request_id, Workflow.APPLIANCE, _STEPS)


start_appliance_request = form_of(Workflow.APPLIANCE, _STEPS)
