"""Hundreds of sites on one nginx, renewed one by one and all at once.

What is measured is the step "Certificate installed" with its journal and its
handshake, on certificates that are there already. At once, the requests that
wait for the machine share one test and one reload. One by one, each site
costs what the one before it cost, two tests and a reload of the whole server,
so a sample of the sites is renewed. First the configuration is changed to
name the files that Certrail keeps; a renewal later only changes what they are.
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
SAMPLE = 25
AT_ONCE = 50


@dataclass(frozen=True)
class Measured:
    """One way to renew sites.

    Attributes:
        what: it, for people.
        at_once: how many requests at a time.
        sites: how many were renewed.
        seconds: wall time for all of them.
        reloads: of the server.
        right: sites whose new certificate a client sees afterwards.
    """

    what: str
    at_once: int
    sites: int
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
            found = measure(folder / "nginx", count, min(SAMPLE, count // 2))
    rows = "\n".join(
        f"| {one.what} | {one.at_once} | {one.sites} | {one.seconds:.1f} "
        f"| {one.seconds / one.sites * 1000:.0f} | {one.reloads} | {one.right} of {one.sites} |"
        for one in found
    )
    return (
        f"## {count} sites on one host\n\n{(__doc__ or '').strip()}\n\n"
        "| what | requests at a time | sites renewed | seconds | ms a site | reloads "
        "| served afterwards |\n"
        f"| --- | --- | --- | --- | --- | --- | --- |\n{rows}\n"
    )


def measure(folder: Path, count: int, sample: int) -> list[Measured]:
    """Renew *count* sites of one nginx, or *sample* of them where it goes one by one."""
    names = [f"s{number}.example.test" for number in range(count)]
    first, later = "first certificate, configuration changed", "renewal"
    with nginx(folder, names) as sites:
        return [
            _measured(sites, names[:sample], first, 1, 443),
            _measured(sites, names[sample:], first, AT_ONCE, 443),
            _measured(sites, names[:sample], later, 1, 444),
            _measured(sites, names, later, AT_ONCE, 445),
        ]


def _measured(sites: Sites, names: list[str], what: str, at_once: int, port: int) -> Measured:
    for name in names:
        sites.request(name, port=port)
    before = _reloads(sites)
    started = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(sites.install, names))
    seconds = time.monotonic() - started
    right = sites.right
    return Measured(
        what,
        at_once,
        len(names),
        seconds,
        _reloads(sites) - before,
        sum(right[name] for name in names),
    )


def _reloads(sites: Sites) -> int:
    return sites.web.error_log.count("(SIGHUP) received")
