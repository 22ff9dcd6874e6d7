"""The documented steps, their states, and what a request or endpoint shows.

The titles are the documented ones, word for word, and are shown in this
order everywhere.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum

from certrail.model import Workflow


class Title(StrEnum):
    """Titles of the documented steps."""

    ACME_ACCOUNT_CREATED = "ACME account created"
    DOMAIN_VALIDATED = "Domain validated"
    CERTIFICATE_ISSUED = "Certificate issued"
    CERTIFICATE_INSTALLED = "Certificate installed"
    TESTING_INSTALLATION = "Testing installation"
    CSR_GENERATION = "CSR generation"
    ISSUING_CERTIFICATE = "Issuing certificate"
    CERTIFICATE_INSTALLATION = "Certificate installation"
    CERTIFICATE_DELIVERY = "Certificate delivery"


STEPS: dict[Workflow, tuple[Title, ...]] = {
    Workflow.WEB_SERVER: (
        Title.ACME_ACCOUNT_CREATED,
        Title.DOMAIN_VALIDATED,
        Title.CERTIFICATE_ISSUED,
        Title.CERTIFICATE_INSTALLED,
        Title.TESTING_INSTALLATION,
    ),
    Workflow.APPLIANCE: (
        Title.CSR_GENERATION,
        Title.ISSUING_CERTIFICATE,
        Title.CERTIFICATE_INSTALLATION,
        Title.TESTING_INSTALLATION,
    ),
    Workflow.DELIVERY: (
        Title.CSR_GENERATION,
        Title.ISSUING_CERTIFICATE,
        Title.CERTIFICATE_DELIVERY,
    ),
}


APPLYING = (
    Title.CERTIFICATE_INSTALLED,
    Title.CERTIFICATE_INSTALLATION,
    Title.CERTIFICATE_DELIVERY,
)
"""Steps that put a certificate where clients see it: they wait for maintenance windows."""


class StepStatus(StrEnum):
    """State of one step. A failed step carries cause, remedy and retryable."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens to the step in this run."""
        return self not in (StepStatus.PENDING, StepStatus.RUNNING)


class Status(StrEnum):
    """Automation status: of a request, and (from its last request) of an endpoint."""

    NOT_CONFIGURED = "not-configured"
    READY = "ready"
    APPROVAL_PENDING = "approval-pending"
    AUTOMATION_SCHEDULED = "automation-scheduled"
    AUTOMATION_REQUESTED = "automation-requested"
    IN_PROGRESS = "in-progress"
    AUTOMATION_SUCCESSFUL = "automation-successful"
    CERTIFICATE_DELIVERED = "certificate-delivered"
    AUTOMATION_FAILED = "automation-failed"
    ACTION_REQUIRED = "action-required"
    CANCELLED = "cancelled"
    AUTO_RENEW_SCHEDULED = "auto-renew-scheduled"
    AUTOMATION_AT_RISK = "automation-at-risk"

    @property
    def text(self) -> str:
        """The status as shown on screens."""
        return self.value.replace("-", " ").capitalize()


ACTIVE = (
    Status.APPROVAL_PENDING,
    Status.AUTOMATION_SCHEDULED,
    Status.AUTOMATION_REQUESTED,
    Status.IN_PROGRESS,
)
"""Statuses of a request that holds its endpoint: a second one cannot be started."""

SUCCESSFUL = (Status.AUTOMATION_SUCCESSFUL, Status.CERTIFICATE_DELIVERED)

FAILED = (Status.AUTOMATION_FAILED, Status.ACTION_REQUIRED)
"""Statuses that an endpoint shows until a person or a later request changes it."""

RESULT_SHOWN_FOR = timedelta(hours=24)
"""How long an endpoint shows a success or cancellation before it goes back to rest."""

AUTOMATIC_REASONS = ("renewal-",)
"""How the reason codes of requests begin that the renewal policy makes."""


def task_run_name(workflow: Workflow, title: Title) -> str:
    """Return the step's title with its number, as Prefect shows it."""
    return f"{STEPS[workflow].index(title) + 1}. {title}"


def endpoint_status(
    *,
    configured: bool,
    last_request: Status | None,
    ended_at: datetime | None = None,
    automatic: bool = False,
    auto_renew: bool = False,
    next_renewal_at: datetime | None = None,
    at_risk: bool = False,
    now: datetime | None = None,
) -> Status:
    """Derive what an endpoint shows from its configuration and its last request.

    The inventory's query decides the same in SQL; a test holds the two together.

    Args:
        configured: whether it has a profile and a target.
        last_request: status of its newest request, None if there was none.
        ended_at: when that request ended.
        automatic: whether that request was made by the renewal policy.
        auto_renew: whether the profile renews by itself.
        next_renewal_at: when it will.
        at_risk: whether something known now would make the next run fail.
        now: aware datetime, the present by default.
    """
    moment = now or datetime.now(UTC)
    if last_request is Status.AUTOMATION_SCHEDULED and automatic:
        return Status.AUTO_RENEW_SCHEDULED
    if last_request is not None and (
        last_request in (*ACTIVE, *FAILED)
        or ended_at is None
        or moment - ended_at < RESULT_SHOWN_FOR
    ):
        return last_request
    if not configured:
        return Status.NOT_CONFIGURED
    if at_risk:
        return Status.AUTOMATION_AT_RISK
    if auto_renew and next_renewal_at is not None:
        return Status.AUTO_RENEW_SCHEDULED
    return Status.READY
