"""The wall clock of servers, stepped while they run: the Prefect server's, PostgreSQL's.

::

    clock = MachineClock.made(folder)
    Popen(argv, env=clock.environment())
    clock.step(hours=3)

A library of a few lines is put before the C library: unlike libfaketime it leaves
alone what sleeps and what measures durations, as a step of a machine's clock does.
What steps the clock in our own modules is :mod:`tests.support.stepped_clock`.
"""

from __future__ import annotations

import signal
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from certrail.account import child_setup, service_account
from certrail.postgres import EmbeddedPostgres, program
from tests.support.process import accepts, binary, let_in, wait_for

_SOURCE = Path(__file__).with_suffix(".c")


@dataclass(frozen=True)
class MachineClock:
    """A clock that processes share.

    Attributes:
        library: to be loaded first.
        file: holds by how many seconds it is wrong.
    """

    library: Path
    file: Path

    @classmethod
    def made(cls, folder: Path) -> MachineClock:
        """Make the library and a right clock in *folder*, which every account may enter."""
        folder.mkdir(exist_ok=True)
        clock = cls(folder / "clock.so", folder / "clock")
        compiler = [binary("gcc", "gcc libc6-dev"), "-shared", "-fPIC", "-O1", "-Wall", "-Werror"]
        argv = [*compiler, "-o", str(clock.library), str(_SOURCE), "-ldl"]
        subprocess.run(argv, check=True, capture_output=True)
        let_in(folder)
        clock.file.touch(mode=0o644)
        clock.step()
        return clock

    def step(self, *, hours: float = 0) -> None:
        """Be wrong by so many hours from now on."""
        with self.file.open("r+b") as file:
            file.write(struct.pack("d", hours * 3600))

    def environment(self, of: str = "") -> dict[str, str]:
        """Return the variables for a process and its children; for those alone that have a word.

        Args:
            of: this must be in the command line.
        """
        found = {"LD_PRELOAD": str(self.library), "CERTRAIL_MACHINE_CLOCK": str(self.file)}
        return found | ({"CERTRAIL_MACHINE_CLOCK_OF": of} if of else {})


@contextmanager
def postgres(folder: Path, clock: MachineClock) -> Iterator[EmbeddedPostgres]:
    """Run the embedded PostgreSQL, with its two databases, by *clock*."""
    folder.mkdir(exist_ok=True)
    let_in(folder)
    made = EmbeddedPostgres(folder / "postgres", durable=False)
    made.start()
    made.stop()
    data = made.directory / "data"
    flags = ["-p", str(made.port), "-c", "fsync=off", "-c", "max_connections=200", "-c"]
    argv = [str(program("postgres")), "-D", str(data), *flags, "unix_socket_directories="]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", **clock.environment()}
    with (made.directory / "log").open("ab") as log:
        process = subprocess.Popen(
            argv,
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=child_setup(signal.SIGINT, service_account(data), search_everywhere=True),
        )
    try:
        wait_for(lambda: accepts(made.port), "PostgreSQL answers")
        yield made
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
