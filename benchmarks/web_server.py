"""Web-server requests against Pebble, beside what they are made of.

Every request runs the five steps with tracker and journal: account, order and
http-01 at Pebble (which believes every challenge at once), files in a versioned
folder, a handshake with a TLS server that serves every name. The baselines in
the same run are Prefect alone (an async flow of five empty tasks, once as one
writes it and once with all options off that cost something, which Certrail's
own flows have off too), the bare ``acme`` library in threads, and certbot one by
one.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import yaml

from benchmarks.measure import Run, in_process, median_rate
from tests.support.pebble import pebble
from tests.support.process import free_port, running
from tests.support.stack import Stack, stack

# Requests in one measured run, by concurrency.
COUNTS = {1: 20, 10: 80, 50: 100}
ROUNDS = 1
CERTBOT_COUNT = 5
NAMES = [f"s{number}.example.test" for number in range(max(COUNTS.values()) + 2)]


def run() -> str:
    """Measure and return the chapter for ``benchmarks/results.md``."""
    runs: dict[tuple[str, int], list[Run]] = {}
    with _world() as (environment, log):
        for round_ in range(ROUNDS):
            for concurrency, count in COUNTS.items():
                # Beside each other in time: the machine is not always equally fast.
                for variant in ("plain", "empty", "certrail", "acme"):
                    done = in_process(variant, concurrency, count, environment=environment, log=log)
                    runs.setdefault((variant, concurrency), []).append(done)
                    _say(round_, done)
        done = in_process("certbot", 1, CERTBOT_COUNT, environment=environment, log=log)
        runs["certbot", 1] = [done]
        _say(0, done)
    return _chapter(runs)


@contextmanager
def _world() -> Iterator[tuple[Mapping[str, str], Path]]:
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="certrail-bench-")))
        log = folder / "variants.log"
        (folder / "ca").mkdir()
        (folder / "certificates").mkdir()
        ca = exits.enter_context(
            pebble(folder / "ca", always_valid=True, nonce_reject=0, authz_reuse=0)
        )
        port = free_port()
        argv = [sys.executable, "-m", "tests.support.sni_server"]
        argv += [str(folder / "certificates"), str(port)]
        exits.enter_context(running(argv, log=folder / "tls.log", port=port))
        installation = exits.enter_context(stack())
        _apply(installation, folder, ca.directory_url, ca.ca_bundle, ca.roots()[0], port)
        # What is measured is not how long requests wait for each other.
        with httpx.Client(base_url=installation.api_url, timeout=30) as api:
            for name in ("ca:pebble", "device:here", "domain:example.test"):
                body = {"name": name, "limit": 1000}
                api.post("/v2/concurrency_limits/", json=body).raise_for_status()
        yield (
            {
                **installation.env,
                "PREFECT_API_URL": installation.api_url,
                "CERTRAIL_DATABASE_URL": installation.database_url,
                "CERTRAIL_KEY_FILE": str(installation.data_dir / "certrail.key"),
                "PREFECT_LOGGING_LEVEL": "WARNING",
                "BENCH_NAMES": " ".join(NAMES),
                "BENCH_DIRECTORY": ca.directory_url,
                "BENCH_CA_BUNDLE": str(ca.ca_bundle),
            },
            log,
        )


def _apply(
    installation: Stack, folder: Path, directory: str, bundle: Path, root: str, port: int
) -> None:
    (folder / "roots.pem").write_text(root)
    configuration = {
        "connectors": [
            {
                "name": "pebble",
                "type": "ca-acme",
                "directory_url": directory,
                "ca_bundle": str(bundle),
            },
            {"name": "here", "type": "host-local"},
        ],
        "profiles": [
            {
                "name": "bench",
                "workflow": "web-server",
                "ca": "pebble",
                "validation": {"method": "http-01", "listen": f"127.0.0.1:{free_port()}"},
                "trust": str(folder / "roots.pem"),
            }
        ],
        "endpoints": [
            {
                "location": f"{name}:443",
                "address": f"127.0.0.1:{port}",
                "names": [name],
                "profile": "bench",
                "target": "here",
                "server": {
                    "kind": "command",
                    "site": name,
                    "directory": str(folder / "certificates"),
                },
            }
            for name in NAMES
        ],
    }
    file = folder / "certrail.yaml"
    file.write_text(yaml.safe_dump(configuration))
    done = installation.cli("apply", "-f", str(file))
    if done.returncode:
        raise SystemExit(done.stderr)


def _chapter(runs: Mapping[tuple[str, int], list[Run]]) -> str:
    certbot = runs["certbot", 1][0]
    lines = [
        "## Web-server requests",
        "",
        f"{_rounds()}; the variants run one after the other. "
        "One process each. Nothing else is asked of the CA than an order per request, without "
        "validation delay; the Prefect server is the one of `certrail up`. (c) is an async flow "
        "of five empty tasks without any option; (d) the same with one client for all runs and "
        "without results, caching and checks of parameters.",
        "",
        "| at a time | requests | Certrail, whole requests | (a) bare `acme`, orders only | "
        "(c) an empty Prefect flow | (d) the same, all options off | Certrail to (c) | "
        "Certrail to (d) | CPU of a request, Certrail / (c) / (d) | "
        "HTTP calls to Prefect per request, Certrail / (c) / (d) | memory growth per 1,000 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for concurrency, count in COUNTS.items():
        ours = runs["certrail", concurrency]
        plain, empty = runs["plain", concurrency], runs["empty", concurrency]
        bare = runs["acme", concurrency]
        growth = max(run.rss_growth_mb for run in ours) / count * 1000
        lines.append(
            f"| {concurrency} | {count} | {median_rate(ours):.2f}/s | {median_rate(bare):.1f}/s | "
            f"{median_rate(plain):.2f}/s | {median_rate(empty):.2f}/s | "
            f"**{median_rate(ours) / median_rate(plain):.2f}** | "
            f"**{median_rate(ours) / median_rate(empty):.2f}** | "
            f"{_cpu(ours):.0f} / {_cpu(plain):.0f} / {_cpu(empty):.0f} ms | "
            f"{_calls(ours):.1f} / {_calls(plain):.1f} / {_calls(empty):.1f} | {growth:.0f} MB |"
        )
    best = max(median_rate(runs["certrail", concurrency]) for concurrency in COUNTS)
    one = median_rate(runs["certrail", 1])
    failed = sum(run.failed for several in runs.values() for run in several)
    lines += [
        "",
        f"(b) certbot, one by one, {certbot.count} certificates: {certbot.rate:.2f}/s. Certrail to "
        f"(b): {one / certbot.rate:.1f} one at a time, **{best / certbot.rate:.1f}** at its best.",
        "",
        f"Failed requests in all runs: {failed}.",
        "",
    ]
    return "\n".join(lines)


def _rounds() -> str:
    return "One round" if ROUNDS == 1 else f"Medians of {ROUNDS} rounds"


def _cpu(runs: list[Run]) -> float:
    return sum(run.cpu_seconds for run in runs) / sum(run.count for run in runs) * 1000


def _calls(runs: list[Run]) -> float:
    return sum(run.calls for run in runs) / sum(run.count for run in runs)


def _say(round_: int, run: Run) -> None:
    sys.stderr.write(
        f"round {round_ + 1}: {run.variant} x{run.concurrency}: {run.rate:.2f}/s, "
        f"{run.failed} failed\n"
    )
