"""A bulk job at an ACME CA, and certbot and lego one by one at the same CA for the same endpoints.

All three prove control by http-01 (Pebble believes every challenge at once and
answers without delay), install into the same folder, and are looked at by a
handshake. Certrail's requests are journaled, tracked and recorded in Prefect.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.jobs import CONCURRENCY, lift_limits, measured, say, world
from benchmarks.options import Options
from benchmarks.results import with_rows
from tests.support.bulk import Estate
from tests.support.pebble import Pebble, pebble
from tests.support.process import binary, free_port

NAME = "bulk-acme"
_HEADS = ("client", "endpoints", "at a time", "rate", "Certrail to it", "installed and seen")


def run(options: Options) -> str:
    """Measure and return the chapter for ``benchmarks/results.md``."""
    count = max(options.sizes)
    with tempfile.TemporaryDirectory(prefix="certrail-acme-") as name:
        folder = Path(name)
        with (
            pebble(folder, always_valid=True, nonce_reject=0, authz_reuse=0) as ca,
            world((count,)) as there,
        ):
            served = there.served
            there.run("apply", "-f", str(served.write(_configuration(served, ca, folder, count))))
            lift_limits(there.installation, ("ca:bench-acme", "domain:bulk.test"))
            job = measured(there, "bench-acme", count)
            say(f"Certrail x{count}: {job.rate:.2f}/s, {job.successful} successful")
            rows = [("Certrail", count, CONCURRENCY, job.rate, job.successful)]
            for client, get in (("certbot", certbot), ("lego", lego)):
                some = min(options.one_by_one, count)
                seconds, seen = _one_by_one(served, ca, folder / client, get, some)
                rows.append((client, some, 1, some / seconds, seen))
                say(f"{client} x{some}: {some / seconds:.2f}/s, {seen} seen")
    made = [
        (who, f"{n}", f"{at}", f"{rate:.2f}/s", f"**{rows[0][3] / rate:.1f}**", f"{seen} of {n}")
        for who, n, at, rate, seen in rows
    ]
    text = f"## Beside certbot and lego\n\n{(__doc__ or '').partition(chr(10))[2].strip()}\n\n"
    return text + with_rows(_HEADS, (), made, key=3)


def _configuration(served: Estate, ca: Pebble, folder: Path, count: int) -> dict[str, object]:
    (folder / "roots.pem").write_text(ca.roots()[0])
    made = served.configuration(
        ca="bench-acme",
        trust=str(folder / "roots.pem"),
        validation={"method": "http-01", "listen": f"127.0.0.1:{free_port()}"},
    )
    made["connectors"].append(
        {
            "name": "bench-acme",
            "type": "ca-acme",
            "directory_url": ca.directory_url,
            "ca_bundle": str(ca.ca_bundle),
        }
    )
    for endpoint in made["endpoints"]:
        endpoint["tags"] = [f"first-{count}"]
    return made


Client = Callable[[Pebble, Path, str], tuple[Path, Path]]


def _one_by_one(
    served: Estate, ca: Pebble, folder: Path, get: Client, count: int
) -> tuple[float, int]:
    """Return the seconds for *count* certificates, and how many a client of the server sees."""
    folder.mkdir()
    seen = 0
    began = time.monotonic()
    for name in served.names[:count]:
        chain, key = get(ca, folder, name)
        live = served.folder / "live" / name / "live"
        version = live.resolve()
        shutil.copy(key, version / "privkey.pem")
        shutil.copy(chain, version / "fullchain.pem")
        leaf = ssl.PEM_cert_to_DER_cert(chain.read_text().partition("-----END CERT")[0] + _END)
        seen += _served(served.port, name) == leaf
    return time.monotonic() - began, seen


_END = "-----END CERTIFICATE-----\n"


def _served(port: int, name: str) -> bytes | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=name) as connection,
    ):
        return connection.getpeercert(binary_form=True)


def certbot(ca: Pebble, folder: Path, name: str) -> tuple[Path, Path]:
    """Get a certificate by Debian's certbot; returns the files of chain and key."""
    _client(
        [
            binary("certbot", "certbot"), "certonly", "--non-interactive", "--agree-tos",
            "--register-unsafely-without-email", "--server", ca.directory_url, "--standalone",
            "--http-01-port", str(free_port()), "--key-type", "ecdsa", "-d", name,
            "--config-dir", str(folder / "config"), "--work-dir", str(folder / "work"),
            "--logs-dir", str(folder / "logs"),
        ],
        {"REQUESTS_CA_BUNDLE": str(ca.ca_bundle)},
    )  # fmt: skip
    live = folder / "config" / "live" / name
    return live / "fullchain.pem", live / "privkey.pem"


def lego(ca: Pebble, folder: Path, name: str) -> tuple[Path, Path]:
    """Get a certificate by Debian's lego; returns the files of chain and key."""
    _client(
        [
            binary("lego", "lego"), "--server", ca.directory_url, "--accept-tos",
            "--email", "ops@example.test", "--http", "--http.port", f"127.0.0.1:{free_port()}",
            "--path", str(folder), "-d", name, "run",
        ],
        {"LEGO_CA_CERTIFICATES": str(ca.ca_bundle)},
    )  # fmt: skip
    made = folder / "certificates"
    return made / f"{name}.crt", made / f"{name}.key"


def _client(argv: list[str], own: dict[str, str]) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(argv, env={**kept, **own}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{argv[0]}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}")
