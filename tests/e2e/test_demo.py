"""``make demo`` as a newcomer runs it: not as root, and with nothing but wheels."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from certrail.account import Account, can_enter, child_setup
from certrail.tracker import STEPS
from tests.support.process import wait_for

_ROOT = Path(__file__).resolve().parents[2]
_LONGEST = 240.0
_WEB_SERVER_STEPS = (
    "✓ 1. ACME account created",
    "✓ 2. Domain validated",
    "✓ 3. Certificate issued",
    "✓ 4. Certificate installed",
    "✓ 5. Testing installation",
)
_OTHER_STEPS = (
    "✓ 3. Certificate installation: completed: Caddy: ",
    "✓ 4. Testing installation",
    "✓ 3. Certificate delivery: completed: ",
)


class Demo:
    """A running demo and everything it has said."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path, home: Path) -> None:
        self.process = process
        self.home = home
        self._output = output

    @property
    def text(self) -> str:
        """Standard output and standard error."""
        return self._output.read_text(errors="replace")

    def until(self, words: str) -> None:
        """Wait until it has said *words*."""
        wait_for(
            lambda: words in self.text or self.process.poll() is not None, words, within=_LONGEST
        )
        assert words in self.text, self.text

    def interrupt(self) -> int:
        """Press Ctrl-C and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def processes(self) -> list[str]:
        """Return every process that has to do with this demo's folder."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and str(self.home) in _about(entry):
                found.append(f"{entry.name} {_about(entry)[:200]}")
        return found

    def leaves_nothing(self) -> None:
        """Check that no process and no file is left, a moment after the end."""
        wait_for(lambda: not self.processes(), f"ended with the demo: {self.processes()}")
        assert list((self.home / "tmp").iterdir()) == []


def _about(process: Path) -> str:
    """Return command line, folder and environment of a process; "" once it is gone."""
    parts = []
    for name in ("cmdline", "environ"):
        try:
            parts.append(
                (process / name).read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            )
        except OSError:
            continue
    with suppress(OSError):
        parts.append(str((process / "cwd").readlink()))
    return " ".join(parts)


def _newcomer() -> tuple[Account, Callable[[], None]]:
    """Return an account that is not root, and what becomes it between fork and exec."""
    if os.geteuid() != 0:
        account = Account(os.geteuid(), os.getegid())
        return account, child_setup(signal.SIGKILL)
    nobody = pwd.getpwnam("nobody")
    account = Account(nobody.pw_uid, nobody.pw_gid)
    # Where Python itself lies below /root, the account may pass through it, and no more.
    hidden = not can_enter(account, Path(sys.executable).resolve().parent)
    return account, child_setup(signal.SIGKILL, account, search_everywhere=hidden)


@contextmanager
def demo(home: Path, **environment: str) -> Iterator[Demo]:
    """Run ``python -m deployments.demo`` with *home* as home and for temporary files."""
    account, become = _newcomer()
    (home / "tmp").mkdir()
    for folder in (home, home / "tmp"):
        account.owns(folder)
        folder.chmod(0o700)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CERTRAIL_"))}
    variables = {**kept, "HOME": str(home), "TMPDIR": str(home / "tmp"), **environment}
    output = home.parent / f"{home.name}.log"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.demo"],
            cwd=_ROOT,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            preexec_fn=become,
        )
    try:
        yield Demo(process, output, home)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path that everybody may enter: PostgreSQL's socket lies below it."""
    folder = Path(tempfile.mkdtemp(prefix="demo-", dir="/var/tmp"))
    folder.chmod(0o755)
    (folder / "home").mkdir()
    yield folder / "home"
    shutil.rmtree(folder)


def test_the_whole_story_is_told_and_nothing_is_left(home: Path) -> None:
    """It is the first thing anybody runs: every claim in it must be true on that machine."""
    with demo(home, KEEP="1") as running:
        running.until("certrail endpoint show")
        told = running.text

        for step in _WEB_SERVER_STEPS:
            assert told.count(step) >= 3, told
        for step in _OTHER_STEPS:
            assert step in told
        for workflow in STEPS.values():
            assert all(title in told for title in workflow)
        assert "Certificate delivered" in told
        assert told.count("✔ handshake with lb.example.test") == 1
        assert "found and verified" in told
        assert "✗ 4. Certificate installed: failed" in told
        assert "cause: HAProxy on web01 refuses its configuration as it is" in told
        assert "remedy: " in told
        assert told.count("✔ handshake with www.example.test") == 6, told
        assert told.count("✔ handshake with shop.example.test") == 1, told
        assert told.count("✔ handshakes with all 20 at") == 1, told
        subject = (
            "✔ mail to web-team@example.test: [Certrail] Automation failed: www.example.test:443"
        )
        assert told.count(subject) == 1, told
        assert "  | Cause:   HAProxy on web01 refuses its configuration as it is" in told
        assert "20 of 20 endpoints would take part" in told
        assert "unknown directive in line 7" in told
        assert "Completed: 19 successful, 1 failed of 20" in told
        assert "Completed: 20 successful of 20" in told
        assert "Traceback" not in told
        served = re.findall(r"handshake with www\S+ .* serial …(\w+)", told)
        assert len(set(served)) == 2
        assert served[-1] != served[0]

        shown = _as_told(told, r"request show [0-9a-f-]{36}")
        assert "www.example.test:443" in shown
        assert "Automation successful" in shown
        assert "(try 2)" in shown

        assert running.interrupt() == 0
        assert "nothing is left running" in running.text
        running.leaves_nothing()


def _as_told(told: str, pattern: str) -> str:
    """Run one of the commands that the demo suggests, in a shell prepared as it says."""
    exports = re.findall(r"^  export (\w+)=(\S+)$", told, re.MULTILINE)
    command = re.search(rf"^  (\S+ {pattern})$", told, re.MULTILINE)
    assert exports
    assert command
    done = subprocess.run(
        command[1].split(),
        env={**os.environ, **dict(exports)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_interrupted_at_the_start_it_leaves_nothing(home: Path) -> None:
    """Who presses Ctrl-C after two seconds does not want PostgreSQL to stay."""
    with demo(home) as running:
        running.until("PostgreSQL runs")

        assert running.interrupt() == 130

        assert "Traceback" not in running.text
        running.leaves_nothing()
