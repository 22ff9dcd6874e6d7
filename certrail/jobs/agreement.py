"""Whether Prefect shows a bulk job that is over as the inventory has it: pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from certrail.jobs.status import JobStatus
from certrail.words import quoted


class Code(StrEnum):
    """In what a run of a job in Prefect differs from our rows."""

    JOB_RUN_MISSING = "job-run-missing"
    JOB_RUN_STATE = "job-run-state"
    SHARD_RUN_MISSING = "shard-run-missing"
    SHARD_RUN_OPEN = "shard-run-open"


@dataclass(frozen=True, slots=True)
class ShardRow:
    """A shard as the inventory has it; without a flow run it was never begun."""

    number: int
    flow_run_id: UUID | None


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as the inventory has it.

    Attributes:
        run_count: how often a worker took it.
    """

    id: UUID
    name: str
    status: JobStatus
    run_count: int
    flow_run_id: UUID | None
    shards: tuple[ShardRow, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """State of a flow run in Prefect: its type, such as ``COMPLETED``, and its name."""

    kind: str
    state: str


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One difference between Prefect's record of a job and ours.

    Attributes:
        code: its kind.
        job: name of the job.
        flow_run_id: the run, None if none is noted.
        message: what each of both says.
        remedy: what to do about it.
    """

    code: Code
    job: str
    flow_run_id: UUID | None
    message: str
    remedy: str


_FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
_KINDS: Mapping[JobStatus, str] = {
    JobStatus.COMPLETED: "COMPLETED",
    JobStatus.FAILED: "FAILED",
    JobStatus.CANCELLED: "CANCELLED",
}


def disagreements(job: JobRow, shown: Mapping[UUID, Shown]) -> list[Disagreement]:
    """Return what differs between a job that is over and its runs in Prefect.

    Of a job that goes on nothing is compared: its runs come and go.

    Args:
        job: the job with its shards.
        shown: those flow runs of them that Prefect has.
    """
    if not job.status.is_over:
        return []
    return [*_own(job, shown), *_shards(job, shown)]


def _own(job: JobRow, shown: Mapping[UUID, Shown]) -> Iterator[Disagreement]:
    truth = f"The inventory is right: `certrail job show {quoted(job.name)}`."
    run_id = job.flow_run_id
    if run_id is None:
        # One that was cancelled before it was handed to Prefect has none by right.
        if job.run_count:
            message = "a worker ran it, but no flow run is noted for it"
            yield Disagreement(Code.JOB_RUN_MISSING, job.name, None, message, truth)
    elif (run := shown.get(run_id)) is None:
        message = f"Prefect has no flow run {run_id}, which is that of the job"
        yield Disagreement(Code.JOB_RUN_MISSING, job.name, run_id, message, truth)
    elif run.kind != _KINDS[job.status]:
        message = f"the job is {job.status}, its flow run {run_id} {run.state}"
        remedy = (
            f"{truth} If a worker died, the repair that runs every minute ends the run as the job "
            "ended; a run that waits needs a worker: `certrail executor list`."
        )
        yield Disagreement(Code.JOB_RUN_STATE, job.name, run_id, message, remedy)


def _shards(job: JobRow, shown: Mapping[UUID, Shown]) -> Iterator[Disagreement]:
    for shard in job.shards:
        run_id = shard.flow_run_id
        if run_id is None:
            continue
        if (run := shown.get(run_id)) is None:
            message = f"Prefect has no flow run {run_id}, which is that of shard {shard.number}"
            remedy = "Somebody removed it there; what its endpoints came to is in the inventory."
            yield Disagreement(Code.SHARD_RUN_MISSING, job.name, run_id, message, remedy)
        elif run.kind not in _FINAL:
            message = (
                f"the job is {job.status}, the flow run {run_id} of its shard {shard.number} "
                f"still {run.state}"
            )
            remedy = (
                "If its worker died, or nobody takes it, the repair that runs every minute ends "
                "it; if that stays away, `certrail doctor` says why."
            )
            yield Disagreement(Code.SHARD_RUN_OPEN, job.name, run_id, message, remedy)
