"""``make soak``: a thousand requests at concurrency 50 with every fault mixed in.

Writes its section of ``benchmarks/reliability.md``. Fails when anything was lost
or doubled, when an invariant did not hold, or when memory or descriptors grew or
too little was seen of them.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.measure import machine
from certrail.model import Workflow
from certrail.settings import read_run_file
from tests.chaos import remembered, report
from tests.chaos.afterwards import failures_of, rules
from tests.chaos.ground import Faults, the_ground
from tests.chaos.levels import FILES, MIB, Slope, must_be_flat
from tests.chaos.soak import Soak
from tests.support.agreement import repair
from tests.support.prefect_api import PrefectApi
from tests.support.process import let_in
from tests.support.stack import stack

_EXTRA = {"CERTRAIL_LEASE_SECONDS": "15", "CERTRAIL_SETTLE_SECONDS": "15"}


def main() -> int:
    """Run it and write the figures; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak_run")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--percent", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--report", type=Path, default=report.RESULTS)
    given = parser.parse_args()
    # A crash is to leave what a crash leaves, so that it can be found.
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    chance = random.Random(given.seed)
    faults = Faults(chance, given.percent)
    began = time.time()
    # Twice as many places as requests at once, so that each workflow has a free one.
    counts = {
        Workflow.WEB_SERVER: given.at_once * 6 // 5,
        Workflow.APPLIANCE: max(2, given.at_once * 2 // 5),
        Workflow.DELIVERY: max(2, given.at_once * 2 // 5),
    }
    with tempfile.TemporaryDirectory(prefix="ct-") as folder, stack(extra=_EXTRA) as running:
        let_in(Path(folder))
        found = read_run_file(running.data_dir)
        assert found is not None
        os.environ.update(found.environment())
        with the_ground(running, Path(folder), faults, counts) as ground:
            soak = Soak(
                ground,
                faults,
                chance,
                requests=given.requests,
                at_once=given.at_once,
                percent=given.percent,
            )
            try:
                soak.run()
                happened = faults.end() + soak.counts.kills
                print("faults are over; looking at what they left", flush=True)
                with closing(PrefectApi(running.api_url)) as api:
                    repair(api)
                held, broken = failures_of(list(rules(ground, soak.counts, ground.issued(), began)))
                doubled = sum(ground.issued().values()) - len(soak.counts.done)
            finally:
                soak.worker.stop()
    slopes = list(soak.levels.slopes(after=soak.settled_at or given.requests))
    flat, not_flat = failures_of([lambda: must_be_flat(slopes)])
    held, broken = held + flat, broken + not_flat
    text = _report(given, soak, happened, doubled, held, broken, slopes)
    report.put("Soak", text, given.report)
    print(text)
    return 1 if soak.counts.lost or doubled or broken else 0


def _report(
    given: argparse.Namespace,
    soak: Soak,
    faults: Mapping[str, int],
    doubled: int,
    held: Sequence[str],
    broken: Sequence[str],
    slopes: Sequence[tuple[str, str, Slope]],
) -> str:
    counts = soak.counts
    rows = "\n".join(f"| {what} | {times} |" for what, times in sorted(faults.items()))
    flows = ", ".join(
        f"{sum(one.workflow is flow for one in counts.done.values())} {flow.value}"
        for flow in Workflow
    )
    levels = "\n".join(
        f"| {name} | {figure} | {one.begin:.0f} | {one.end:.0f} | {one.span} |"
        f" {one.per_thousand:+.1f} | {one.late:+.1f} | {_verdict(one)} |"
        for name, figure, one in slopes
    )
    looked = "\n".join(f"- {one}" for one in held)
    told = "".join(f"\n```\n{one}\n```\n" for one in (*counts.lost, *broken))
    an_hour = len(counts.done) / counts.seconds * 3600
    checked = len(held) + len(broken)
    options = f"REQUESTS={given.requests} AT_ONCE={given.at_once} PERCENT={given.percent:g}"
    return f"""Written by `make soak`; every figure comes from one run.
Requests of all three workflows run in a worker that reaches the CA (Pebble), DNS (PowerDNS), hosts
(OpenSSH, nginx), an appliance (Caddy), the Prefect server and PostgreSQL by ways that break. Each
kind of fault on each way is drawn for {given.percent:g} % of the requests that go there, and each
kind of kill hits as many. What failed is retried meanwhile, as an operator would. What stops every
request at the same time, or ends one for good, is not mixed in and has tests of its own in
`tests/chaos` and `tests/e2e`: full disks, clocks, a failover, Redis, a closed account, orders that
expire or become invalid, a certificate revoked before it is installed, a target that reboots.

- command: `make soak {options} SEED={given.seed}`
- machine: {machine()}
- date: {datetime.datetime.now(datetime.UTC).date().isoformat()}
- duration: {counts.seconds / 60:.0f} minutes, {an_hour:.0f} requests an hour

| | |
|---|---|
| requests | {len(counts.done) + len(counts.lost)} ({flows}) |
| at the same time | {given.at_once} |
| faults injected | {sum(faults.values())} |
| requests that got through | {len(counts.done)} |
| of them after a failed step and a retry | {len(counts.again)} |
| failed steps meanwhile, each with cause and remedy | {len(counts.failures)} |
| second requests refused, asked for at the same moment | {counts.refused} |
| requests lost | {len(counts.lost)} |
| certificates issued twice | {doubled} |
| handshakes of clients meanwhile | {counts.handshakes} |
| handshakes that failed | {len(counts.broken)} |
| connections that Caddy reset when it took over a configuration, as it does | {counts.resets} |
| invariants that did not hold (`tests/chaos/afterwards.py`) | {len(broken)} of {checked} |

Looked at afterwards:

{looked}

Levels once nothing is killed any more and the Prefect server was given as many events as it
remembers ({remembered.EVENTS}): begin and end of a line through all points (Theil, Sen), and what
the line through their second half rises. A cache that fills stops there; *grows* is what rises
by more than {MIB:.0f} MiB or {FILES:.0f} descriptors in all, and by half of that in that half.

| process | figure | begin | end | requests meanwhile | in 1,000 requests | second half | |
|---|---|---|---|---|---|---|---|
{levels}

| fault | times |
|---|---|
{rows}
{told}"""


def _verdict(one: Slope) -> str:
    return {True: "flat", False: "**grows**", None: "**too little to judge**"}[one.is_flat]


if __name__ == "__main__":
    sys.exit(main())
