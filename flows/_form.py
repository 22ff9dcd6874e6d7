"""The flow behind the form of each workflow in Prefect's pages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime  # noqa: F401 - the annotations are read when the form is made
from typing import Any

from prefect import Flow, State, flow

from certrail.model import Workflow
from tasks._form import At, Chosen, Location, When, Who, Why, run_form
from tasks._run import StepTask


def form_of(workflow: Workflow, steps: Sequence[StepTask]) -> Flow[..., Any]:
    """Return the flow that an administrator starts from Prefect's pages."""

    @flow(name=workflow.value, validate_parameters=False, persist_result=False)
    async def start_request(
        location: Location,
        action: Chosen = "enroll or renew",
        when: When = "now",
        at: At = None,
        reason: Why = "",
        requested_by: Who = "",
    ) -> State[Any]:
        """Check the request, then run its documented steps."""
        fields = {
            "location": location,
            "action": action,
            "when": when,
            "at": at,
            "reason": reason,
            "requested_by": requested_by,
        }
        return await run_form(workflow, steps, fields)

    return start_request
