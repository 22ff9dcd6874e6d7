"""The vocabulary of lifecycle events: what each is called, how grave it is, what it says.

An event has a full name (``certrail.request.failed``), which Prefect and
webhooks see, and a short one (``automation-failed``), which people write into
configuration files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from fnmatch import fnmatchcase

from certrail.errors import InvalidRequest

PREFIX = "certrail."


class Severity(StrEnum):
    """How soon somebody should look."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for the least grave."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of event.

    Attributes:
        name: full name.
        slug: short name, used in configuration files.
        severity: how grave it is when nothing in the event says otherwise.
        title: what happened, for a subject line that goes on with the place.
        needs: what is asked of the reader, "" if nothing.
    """

    name: str
    slug: str
    severity: Severity
    title: str
    needs: str = ""


_INFO, _WARNING = Severity.INFO, Severity.WARNING
_ERROR, _CRITICAL = Severity.ERROR, Severity.CRITICAL

KINDS = (
    Kind("certrail.request.scheduled", "automation-scheduled", _INFO, "Automation scheduled"),
    Kind("certrail.request.started", "automation-started", _INFO, "Automation started"),
    Kind("certrail.request.completed", "automation-completed", _INFO, "Automation successful"),
    Kind(
        "certrail.request.failed",
        "automation-failed",
        _ERROR,
        "Automation failed",
        "Remove the cause, then retry; a retry makes no second order.",
    ),
    Kind("certrail.request.cancelled", "automation-cancelled", _WARNING, "Automation cancelled"),
    Kind(
        "certrail.request.rolled-back",
        "automation-rolled-back",
        _WARNING,
        "Previous certificate put back",
        "The new certificate is kept; a retry installs it.",
    ),
    Kind(
        "certrail.request.approval-pending",
        "approval-pending",
        _WARNING,
        "Approval pending",
        "Approve or deny it.",
    ),
    Kind("certrail.step.completed", "step-completed", _INFO, "Step completed"),
    Kind("certrail.step.failed", "step-failed", _WARNING, "Step failed"),
    Kind("certrail.step.skipped", "step-skipped", _INFO, "Step skipped"),
    Kind("certrail.certificate.issued", "certificate-issued", _INFO, "Certificate issued"),
    Kind("certrail.certificate.installed", "certificate-installed", _INFO, "Certificate installed"),
    Kind("certrail.certificate.delivered", "certificate-delivered", _INFO, "Certificate delivered"),
    Kind(
        "certrail.certificate.expiring",
        "certificate-expiring",
        _WARNING,
        "Certificate expires soon",
        "Renew it, or find out why it was not renewed.",
    ),
    Kind(
        "certrail.certificate.expired",
        "certificate-expired",
        _CRITICAL,
        "Certificate expired",
        "Clients are refusing it now. Renew it at once.",
    ),
    Kind(
        "certrail.certificate.drifted",
        "certificate-drifted",
        _ERROR,
        "Another certificate is served than the one installed",
        "Find out who changed it; a redeploy puts ours back without an order.",
    ),
    Kind("certrail.job.started", "job-started", _INFO, "Bulk automation job started"),
    Kind("certrail.job.completed", "job-completed", _INFO, "Bulk automation job completed"),
    Kind(
        "certrail.job.failed",
        "job-failed",
        _ERROR,
        "Bulk automation job failed",
        "Look at the failures by cause, then retry the failed ones.",
    ),
    Kind(
        "certrail.job.failed-in-part",
        "job-failed-in-part",
        _ERROR,
        "Bulk automation job failed in part",
        "Look at the failures by cause, then retry the failed ones.",
    ),
    Kind("certrail.job.cancelled", "job-cancelled", _WARNING, "Bulk automation job cancelled"),
    Kind(
        "certrail.job.paused",
        "job-paused",
        _WARNING,
        "Bulk automation job paused",
        "Resume or cancel it.",
    ),
    Kind(
        "certrail.executor.silent",
        "executor-silent",
        _ERROR,
        "Agent or sensor is down",
        "Start it again; its requests wait and go on by themselves.",
    ),
    Kind("certrail.executor.recovered", "executor-recovered", _INFO, "Agent or sensor is back"),
    Kind(
        "certrail.run.failed",
        "run-failed",
        _ERROR,
        "Prefect run failed",
        "A run of Certrail's own upkeep failed: look at its log.",
    ),
    Kind(
        "certrail.run.crashed",
        "run-crashed",
        _ERROR,
        "Prefect run crashed",
        "Reconciliation goes on with requests by itself; if this repeats, look at the worker.",
    ),
    Kind(
        "certrail.run.late",
        "run-late",
        _ERROR,
        "Prefect run is late",
        "No worker takes it: see which pool is unserved.",
    ),
    Kind(
        "certrail.renewal.overdue",
        "renewal-overdue",
        _CRITICAL,
        "Renewal is overdue",
        "It should have been renewed by now and was not.",
    ),
    Kind(
        "certrail.system.silent",
        "nothing-happened",
        _CRITICAL,
        "Nothing happened",
        "Something that runs regularly did not: see whether server and workers run.",
    ),
    Kind("certrail.report.ready", "report-ready", _INFO, "Report is ready"),
    Kind("certrail.test", "test", _INFO, "Test message"),
)

_BY_NAME = {kind.name: kind for kind in KINDS}
_BY_SLUG = {kind.slug: kind for kind in KINDS}
_NEVER_BY_PATTERN = frozenset({"test"})


DEFAULT_SLUGS = (
    "automation-failed",
    "automation-rolled-back",
    "approval-pending",
    "certificate-expiring",
    "certificate-expired",
    "certificate-drifted",
    "job-failed",
    "job-failed-in-part",
    "job-paused",
    "executor-silent",
    "executor-recovered",
    "run-failed",
    "run-crashed",
    "run-late",
    "renewal-overdue",
    "nothing-happened",
)
"""What people are told of when they do not say: what needs somebody, and that it is over."""


def kind_of(name: str) -> Kind:
    """Return what is known of the event *name*; an unknown one is information only."""
    found = _BY_NAME.get(name)
    if found is not None:
        return found
    slug = name.removeprefix(PREFIX).replace(".", "-")
    return Kind(name, slug, Severity.INFO, slug.replace("-", " ").capitalize())


def matches(patterns: Iterable[str], kind: Kind) -> bool:
    """Return whether one of *patterns* means *kind*.

    A pattern is a short or a full name, ``all``, or has ``*`` in it
    (``certificate-*``).
    """
    for pattern in patterns:
        if pattern == "all" and kind.slug not in _NEVER_BY_PATTERN:
            return True
        if fnmatchcase(kind.slug, pattern) or fnmatchcase(kind.name, pattern):
            return True
    return False


def check_pattern(pattern: str) -> str:
    """Return *pattern* if it means at least one kind of event.

    Raises:
        InvalidRequest: it means none.
    """
    if pattern == "all" or any(matches((pattern,), kind) for kind in KINDS):
        return pattern
    near = get_close_matches(pattern, list(_BY_SLUG), n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(_BY_SLUG)}."
    raise InvalidRequest(f"there is no event {pattern!r}", remedy=hint)
