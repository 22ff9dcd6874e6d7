"""Many requests of all three workflows at once, with every fault mixed in, through a real worker.

The worker that runs them reaches Prefect, the inventory, the CA, DNS, host and
appliance by ways that break (:mod:`tests.chaos.ground`); whoever asks for the
requests, retries what failed and counts, goes around them.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID

import httpx
import psutil
import psycopg

from certrail.cli._children import Child, Keeper
from certrail.cli._server import client_environment
from certrail.model import Workflow
from certrail.settings import read_run_file
from certrail.tracker import ACTIVE, SUCCESSFUL
from tests.chaos import remembered
from tests.chaos.ground import EXECUTOR, Faults, Ground, Place
from tests.chaos.levels import Levels

SERVER = "certrail.cli._serve"
"""What the command line of the Prefect server's process has in it."""

_CALM_FROM = 0.32

_TRIES = 15
_STUCK_SECONDS = 900
_LOOK_SECONDS = 0.3
_SHARES = {Workflow.WEB_SERVER: 6, Workflow.APPLIANCE: 2, Workflow.DELIVERY: 2}
_ACTIVE = [one.value for one in ACTIVE]
_DONE = [one.value for one in SUCCESSFUL]


@dataclass
class Counts:
    """What happened, for the report and the invariants.

    Attributes:
        done: requests that got through, by id.
        failures: cause, remedy and whether a retry helps, of every failed step.
        again: requests that an operator retried.
        lost: what people would be told of those that did not get through.
        refused: requests of which a second one was asked for at the same moment.
        seen: what clients found, by name.
        broken: handshakes that failed.
        resets: connections to Caddy that were reset. It does that to some of those that arrive
            while it takes over a configuration, whoever changes it: tried without Certrail with
            2.11, 228 changes in 40 s reset 124 of 22,600 connections.
    """

    done: dict[UUID, Place] = field(default_factory=dict)
    failures: list[tuple[str, str | None, str | None, bool | None]] = field(default_factory=list)
    again: set[UUID] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)
    refused: int = 0
    handshakes: int = 0
    seen: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    broken: list[str] = field(default_factory=list)
    resets: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class Soak:
    """One run of it.

    Attributes:
        settled_at: requests done when nothing was killed any more and the server's memory of
            events was full; levels are looked at from there. None until then.
    """

    def __init__(
        self,
        ground: Ground,
        faults: Faults,
        chance: random.Random,
        *,
        requests: int,
        at_once: int,
        percent: float,
    ) -> None:
        self.ground = ground
        self.counts = Counts()
        self.levels = Levels()
        self.worker = _worker(ground)
        self._faults = faults
        self._chance = chance
        self._wanted = requests
        self._at_once = at_once
        self._share = percent / 100
        self._begun = 0
        self._running: dict[UUID, Place] = {}
        self._known: set[UUID] = set()
        self._tries: Counter[UUID] = Counter()
        self._asked: defaultdict[Place, list[Future[int]]] = defaultdict(list)
        self._pool = ThreadPoolExecutor(8)
        self._kills = self._planned_kills()
        self._filling: Future[None] | None = None
        self.settled_at: int | None = None
        self._keeper = Keeper([self.worker], lambda line: print(line, flush=True))

    def run(self) -> None:
        """Let all requests through, to their end."""
        self.worker.start()
        began = moved_on = time.monotonic()
        before = -1
        with self._visitors(), self._pool:
            while self._running or self._asked or self._begun < self._wanted:
                self._keeper.look()
                self._kill_what_is_due()
                self._settle()
                with suppress(psycopg.Error):
                    self._look()
                    self._fill()
                done = len(self.counts.done)
                self.levels.look(self._processes(), done)
                if done != before:
                    before, moved_on = done, time.monotonic()
                    print(f"{done} of {self._wanted} done, {len(self._running)} run", flush=True)
                if time.monotonic() - moved_on > _STUCK_SECONDS:
                    self._give_up()
                time.sleep(_LOOK_SECONDS)
        self.counts.seconds = time.monotonic() - began

    def _processes(self) -> dict[str, psutil.Process | None]:
        up = self.ground.stack.process.pid
        found: dict[str, psutil.Process | None] = {"worker of the requests": None}
        with suppress(psutil.Error):
            if self.worker.pid:
                found["worker of the requests"] = psutil.Process(self.worker.pid)
        found["worker beside the server"] = child(up, "deployments.worker")
        found["Prefect server"] = child(up, SERVER)
        return found

    # -- requests

    def _look(self) -> None:
        for place in list(self._asked):
            self._hear(place)
        with psycopg.connect(self.ground.stack.database_url, connect_timeout=5) as connection:
            ended = connection.execute(
                "select id, status from requests where id = any(%s) and status <> all(%s)",
                [list(self._running), _ACTIVE],
            ).fetchall()
            for request_id, status in ended:
                if status in _DONE:
                    self.counts.done[request_id] = self._running.pop(request_id)
                    continue
                failed = connection.execute(
                    "select title, cause, remedy, retryable from steps"
                    " where request_id = %s and status = 'failed'",
                    [request_id],
                ).fetchall()
                self._retry(request_id, status, failed)

    def _retry(self, request_id: UUID, status: str, failed: Sequence[tuple[object, ...]]) -> None:
        if self._tries[request_id] >= _TRIES:
            place = self._running.pop(request_id)
            self.counts.lost.append(f"{place.location}, {request_id}: {status}, {failed}")
            return
        # Refused while Prefect or the inventory is away: the next look finds it failed still.
        if self.ground.stack.cli("request", "retry", str(request_id)).returncode == 0:
            self._tries[request_id] += 1
            self.counts.again.add(request_id)
            # A request that failed without a failed step would explain nothing.
            self.counts.failures += failed or [(status, None, None, None)]  # type: ignore[arg-type]

    def _fill(self) -> None:
        taken = {*self._running.values(), *self._asked}
        while self._begun < self._wanted and len(taken) < self._at_once:
            free = [one for one in self.ground.places if one not in taken]
            flows = sorted({one.workflow for one in free})
            (flow,) = self._chance.choices(flows, [_SHARES[one] for one in flows])
            place = self._chance.choice([one for one in free if one.workflow is flow])
            taken.add(place)
            self._begun += 1
            self._faults.mix_in(flow)
            for _ in range(2 if self._chance.random() < self._share else 1):
                self._asked[place].append(self._pool.submit(self._ask, place))

    def _ask(self, place: Place) -> int:
        return self.ground.stack.cli("request", "start", place.location).returncode

    def _hear(self, place: Place) -> None:
        """Find the request that was asked for; ask again where there is none."""
        asked = self._asked[place]
        if not all(one.done() for one in asked):
            return
        with psycopg.connect(self.ground.stack.database_url, connect_timeout=5) as connection:
            found = connection.execute(
                "select r.id from requests r join endpoints e on e.id = r.endpoint_id"
                " where e.location = %s and r.id <> all(%s)",
                [place.location, list(self._known)],
            ).fetchall()
        if not found:
            self._asked[place] = [self._pool.submit(self._ask, place)]
            return
        # Of two that were asked for at once one is refused, or the first was over already.
        self.counts.refused += len(asked) > 1 and len(found) == 1
        del self._asked[place]
        self._begun += len(found) - 1
        for (request_id,) in found:
            self._known.add(request_id)
            self._running[request_id] = place

    def _give_up(self) -> None:
        for request_id, place in self._running.items():
            shown = self.ground.stack.cli("request", "show", str(request_id), "--history").stdout
            self.counts.lost.append(f"{place.location} is stuck\n{shown}"[:3000])
        self._running.clear()
        self.counts.lost += [f"{one.location} was never begun" for one in self._asked]
        self._asked.clear()
        self._begun = self._wanted

    # -- kills

    def _planned_kills(self) -> list[tuple[int, str]]:
        """Each kind hits that share of all requests, since it hits whatever runs."""
        times = max(1, round(self._share * self._wanted / self._at_once))
        what = [kind for kind in _KILLS for _ in range(times)]
        self._chance.shuffle(what)
        first, last = self._wanted * 0.05, self._wanted * 0.3
        step = (last - first) / len(what)
        return [(round(first + step * number), kind) for number, kind in enumerate(what)]

    def _kill_what_is_due(self) -> None:
        while self._kills and self._kills[0][0] <= len(self.counts.done):
            _, kind = self._kills.pop(0)
            marker, number = _KILLS[kind]
            with suppress(psutil.Error):
                if marker:
                    process = child(self.ground.stack.process.pid, marker)
                else:
                    process = psutil.Process(self.worker.pid)
                if process is None:  # it ended before, and is being started again
                    self._kills.append((len(self.counts.done) + 1, kind))
                    continue
                process.send_signal(number)
                self.counts.kills[f"killed: {kind}"] += 1

    def _settle(self) -> None:
        """Once nothing is killed any more, let the server remember as much as it ever does."""
        if self.settled_at is not None or len(self.counts.done) < self._wanted * _CALM_FROM:
            return
        if self._filling is None:
            self._filling = self._pool.submit(remembered.fill, self.ground.stack.api_url)
        if not self._filling.done():
            return
        if isinstance(self._filling.exception(), httpx.HTTPError):  # it is being started again
            self._filling = None
            return
        self._filling.result()
        self.settled_at = len(self.counts.done)

    # -- clients

    @contextmanager
    def _visitors(self) -> Iterator[None]:
        """Connect all the time to where requests run."""
        stop = threading.Event()

        def visit() -> None:
            while not stop.wait(0.02):
                serving = [
                    one
                    for one in list(self._running.values())
                    if one.workflow is not Workflow.DELIVERY
                ]
                for place in random.sample(serving, min(3, len(serving))):
                    try:
                        found = self.ground.served(place)
                    except OSError as exc:
                        reset = isinstance(exc, ConnectionResetError)
                        if reset and place.workflow is Workflow.APPLIANCE:
                            self.counts.resets += 1
                            continue
                        self.counts.broken.append(f"{place.location}: {exc!r}")
                    else:
                        self.counts.handshakes += 1
                        self.counts.seen[place.name].add(str(found))

        before = {one.name: self.ground.served(one) for one in self.ground.places}
        for name, found in before.items():
            self.counts.seen[name].add(str(found))
        thread = threading.Thread(target=visit)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


_KILLS: dict[str, tuple[str, int]] = {
    "the worker of the requests (SIGKILL)": ("", signal.SIGKILL),
    "the worker beside the server (SIGKILL)": ("deployments.worker", signal.SIGKILL),
    "the Prefect server (SIGKILL)": (SERVER, signal.SIGKILL),
    "PostgreSQL (immediate stop)": ("postgres", signal.SIGQUIT),
}


def child(pid: int, marker: str) -> psutil.Process | None:
    """Return the child of *pid* whose command line has *marker*."""
    with suppress(psutil.Error):
        for one in psutil.Process(pid).children():
            with suppress(psutil.Error):
                if marker in " ".join(one.cmdline()):
                    return one
    return None


def _worker(ground: Ground) -> Child:
    found = read_run_file(ground.stack.data_dir)
    assert found is not None
    own = {k: v for k, v in found.environment().items() if k.startswith("CERTRAIL_")}
    home = ground.stack.data_dir / "soak-worker"
    home.mkdir()
    command = [sys.executable, "-m", "deployments.worker", "--name", EXECUTOR]
    command += ["--queue", EXECUTOR, "--limit", "50"]
    command += [word for pool in ("agents", "sensors") for word in ("--pool", pool)]
    environment = client_environment(
        api_url=ground.api_url,
        ui_url=found.ui_url,
        home=home,
        api_auth=found.api_auth,
        certrail=own | {"CERTRAIL_DATABASE_URL": ground.database_url},
    )
    extra = {k: v for k, v in ground.stack.env.items() if k.startswith("CERTRAIL_")}
    log = ground.stack.data_dir / "logs" / "soak-worker.log"
    return Child(
        "the worker of the requests", command, extra | environment, log=log, stop_seconds=20
    )
