"""What Prefect's page of a job shows beside its runs: progress, and a table of its endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger
from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)
from prefect.settings import PREFECT_UI_URL

from certrail.job_page import Failure, page
from certrail.jobs.threshold import Wave
from certrail.log import plain
from certrail.request_page import shown
from certrail.store import job_results
from certrail.store.job_results import Cause, Member
from certrail.store.jobs import Job
from certrail.store.request_view import run_url
from certrail.tracker import FAILED, SUCCESSFUL
from certrail.words import counted, quoted
from tasks._job_leases import patiently

_SHOWN_EVERY = 3.0
_AGAIN_SECONDS = 1.0
_PATIENCE_SECONDS = 60.0
_TABLE = "bulk-job-endpoints"
_FAILURES = "bulk-job-failures"
_MOST_ROWS = 2000


class JobPage:
    """The artifacts of one run of a job; *run_id* is that run."""

    def __init__(self, job: Job, run_id: UUID) -> None:
        self._job = job
        self._run_id = run_id
        self._url = run_url(PREFECT_UI_URL.value() or "", run_id)
        self._progress: UUID | None = None
        self._shown = 0.0

    async def show(self, waves: Sequence[Wave], *, last: bool = False) -> None:
        """Show how far the job is; now and then, but always when it is the *last* time."""
        now = asyncio.get_running_loop().time()
        if not last and now - self._shown < _SHOWN_EVERY:
            return
        self._shown = now
        eligible = sum(wave.counts.eligible for wave in waves)
        over = sum(wave.counts.over for wave in waves)
        failed = sum(wave.counts.failed for wave in waves)
        percent = 100.0 * over / max(1, eligible)
        told = f"{over} of {counted(eligible, 'endpoint')} over, {failed} failed"
        said = f"Job **{shown(self._job.name)}**: {told}"
        with suppress(httpx.HTTPError):
            if self._progress is None:
                made = await acreate_progress_artifact(
                    progress=percent, key="bulk-job-progress", description=said
                )
                self._progress = UUID(str(made))
            else:
                await aupdate_progress_artifact(self._progress, progress=percent, description=said)

    async def endpoints(self, message: str, causes: Sequence[Cause]) -> None:
        """Write the table of all endpoints: those that somebody has to look at come first.

        A browser shows two thousand rows in seconds and ten thousand in minutes, so that the
        endpoints of a larger job are in several tables. Those that failed have a page beside it:
        Prefect's newer interface shows a table's cells cut off, and their links as text.

        Prefect's server may be away meanwhile: see :func:`written`.
        """
        listed = await patiently(lambda: job_results.members(self._job.id))
        failures = [_failure(one) for one in listed if one.status in FAILED]
        lost = await written(
            [
                partial(self._write_failures, message, causes, failures),
                *(
                    partial(self._write_table, message, part)
                    for part in parts(sorted(listed, key=_urgency))
                ),
            ]
        )
        for why in lost:
            get_run_logger().warning(
                "A part of the page of the job is missing in Prefect: %s. `certrail endpoint list "
                "--job %s` shows all of its endpoints.",
                *(why, quoted(self._job.name)),
            )

    async def _write_failures(
        self, message: str, causes: Sequence[Cause], failures: Sequence[Failure]
    ) -> None:
        # The page that was written before a retry would go on telling what is corrected.
        if failures or (self._job.run_count > 1 and await self._told_failures()):
            why = f"Why {counted(len(failures), 'endpoint')} of {self._job.name} failed"
            await acreate_markdown_artifact(
                page(self._job.name, self._url, message, causes, failures),
                key=_FAILURES,
                description=why if failures else f"No endpoint of {self._job.name} is left failed",
            )

    async def _write_table(self, message: str, part: Part) -> None:
        await acreate_table_artifact(
            table=[row(member) for member in part.members],
            key=part.key,
            description=f"Job **{shown(self._job.name)}**: {shown(message)}{part.note}",
        )

    async def _told_failures(self) -> bool:
        chosen = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[self._run_id]),
            key=ArtifactFilterKey(any_=[_FAILURES]),
        )
        async with get_client() as client:
            return bool(await client.read_artifacts(artifact_filter=chosen, limit=1))


async def written(
    pieces: Iterable[Callable[[], Awaitable[object]]],
    *,
    within: float = _PATIENCE_SECONDS,
    pause: float = _AGAIN_SECONDS,
) -> list[str]:
    """Write *pieces* into Prefect one after the other, each again while it does not answer.

    After one that is refused, or that the server fails to store until the time is over, the
    others are tried all the same; when nobody answers by then, they are given up too.

    Args:
        pieces: calls that write one of them.
        within: seconds for all of them.
        pause: seconds before the next try.

    Returns:
        Why each that is missing could not be written; the rest that was given up is one of them.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    lost: list[str] = []
    for piece in pieces:
        while True:
            try:
                await piece()
                break
            except httpx.HTTPStatusError as exc:
                is_refused = exc.response.status_code < httpx.codes.INTERNAL_SERVER_ERROR
                if is_refused or loop.time() >= deadline:
                    lost.append(plain(exc))
                    break
            except httpx.HTTPError as exc:
                if loop.time() >= deadline:
                    return [*lost, plain(exc) or type(exc).__name__]
            await asyncio.sleep(pause)
    return lost


@dataclass(frozen=True, slots=True)
class Part:
    """One table of a job's endpoints."""

    key: str
    members: Sequence[Member]
    note: str


def parts(members: Sequence[Member]) -> list[Part]:
    """Divide the endpoints among tables that a browser shows in seconds; at least one."""
    if len(members) <= _MOST_ROWS:
        return [Part(_TABLE, members, "")]
    return [
        Part(
            _TABLE if not first else f"{_TABLE}-{first // _MOST_ROWS + 1}",
            members[first : first + _MOST_ROWS],
            f". Endpoints {first + 1} to {min(first + _MOST_ROWS, len(members))} "
            f"of {len(members)}, failed ones first",
        )
        for first in range(0, len(members), _MOST_ROWS)
    ]


def row(member: Member) -> dict[str, Any]:
    """Return the table's row of an endpoint.

    Prefect renders texts as Markdown, and a message has words of servers and CAs in it.
    """
    page = run_url(PREFECT_UI_URL.value() or "", member.flow_run_id)
    return {
        "endpoint": shown(member.location),
        "status": member.status.text if member.status else "Not eligible",
        "run": f"[open]({page})" if page else str(member.flow_run_id or ""),
        "why": shown(member.message),
        "wave": member.wave or "",
        "seconds": round(member.seconds, 1) if member.seconds is not None else "",
        "request": str(member.request_id or ""),
    }


def _failure(member: Member) -> Failure:
    url = run_url(PREFECT_UI_URL.value() or "", member.flow_run_id)
    return Failure(member.location, url, member.message or "")


def _urgency(member: Member) -> tuple[int, int]:
    if member.status in FAILED:
        return 0, member.position
    return (2 if member.status in SUCCESSFUL else 1), member.position
