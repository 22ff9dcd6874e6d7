"""Hundreds of sites on one nginx, renewed one by one and all at once.

What is measured is the step "Certificate installed" with its journal and its
handshake, on certificates that are there already. At once, the requests that
wait for the machine share one test and one reload.
"""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.inventory import filled
from certrail.keys.seal import new_key
from tests.support.many_sites import Sites, nginx
from tests.support.process import let_in

SITES = 500
AT_ONCE = 50


@dataclass(frozen=True)
class Measured:
    """One way to renew all sites.

    Attributes:
        at_once: how many requests at a time.
        seconds: wall time for all of them.
        reloads: of the server.
        right: sites whose new certificate a client sees afterwards.
    """

    at_once: int
    seconds: float
    reloads: int
    right: int


def run() -> str:
    """Measure and return the chapter for ``benchmarks/results.md``."""
    count = int(os.environ.get("CERTRAIL_BENCH_SITES", SITES))
    os.environ.setdefault("CERTRAIL_KEY", new_key())
    with tempfile.TemporaryDirectory(prefix="certrail-bench-") as name:
        folder = Path(name)
        let_in(folder)
        with filled(0):
            found = measure(folder / "nginx", count, (1, AT_ONCE))
    rows = "\n".join(
        f"| {one.at_once} | {one.seconds:.1f} | {one.seconds / count * 1000:.0f} | {one.reloads} "
        f"| {one.right} of {count} |"
        for one in found
    )
    return (
        f"## {count} sites on one host\n\n{(__doc__ or '').strip()}\n\n"
        "| requests at a time | seconds | ms a site | reloads | served afterwards |\n"
        f"| --- | --- | --- | --- | --- |\n{rows}\n"
    )


def measure(folder: Path, count: int, ways: tuple[int, ...]) -> list[Measured]:
    """Renew *count* sites of one nginx in each of *ways*, so many at a time."""
    names = [f"s{number}.example.test" for number in range(count)]
    found = []
    with nginx(folder, names) as sites:
        for round_, at_once in enumerate(ways):
            for name in names:
                sites.request(name, port=443 + round_)
            before = _reloads(sites)
            started = time.monotonic()
            with ThreadPoolExecutor(at_once) as pool:
                list(pool.map(sites.install, names))
            seconds = time.monotonic() - started
            reloads = _reloads(sites) - before
            found.append(Measured(at_once, seconds, reloads, sum(sites.right.values())))
    return found


def _reloads(sites: Sites) -> int:
    return sites.web.error_log.count("(SIGHUP) received")
