"""Request and install a certificate on a web server, through ACME."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from certrail.model import Workflow
from flows._form import form_of
from tasks._step import in_order
from tasks._turn import run_in_turn
from tasks.account import ensure_account
from tasks.installation import install
from tasks.issuance import issue
from tasks.probe import test_installation
from tasks.validation import validate_domains

_STEPS = in_order(
    Workflow.WEB_SERVER,
    ensure_account,
    validate_domains,
    issue,
    install,
    test_installation,
)


@flow(name="web-server", validate_parameters=False, persist_result=False)
async def request_web_server_certificate(request_id: str) -> State[Any]:
    """The five documented steps, in order."""
    return await run_in_turn(request_id, Workflow.WEB_SERVER, _STEPS)


start_web_server_request = form_of(Workflow.WEB_SERVER, _STEPS)
