"""Request a certificate and deliver it, without installing it anywhere."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from certrail.model import Workflow
from flows._form import form_of
from tasks._step import in_order
from tasks._turn import run_in_turn
from tasks.csr import generate_csr
from tasks.delivery import deliver
from tasks.issuing import issue

_STEPS = in_order(Workflow.DELIVERY, generate_csr, issue, deliver)


@flow(name="delivery", validate_parameters=False, persist_result=False)
async def request_certificate_delivery(request_id: str) -> State[Any]:
    """The three documented steps, in order."""
    return await run_in_turn(request_id, Workflow.DELIVERY, _STEPS)


start_delivery_request = form_of(Workflow.DELIVERY, _STEPS)
