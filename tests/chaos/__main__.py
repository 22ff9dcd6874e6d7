"""``make chaos``: storms for as long as told; writes ``benchmarks/reliability.md``.

An installation of its own, so that its parts can be ended too: every few
rounds the Prefect server, the worker or PostgreSQL is killed under the storm.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from benchmarks.measure import machine
from certrail.errors import CertrailError
from certrail.settings import read_run_file
from tests.chaos import report
from tests.chaos.field import Field, Seen, Trouble, the_field
from tests.chaos.ground import kinds
from tests.chaos.invariants import must_be_settled, must_hold
from tests.chaos.leaks import must_not_leak
from tests.chaos.soak import SERVER, child
from tests.chaos.troubles import BATCHES, CERTIFICATE, CHALLENGE, FINALIZE, ORDER, RECORDS, STATE
from tests.support.fault_link import Break
from tests.support.faulty_proxy import Fault
from tests.support.process import let_in
from tests.support.stack import Stack, stack

NAMES = [f"chaos{number}.example.test" for number in range(12)]
AT_ONCE = 4
_HTTP = (
    *(("ca", where) for where in (ORDER, CHALLENGE, FINALIZE, CERTIFICATE, "HEAD /nonce-plz")),
    ("dns", RECORDS),
    ("dns", "GET /api/"),
    ("prefect", STATE),
)
_PIECES = {"ssh": 80, "database": 400, "prefect": 12}


@dataclass
class Totals:
    """Counts of all rounds."""

    requests: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    survived: int = 0
    retried: int = 0
    orders: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: int = 0
    handshakes: int = 0
    broken_handshakes: int = 0
    violations: list[str] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)


def main() -> None:
    """Run storms of random faults, then write the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = parser.parse_args()
    chance = random.Random(given.seed)
    extra = {"CERTRAIL_LEASE_SECONDS": "5", "CERTRAIL_SETTLE_SECONDS": "5"}
    totals = Totals()
    with tempfile.TemporaryDirectory(prefix="ct-") as folder, stack(extra=extra) as running:
        let_in(Path(folder))
        found = read_run_file(running.data_dir)
        assert found is not None
        os.environ.update(found.environment())
        with the_field(running, Path(folder), NAMES) as there:
            end = time.monotonic() + given.seconds
            number = 0
            while time.monotonic() < end:
                number += 1
                _round(there, number, chance, totals)
                print(f"round {number}: {totals.requests} requests", flush=True)
            try:
                must_be_settled(there)
            except AssertionError as exc:
                totals.violations.append(str(exc)[:2000])
    report.put("Storms", _report(totals, given.seconds, given.seed, number))


def _round(there: Field, number: int, chance: random.Random, totals: Totals) -> None:
    names = chance.sample(NAMES, AT_ONCE)
    troubles = (
        list(list(BATCHES.values())[number % len(BATCHES)])
        if number % 3 == 0
        else [_trouble(chance) for _ in range(chance.randint(2, 6))]
    )
    kills = _kills(there.stack)
    what = chance.choice(sorted(kills)) if number % 4 == 0 else ""

    def meanwhile() -> None:
        if what:
            time.sleep(chance.uniform(0.5, 3))
            kills[what]()
            totals.injected[f"killed: {what}"] += 1

    try:
        seen = there.storm(names, troubles, twice=number % 5 == 0, meanwhile=meanwhile)
    except (AssertionError, CertrailError) as exc:
        totals.lost.append(str(exc)[:2000])
        return
    _count(totals, seen, troubles)
    try:
        must_hold(there, seen)
        must_not_leak(there.stack, seen.requests.values(), logs=[there.log])
    except (AssertionError, CertrailError, psycopg.Error) as exc:
        totals.violations.append(str(exc)[:2000])
    worker = child(there.stack.process.pid, "deployments.worker")
    if worker is not None:
        totals.files.append(worker.num_fds())
        totals.memory.append(worker.memory_info().rss // 2**20)


def _count(totals: Totals, seen: Seen, troubles: list[Trouble]) -> None:
    left = Counter(seen.fired)
    for one in troubles:
        if left[one.way]:
            left[one.way] -= 1
            totals.injected[f"{one.way}: {one.what.value}"] += 1
    totals.requests += len(seen.requests)
    totals.survived += len(seen.requests)
    totals.retried += len(seen.failures)
    totals.orders += seen.orders
    totals.doubled += max(0, seen.certificates - len(seen.requests))
    totals.handshakes += sum(len(one.seen) for one in seen.visits.values())
    totals.broken_handshakes += sum(len(one.failures) for one in seen.visits.values())


def _trouble(chance: random.Random) -> Trouble:
    if chance.random() < 0.6:
        way, where = chance.choice(_HTTP)
        faults = [one for one in kinds(way) if isinstance(one, Fault)]
        # Only a POST uses a nonce up.
        if not where.startswith("POST"):
            faults = [one for one in faults if one is not Fault.STALE_NONCE]
        return Trouble(way, chance.choice(faults), where)
    way = chance.choice(sorted(_PIECES))
    return Trouble(way, chance.choice(list(Break)), chance.randint(1, _PIECES[way]))


def _kills(running: Stack) -> dict[str, Callable[[], None]]:
    def kill(marker: str, number: int = signal.SIGKILL) -> None:
        process = child(running.process.pid, marker)
        assert process is not None, f"nothing to kill: {marker}"
        process.send_signal(number)

    return {
        "the worker (SIGKILL)": lambda: kill("deployments.worker"),
        "the Prefect server (SIGKILL)": lambda: kill(SERVER),
        "PostgreSQL (immediate stop)": lambda: kill("postgres", signal.SIGQUIT),
    }


def _report(totals: Totals, seconds: int, seed: int, rounds: int) -> str:
    faults = sum(totals.injected.values())
    rows = "\n".join(f"| {what} | {count} |" for what, count in sorted(totals.injected.items()))
    drift = (
        f"- file descriptors of the worker, first and last round: {totals.files[0]}, "
        f"{totals.files[-1]}; memory: {totals.memory[0]} MiB, {totals.memory[-1]} MiB\n"
        if totals.files
        else ""
    )
    told = "".join(f"\n```\n{one}\n```\n" for one in (*totals.lost, *totals.violations))
    return f"""Written by `make chaos`; every figure comes from one run.
Requests for web servers run while faults happen on the ways to the CA (Pebble), DNS (PowerDNS),
the host (OpenSSH, nginx), the Prefect server and PostgreSQL; then the faults end, and what failed
is retried as an operator would.

- command: `make chaos SECONDS={seconds} SEED={seed}`
- machine: {machine()}
- date: {datetime.datetime.now(datetime.UTC).date().isoformat()}

| | |
|---|---|
| rounds | {rounds} |
| requests | {totals.requests} |
| faults injected | {faults} |
| requests that got through | {totals.survived} |
| of them after a failed step and a retry | {totals.retried} |
| requests lost | {len(totals.lost)} |
| certificates issued twice | {totals.doubled} |
| orders at the CA, for so many requests | {totals.orders} |
| handshakes of clients meanwhile | {totals.handshakes} |
| handshakes that failed | {totals.broken_handshakes} |
| invariants that did not hold (`tests/chaos/invariants.py`) | {len(totals.violations)} |

{drift}
| fault | times |
|---|---|
{rows}
{told}"""


if __name__ == "__main__":
    main()
