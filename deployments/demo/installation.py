"""``certrail up`` in a folder of its own, and the commands a person would type beside it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from certrail.account import child_setup
from deployments.demo.processes import stop, wait_until
from deployments.demo.screen import DemoError, Screen

_CERTRAIL = [sys.executable, "-m", "certrail.cli.main"]
_START_SECONDS = 300.0
_STOP_SECONDS = 40.0
# Another installation's settings must not lead the demo astray.
_FOREIGN = ("CERTRAIL_", "PREFECT_")


@dataclass(frozen=True)
class Installation:
    """A running installation.

    Attributes:
        ui_url: Prefect's pages.
        data_dir: its folder.
        folder: where commands run.
        screen: where commands are shown.
        secrets: variables that the configuration file refers to.
    """

    ui_url: str
    data_dir: Path
    folder: Path
    screen: Screen
    secrets: Mapping[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a command finds this installation."""
        return {"CERTRAIL_DATA_DIR": str(self.data_dir)}

    def certrail(self, *arguments: str, expect: int = 0, quiet: bool = False) -> None:
        """Show and run one command; its output is the demo's, unless it is to be *quiet*.

        Raises:
            DemoError: it ended with another exit code than *expect*.
        """
        self.screen.command(shlex.join(["certrail", *arguments]))
        environment = {**_clean(), **self.environment, **self.secrets}
        done = subprocess.run(
            [*_CERTRAIL, *arguments],
            env=environment,
            cwd=self.folder,
            stdout=subprocess.DEVNULL if quiet else None,
            check=False,
        )
        if done.returncode != expect:
            raise DemoError(
                f"`certrail {shlex.join(arguments)}` ended with exit code {done.returncode}, "
                f"expected was {expect}",
                remedy=f"The logs are in {self.data_dir / 'logs'} while the demo runs (KEEP=1).",
            )
        self.screen.plain()

    def last_success(self, location: str) -> str:
        """Return the id of the endpoint's newest request that succeeded.

        The newest of all may be the next renewal, which waits for its time.

        Raises:
            DemoError: there is none.
        """
        arguments = ["request", "list", "--location", location, "--json"]
        done = subprocess.run(
            [*_CERTRAIL, *arguments, "--status", "automation-successful"],
            env={**_clean(), **self.environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            check=False,
        )
        found = json.loads(done.stdout) if done.returncode == 0 else []
        if not found:
            raise DemoError(f"no request for {location} is known to have succeeded")
        return str(found[0]["request_id"])


@contextmanager
def running(
    data_dir: Path, *, folder: Path, screen: Screen, secrets: Mapping[str, str]
) -> Iterator[Installation]:
    """Run ``certrail up`` while the context lasts; what it says is shown."""
    log = folder / "up.log"
    # What a worker keeps among the temporary files goes with the demo's folder.
    temporary = folder / "tmp"
    temporary.mkdir()
    environment = {**_clean(), "CERTRAIL_DURABLE": "false", "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        [*_CERTRAIL, "up", "--port", "0", "--data-dir", str(data_dir)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        preexec_fn=child_setup(signal.SIGTERM),
    )
    listener = _Listener(process, log, screen)
    try:
        listener.start()
        wait_until(
            lambda: bool(listener.ui_url), process, "certrail up", log, within=_START_SECONDS
        )
        yield Installation(listener.ui_url, data_dir, folder, screen, secrets)
    finally:
        stop(process, within=_STOP_SECONDS)
        listener.join()


class _Listener(threading.Thread):
    """Reads what ``certrail up`` says, into a log and onto the screen."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, screen: Screen) -> None:
        super().__init__(daemon=True)
        self.ui_url = ""
        self._process = process
        self._log = log
        self._screen = screen
        log.touch()

    def run(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines, self._log.open("ab", buffering=0) as log:
            for line in lines:
                log.write(line)
                text = line.decode(errors="replace").rstrip()
                self._screen.plain(f"    {text}")
                if text.startswith("ready "):
                    self.ui_url = text.removeprefix("ready ")


def _clean() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
    root = str(Path(__file__).resolve().parents[2])
    return {**kept, "PYTHONPATH": root}
