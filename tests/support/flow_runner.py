"""Runs of a request flow in processes that can be killed, without paying the imports each time.

A parent imports the flows once and forks a child for every run. As a module
it is that parent; :class:`FlowRunner` is what a test uses.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from certrail.heap import keep
from tests.support import stepped_clock
from tests.support.process import die_with_parent, wait_for

_RECONCILE = "reconcile"
_WORKER = "worker"


class FlowRunner:
    """The parent process; each :meth:`start` forks one run."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.flow_runner"],
                env={**os.environ, **environment},
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                preexec_fn=die_with_parent,
            )
        self._log = log
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        assert self._answer() == "ready", self._log.read_text()[-3000:]
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()

    def start(self, request_id: str) -> int:
        """Begin a run of the request's flow; returns its process id."""
        assert self._process.stdin
        with self._lock:
            self._process.stdin.write(f"{request_id}\n")
            self._process.stdin.flush()
            return int(self._answer())

    def worker(self, queue: str) -> int:
        """Begin a worker that takes the runs of one queue of the pool ``agents``."""
        return self.start(f"{_WORKER} {queue}")

    def kill(self, pid: int) -> None:
        """End a run as a power cut would, and wait until it is gone."""
        os.kill(pid, signal.SIGKILL)
        self.wait(pid)

    def end(self, pid: int) -> None:
        """Ask a worker to stop, and wait until it has; one that has ended is left alone."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        self.wait(pid)

    def wait(self, pid: int, *, within: float = 90) -> None:
        """Return once the run has ended."""
        wait_for(lambda: not _is_alive(pid), f"run {pid} ends", within=within)

    def run(self, request_id: str) -> None:
        """Run the request's flow to its end."""
        self.wait(self.start(request_id))

    def reconcile(self) -> None:
        """Run the repair that runs every minute, now."""
        self.run(_RECONCILE)

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


async def _ended(run: Awaitable[object]) -> None:
    await run


def main() -> None:
    """Fork a run for every line on standard input: a request id, the repair, or a worker."""
    from certrail.model import Workflow
    from certrail.store import requests
    from deployments import worker
    from flows import bulk_job, bulk_shard  # noqa: F401 - imported once for all workers
    from flows.appliance_request import request_appliance_certificate
    from flows.delivery_request import request_certificate_delivery
    from flows.reconcile import reconcile
    from flows.web_server_request import request_web_server_certificate

    flows: dict[Workflow, Any] = {
        Workflow.WEB_SERVER: request_web_server_certificate,
        Workflow.APPLIANCE: request_appliance_certificate,
        Workflow.DELIVERY: request_certificate_delivery,
    }
    # A fork that looks for cycles among the modules would copy all of them.
    keep()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            die_with_parent()
            if stepped_clock.VARIABLE in os.environ:
                assert stepped_clock.install()
            # Only here: what the parent had open would be shared by all.
            word, _, queue = line.strip().partition(" ")
            if word == _WORKER:
                # It ends by itself, by the signal that stops workers.
                worker.main(["--pool", "agents", "--name", queue, "--queue", queue])
            elif word == _RECONCILE:
                asyncio.run(_ended(reconcile(return_state=True)))
            else:
                flow = flows[requests.get(UUID(line.strip())).workflow]
                asyncio.run(_ended(flow(line.strip(), return_state=True)))
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
