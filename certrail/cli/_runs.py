"""Reading Prefect's records and comparing them with the inventory's, over both APIs."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx

from certrail.agreement import Disagreement, RequestRow, RunRecord, TaskRecord, disagreements
from certrail.cli._server import api_trust
from certrail.errors import Unreachable
from certrail.jobs import agreement as of_jobs
from certrail.jobs.agreement import Shown
from certrail.log import plain
from certrail.model import Workflow
from certrail.settings import Installation
from certrail.store import recorded
from certrail.store.recorded import Scope

_PAGE = 200  # the server's own limit
_CALL_SECONDS = 60.0
_LOOK_AGAIN_SECONDS = 0.5


class Comparison:
    """What was compared: counts, and every disagreement that did not pass by itself.

    Attributes:
        jobs: bulk jobs that are over.
        found: of requests and their steps.
        found_of_jobs: of jobs and their shards.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.task_runs = 0
        self.jobs = 0
        self.found: list[Disagreement] = []
        self.found_of_jobs: list[of_jobs.Disagreement] = []


def compare(found: Installation, scope: Scope, *, settle: timedelta) -> Comparison:
    """Compare the flow runs of all requests and jobs in *scope* with their rows.

    What Prefect records arrives there a moment late, and requests go on while
    they are read: whatever differs is looked at again until *settle* is over.

    Raises:
        Unreachable: Prefect's API or the database does not answer.
    """
    result = Comparison()
    with _Records(found) as records:
        doubtful: list[UUID] = []
        task_runs: dict[UUID, int] = {}
        for page in recorded.pages(scope, _PAGE):
            differences = _differences(page, records, task_runs)
            result.requests += len(page)
            doubtful += {one.request_id for one in differences}
        deadline = time.monotonic() + settle.total_seconds()
        _compare_jobs(scope, records, result)
        while doubtful or result.found_of_jobs:
            result.found = []
            for start in range(0, len(doubtful), _PAGE):
                rows = recorded.rows(doubtful[start : start + _PAGE])
                result.found += _differences(rows, records, task_runs)
            doubtful = list(dict.fromkeys(one.request_id for one in result.found))
            if result.found_of_jobs:
                _compare_jobs(scope, records, result)
            if not (doubtful or result.found_of_jobs) or time.monotonic() > deadline:
                break
            time.sleep(_LOOK_AGAIN_SECONDS)
        result.task_runs = sum(task_runs.values())
    return result


def _differences(
    rows: Sequence[RequestRow], records: _Records, task_runs: dict[UUID, int]
) -> list[Disagreement]:
    """Return what differs; *task_runs* is told how many there are now for each request."""
    runs = records.of(rows)
    for row in rows:
        task_runs[row.id] = sum(len(run.tasks) for run in runs[str(row.id)])
    return [one for row in rows for one in disagreements(row, runs[str(row.id)])]


def _compare_jobs(scope: Scope, records: _Records, result: Comparison) -> None:
    rows = recorded.jobs_over(scope)
    noted = [run for row in rows for run in (row.flow_run_id, *(s.flow_run_id for s in row.shards))]
    shown = records.states([run for run in noted if run])
    result.jobs = len(rows)
    result.found_of_jobs = [one for row in rows for one in of_jobs.disagreements(row, shown)]


class _Records:
    """Prefect's flow runs and task runs, read in pages by its REST API."""

    def __init__(self, found: Installation) -> None:
        user, _, password = found.api_auth.partition(":")
        self._client = httpx.Client(
            base_url=found.api_url,
            timeout=_CALL_SECONDS,
            auth=(user, password) if user else None,
            verify=api_trust(),
            trust_env=False,
        )
        self._flows: dict[str, str] = {}

    def __enter__(self) -> _Records:
        flows = self._post("/flows/filter", flows={"name": {"any_": [str(w) for w in Workflow]}})
        self._flows = {flow["id"]: flow["name"] for flow in flows}
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def of(self, rows: Sequence[RequestRow]) -> dict[str, list[RunRecord]]:
        """Return by request id the runs that its row names or that name it."""
        owners = {str(row.flow_run_id): str(row.id) for row in rows if row.flow_run_id}
        names = sorted({f"{row.action} {row.location}" for row in rows})
        raw: dict[str, dict[str, Any]] = {}
        for ids in _slices(list(owners)):
            raw |= {run["id"]: run for run in self._runs(id={"any_": ids})}
        for some in _slices(names):
            raw |= {run["id"]: run for run in self._runs(name={"any_": some})}
        wanted = {str(row.id) for row in rows}
        kept: dict[str, str] = {}
        for run in raw.values():
            owner = owners.get(run["id"]) or _request_of(run)
            if owner in wanted:
                kept[run["id"]] = owner
        tasks = self._tasks(list(kept))
        found: dict[str, list[RunRecord]] = defaultdict(list)
        for run_id, owner in kept.items():
            found[owner].append(self._record(raw[run_id], tasks[run_id]))
        return found

    def states(self, run_ids: Sequence[UUID]) -> dict[UUID, Shown]:
        """Return the states of those of these flow runs that there are."""
        found: dict[UUID, Shown] = {}
        for some in _slices([str(run_id) for run_id in run_ids]):
            for run in self._pages("/flow_runs/filter", flow_runs={"id": {"any_": some}}):
                kind, state = run["state_type"] or "SCHEDULED", run["state_name"] or "Scheduled"
                found[UUID(run["id"])] = Shown(kind, state)
        return found

    def _runs(self, **which: Any) -> Iterator[dict[str, Any]]:
        flows = {"id": {"any_": list(self._flows)}}
        yield from self._pages("/flow_runs/filter", flows=flows, flow_runs=which)

    def _tasks(self, runs: list[str]) -> dict[str, list[TaskRecord]]:
        found: dict[str, list[TaskRecord]] = defaultdict(list)
        for some in _slices(runs):
            which = {"id": {"any_": some}}
            for task in self._pages("/task_runs/filter", flow_runs=which):
                state = task["state"] or {}
                record = TaskRecord(
                    id=UUID(task["id"]),
                    name=task["name"],
                    attempt=task["flow_run_run_count"],
                    kind=task["state_type"] or "PENDING",
                    state=task["state_name"] or "Pending",
                    message=state.get("message") or "",
                )
                found[task["flow_run_id"]].append(record)
        return found

    def _record(self, run: dict[str, Any], tasks: Iterable[TaskRecord]) -> RunRecord:
        return RunRecord(
            id=UUID(run["id"]),
            name=run["name"],
            flow=self._flows.get(run["flow_id"], "another one"),
            kind=run["state_type"] or "SCHEDULED",
            state=run["state_name"] or "Scheduled",
            run_count=run["run_count"],
            tags=frozenset(run["tags"]),
            labels={key: str(value) for key, value in (run["labels"] or {}).items()},
            request_id=_request_of(run),
            created_at=datetime.fromisoformat(run["created"]),
            tasks=tuple(tasks),
        )

    def _pages(self, path: str, **which: Any) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            page = self._post(path, sort="ID_DESC", limit=_PAGE, offset=offset, **which)
            yield from page
            if len(page) < _PAGE:
                return
            offset += _PAGE

    def _post(self, path: str, **body: Any) -> list[dict[str, Any]]:
        try:
            reply = self._client.post(path, json=body).raise_for_status()
        except httpx.TransportError as exc:
            raise Unreachable(
                f"the Prefect server at {self._client.base_url} does not answer: {plain(exc)}",
                remedy="Start it with `certrail up`, or correct PREFECT_API_URL.",
            ) from exc
        answer: list[dict[str, Any]] = reply.json()
        return answer


def _request_of(run: dict[str, Any]) -> str | None:
    named = (run["labels"] or {}).get("certrail.request") or run["parameters"].get("request_id")
    return str(named) if named else None


def _slices(items: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(items), _PAGE):
        yield items[start : start + _PAGE]
