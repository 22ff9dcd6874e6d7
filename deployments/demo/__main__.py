"""``python -m deployments.demo``; with ``KEEP=1`` it stays up until Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from deployments.demo.chapters import CHAPTERS
from deployments.demo.chapters.bulk_job import JOB
from deployments.demo.scene import SHOP, WWW, Scene, built
from deployments.demo.screen import DemoError, Screen

_INTERRUPTED = 130
# SIGINT too: a shell without job control has it ignored.
_WISHES = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Tell the story. Returns the exit code."""
    screen = Screen()
    keep = os.environ.get("KEEP", "") not in ("", "0")
    try:
        with _interruptible(), built(screen) as scene:
            for play in CHAPTERS:
                play(scene)
            _where_to_look(scene, keep=keep)
            if keep:
                _wait()
            _ignore()
            screen.note("stopping everything")
    except DemoError as exc:
        screen.failure(exc)
        return exc.exit_code
    except KeyboardInterrupt:
        screen.note("interrupted; everything was stopped and removed")
        return _INTERRUPTED
    screen.note("nothing is left running")
    return 0


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn every wish to end it into an interruption, which stops and removes everything."""
    before = [signal.signal(wish, _interrupt) for wish in _WISHES]
    try:
        yield
    finally:
        for wish, handler in zip(_WISHES, before, strict=True):
            signal.signal(wish, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _ignore()
    raise KeyboardInterrupt


def _ignore() -> None:
    """Let nothing cut short what stops everything; each server has its time limit."""
    for wish in _WISHES:
        signal.signal(wish, signal.SIG_IGN)


def _wait() -> None:
    forever = threading.Event()
    try:
        forever.wait()
    except KeyboardInterrupt:
        return


def _where_to_look(scene: Scene, *, keep: bool) -> None:
    screen = scene.screen
    screen.end()
    scene.installation.certrail("endpoint", "list")
    if not keep:
        screen.plain("`make demo KEEP=1` stays up, so that you can look around in Prefect's pages.")
        return
    screen.plain("It stays up until Ctrl-C. Look at:")
    screen.plain(f"  {scene.installation.ui_url}/runs    every request, its steps and their logs")
    screen.plain()
    screen.plain("In another shell:")
    for name, value in scene.installation.environment.items():
        screen.plain(f"  export {name}={value}")
    program = Path(sys.executable).with_name("certrail")
    for arguments in (
        f"request show {scene.installation.last_success(f'{WWW}:443')}",
        f"request start {SHOP}:443 --action reissue --wait",
        "endpoint list",
        f"job show {JOB}",
        f"endpoint show {SHOP}:443",
    ):
        screen.plain(f"  {program} {arguments}")
    screen.plain()


if __name__ == "__main__":
    sys.exit(main())
