"""Saved reports with a schedule in Prefect: each is a deployment of its own, with that schedule."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from certrail.cli import _prefect
from certrail.errors import InvalidRequest, Unreachable
from certrail.log import logger
from certrail.store import reports
from certrail.store.reports import SavedReport
from certrail.words import counted

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.responses import DeploymentResponse

FLOW = "saved-report"
TAG = "saved-report"
"""What tells these deployments from those that people make of the same flow."""

_BASE = f"{FLOW}/by-name"
_PAGE = 200


def deployment_of(name: str) -> str:
    """Return the name, beside the flow's, of the deployment of the report *name*."""
    return f"report-{name}"


def must_be_schedule(report: SavedReport) -> None:
    """Check that Prefect understands when *report* is made.

    Raises:
        InvalidRequest: it does not.
    """
    if report.cron:
        _timing(report, active=True)


def keep() -> Mapping[str, int]:
    """Bring the deployments to what is saved; returns how many were made, changed and removed.

    One that is as it was saved is left alone, with whatever was changed in
    Prefect's pages; one that was paused there stays paused when it is saved anew.

    Raises:
        Unreachable: Prefect's API does not answer, or was not set up.
    """
    from prefect.exceptions import ObjectNotFound

    done: Counter[str] = Counter()
    with _prefect.client() as opened:
        # Before the reports are read: what is saved meanwhile is not taken for a leftover.
        present = {one.name: one for one in _present(opened)}
        wanted = {deployment_of(one.name): one for one in reports.every() if one.cron}
        for name in present.keys() - wanted.keys():
            try:
                opened.delete_deployment(present[name].id)
            except ObjectNotFound:
                continue  # somebody else was faster
            done["removed"] += 1
        base = _base(opened) if wanted else None
        for name, report in wanted.items():
            if base is None:
                break
            version, there = _version(report, base), present.get(name)
            if there is not None and there.version == version:
                continue
            try:
                _deploy(opened, base, report, there, version)
            except InvalidRequest as exc:  # saved by a version that asked less of it
                logger.error("report %s has no schedule: %s", report.name, exc)
                continue
            done["made" if there is None else "changed"] += 1
    return done


def paused() -> set[str]:
    """Return the names of the saved reports whose schedule is switched off in Prefect.

    Raises:
        Unreachable: Prefect's API does not answer.
    """
    with _prefect.client() as opened:
        return {
            str(one.parameters.get("name"))
            for one in _present(opened)
            if one.paused or not any(schedule.active for schedule in one.schedules)
        }


def _present(opened: SyncPrefectClient) -> list[DeploymentResponse]:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    found: list[DeploymentResponse] = []
    while True:
        page = opened.read_deployments(deployment_filter=ours, limit=_PAGE, offset=len(found))
        found += page
        if len(page) < _PAGE:
            return found


def _base(opened: SyncPrefectClient) -> DeploymentResponse:
    from prefect.exceptions import ObjectNotFound

    try:
        return opened.read_deployment_by_name(_BASE)
    except ObjectNotFound as exc:
        raise Unreachable(
            f"Prefect's server has no deployment {_BASE}",
            remedy="`certrail up` makes it; `certrail doctor` says what else is missing.",
        ) from exc


def _deploy(
    opened: SyncPrefectClient,
    base: DeploymentResponse,
    report: SavedReport,
    present: DeploymentResponse | None,
    version: str,
) -> UUID:
    is_off = present is not None and not any(one.active for one in present.schedules)
    return opened.create_deployment(
        flow_id=base.flow_id,
        name=deployment_of(report.name),
        version=version,
        entrypoint=base.entrypoint,
        work_pool_name=base.work_pool_name,
        description=_description(report),
        parameters={"name": report.name},
        tags=["housekeeping", TAG],
        schedules=[_timing(report, active=not is_off)],
        parameter_openapi_schema=base.parameter_openapi_schema,
        enforce_parameter_schema=True,
        paused=present.paused if present is not None else None,
        path=None,
        pull_steps=[],
    )


def _timing(report: SavedReport, *, active: bool) -> DeploymentScheduleCreate:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    try:
        timing = CronSchedule(cron=report.cron, timezone=report.timezone)
    except ValueError as exc:
        raise InvalidRequest(
            f"Prefect cannot read {report.cron!r} as a schedule",
            remedy="Give five plain fields: minute hour day month weekday, such as '0 6 * * mon'.",
        ) from exc
    return DeploymentScheduleCreate(schedule=timing, active=active, slug="saved")


def _description(report: SavedReport) -> str:
    readers: Sequence[str] = report.email
    told = f", mailed to {counted(len(readers), 'reader')}" if readers else ""
    return (
        f"The report **{report.name}** ({report.kind}, {report.format}{told}), as it was saved "
        "with `certrail report save`.\n\nPause it here; `certrail report delete` removes it."
    )


def _version(report: SavedReport, base: DeploymentResponse) -> str:
    """Return what changes when the deployment has to be made anew."""
    told = [report.cron, report.timezone, _description(report), base.version, str(base.flow_id)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]
