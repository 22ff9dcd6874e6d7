"""A fleet: many TLS endpoints behind one address, and a CA on disk for them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from certrail.ca.authority import Design
from certrail.ca.local import LocalCa, Rules
from deployments.demo.processes import accepts, free_port, running

ZONE = "fleet.example.test"
COUNT = 20


@dataclass(frozen=True, slots=True)
class Fleet:
    """The running endpoints and the CA on disk that they get their certificates from.

    Attributes:
        folder: where certificates are put, in a folder for each name.
        ca_dir: of the CA.
        names: the server names.
        port: where all of them are served.
    """

    folder: Path
    ca_dir: Path
    names: tuple[str, ...]
    port: int

    @property
    def root(self) -> Path:
        """The CA's root, which clients trust."""
        return self.ca_dir / "authority" / "root.pem"


@contextmanager
def serving(folder: Path) -> Iterator[Fleet]:
    """Serve :data:`COUNT` names while the context lasts; none has a certificate yet."""
    (folder / "certificates").mkdir(parents=True)
    # Its root has to be there before the profile can name it as trusted.
    LocalCa(
        str(folder / "ca"),
        design=Design("Fleet CA", timedelta(days=3650), timedelta(days=1825)),
        rules=Rules(timedelta(days=90)),
        label="own-ca",
    ).trust_anchor()
    port = free_port()
    with running(
        "the fleet",
        [
            sys.executable,
            "-m",
            "deployments.demo.many_names",
            str(folder / "certificates"),
            str(port),
        ],
        log=folder / "fleet.log",
        ready=lambda: accepts(port),
        environment={"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    ):
        names = tuple(f"app{number:02}.{ZONE}" for number in range(1, COUNT + 1))
        yield Fleet(folder / "certificates", folder / "ca", names, port)
