"""Prefect's REST API, as a test asks it: deploy a flow, start runs, wait for states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.process import wait_for

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class PrefectApi:
    """The API at *url* (which ends in ``/api``)."""

    def __init__(self, url: str, auth: tuple[str, str] | None = None) -> None:
        self._client = httpx.Client(base_url=url, timeout=30, trust_env=False, auth=auth)

    def answers(self) -> bool:
        """Return whether the server is there."""
        try:
            return self._client.get("/health", timeout=5).is_success
        except httpx.TransportError:
            return False

    def get(self, path: str) -> Any:
        """GET *path* and return its JSON."""
        return self._client.get(path).raise_for_status().json()

    def post(self, path: str, **body: Any) -> Any:
        """POST *body* to *path* and return the reply's JSON."""
        return self._client.post(path, json=body).raise_for_status().json()

    def tell(self, path: str, **body: Any) -> None:
        """POST *body* to *path*, which answers nothing."""
        self._client.post(path, json=body).raise_for_status()

    def patch(self, path: str, **body: Any) -> None:
        """PATCH *path* with *body*."""
        self._client.patch(path, json=body).raise_for_status()

    def put(self, path: str, body: Any) -> None:
        """PUT *body* to *path*."""
        self._client.put(path, json=body).raise_for_status()

    def delete(self, path: str) -> None:
        """DELETE *path*."""
        self._client.delete(path).raise_for_status()

    @contextmanager
    def idle_pool(self) -> Iterator[str]:
        """Make a work pool that no worker serves; yield its name, delete it afterwards."""
        self.post("/work_pools/", name="idle", type="certrail")
        yield "idle"
        self._client.delete("/work_pools/idle").raise_for_status()

    def runs_of(self, deployment: str) -> list[dict[str, Any]]:
        """Return the runs of a deployment."""
        found: list[dict[str, Any]] = self.post(
            "/flow_runs/filter", deployments={"id": {"any_": [deployment]}}
        )
        return found

    def deployments(self) -> list[str]:
        """Return the names of all deployments, beside their flows'."""
        return [one["name"] for one in self.post("/deployments/filter")]

    def deploy(
        self,
        flow: str,
        entrypoint: str,
        pool: str = "agents",
        queue: str | None = None,
        interval: int | None = None,
    ) -> str:
        """Deploy a flow by its name and module path; return the deployment's id."""
        schedules = [{"schedule": {"interval": interval}}] if interval else []
        known = self.post("/flows/", name=flow)
        made = self.post(
            "/deployments/",
            name="test",
            flow_id=known["id"],
            entrypoint=entrypoint,
            work_pool_name=pool,
            work_queue_name=queue,
            enforce_parameter_schema=False,
            schedules=schedules,
        )
        return str(made["id"])

    def run(self, deployment: str, **parameters: Any) -> str:
        """Start a run now; return its id."""
        made = self.post(f"/deployments/{deployment}/create_flow_run", parameters=parameters)
        return str(made["id"])

    def read(self, flow_run: str) -> dict[str, Any]:
        """Return a flow run."""
        found: dict[str, Any] = self.get(f"/flow_runs/{flow_run}")
        return found

    def set_state(self, flow_run: str, kind: str, name: str | None = None) -> None:
        """Ask for a state, as the buttons of the UI do."""
        self.post(f"/flow_runs/{flow_run}/set_state", state={"type": kind, "name": name})

    def retry(self, flow_run: str) -> None:
        """Press Retry on the page of a run that is over."""
        self.restart(flow_run, "Retry from the UI")

    def restart(self, flow_run: str, why: str) -> None:
        """Let a worker take a run once more."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": why}
        self.post(f"/flow_runs/{flow_run}/set_state", state=state, force=True)

    def suspend(self, flow_run: str) -> None:
        """Suspend a run, as ``prefect.suspend_flow_run`` does: it is scheduled anew on resume."""
        state = {"type": "PAUSED", "name": "Suspended", "state_details": {"pause_reschedule": True}}
        self.post(f"/flow_runs/{flow_run}/set_state", state=state)

    def wait(
        self, flow_run: str, *kinds: str, runs: int = 0, within: float = 60.0
    ) -> dict[str, Any]:
        """Wait until a run is in one of the state types, begun *runs* times; return it."""
        seen: dict[str, Any] = {}

        def there() -> bool:
            seen.update(self.read(flow_run))
            return seen["state_type"] in (kinds or FINAL) and seen["run_count"] >= runs

        try:
            wait_for(there, f"flow run {flow_run} {kinds or 'final'}", within=within)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; it is {seen.get('state')}") from None
        return seen

    def task_runs(self, flow_runs: Sequence[str], state: str = "COMPLETED") -> int:
        """Count the task runs of *flow_runs* in a state."""
        return int(
            self.post(
                "/task_runs/count",
                flow_runs={"id": {"any_": list(flow_runs)}},
                task_runs={"state": {"type": {"any_": [state]}}},
            )
        )

    def children(self, flow_run: str) -> list[dict[str, Any]]:
        """Return the child runs of a flow run."""
        found: list[dict[str, Any]] = self.post(
            "/flow_runs/filter", flow_runs={"parent_flow_run_id": {"any_": [flow_run]}}
        )
        return found

    def logs(self, flow_run: str) -> str:
        """Return the log of a flow run."""
        lines = self.post("/logs/filter", logs={"flow_run_id": {"any_": [flow_run]}})
        return "\n".join(line["message"] for line in lines)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
