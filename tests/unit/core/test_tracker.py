"""The documented steps and statuses, word for word."""

from __future__ import annotations

import pytest

from certrail.model import Workflow
from certrail.tracker import ACTIVE, STEPS, Status, StepStatus, Title, task_run_name


def test_the_documented_steps_of_each_workflow() -> None:
    """Every screen shows these titles in this order."""
    assert {
        str(workflow): [str(title) for title in titles] for workflow, titles in STEPS.items()
    } == {
        "web-server": [
            "ACME account created",
            "Domain validated",
            "Certificate issued",
            "Certificate installed",
            "Testing installation",
        ],
        "appliance": [
            "CSR generation",
            "Issuing certificate",
            "Certificate installation",
            "Testing installation",
        ],
        "delivery": ["CSR generation", "Issuing certificate", "Certificate delivery"],
    }


def test_task_runs_carry_number_and_title() -> None:
    """Prefect sorts by what it pleases; the number orders the steps for people."""
    assert (
        task_run_name(Workflow.WEB_SERVER, Title.TESTING_INSTALLATION) == "5. Testing installation"
    )
    assert (
        task_run_name(Workflow.APPLIANCE, Title.TESTING_INSTALLATION) == "4. Testing installation"
    )


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (Status.AUTOMATION_SUCCESSFUL, "Automation successful"),
        (Status.IN_PROGRESS, "In progress"),
        (Status.NOT_CONFIGURED, "Not configured"),
        (Status.AUTO_RENEW_SCHEDULED, "Auto renew scheduled"),
    ],
)
def test_statuses_read_as_documented(status: Status, text: str) -> None:
    """Text on screens, slug in JSON."""
    assert text == status.text


def test_a_finished_request_frees_its_endpoint() -> None:
    """Only these statuses hold the endpoint; a failed request must not block the next."""
    assert not {Status.AUTOMATION_FAILED, Status.AUTOMATION_SUCCESSFUL, Status.CANCELLED} & set(
        ACTIVE
    )


def test_final_step_states() -> None:
    """Nothing more happens to a step in one of these."""
    assert {"completed", "skipped", "failed", "cancelled"} == {
        str(status) for status in StepStatus if status.is_final
    }
