"""``python -m deployments.demo``; with ``KEEP=1`` it stays up until Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from deployments.demo.chapters import CHAPTERS
from deployments.demo.scene import SHOP, WWW, Scene, built
from deployments.demo.screen import DemoError, Screen

_INTERRUPTED = 130


def main() -> int:
    """Tell the story. Returns the exit code."""
    screen = Screen()
    keep = os.environ.get("KEEP", "") not in ("", "0")
    # Also where a shell without job control has SIGINT ignored.
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        with built(screen) as scene:
            for play in CHAPTERS:
                play(scene)
            _where_to_look(scene, keep=keep)
            if keep:
                _wait()
            # From here on everything is being stopped; a second Ctrl-C must not cut that short.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            screen.note("stopping everything")
    except DemoError as exc:
        screen.failure(exc)
        return exc.exit_code
    except KeyboardInterrupt:
        screen.note("interrupted; everything was stopped and removed")
        return _INTERRUPTED
    screen.note("nothing is left running")
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


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
        f"request show {WWW}:443",
        f"request start {SHOP}:443 --action reissue --wait",
        "endpoint list",
        f"endpoint show {SHOP}:443",
    ):
        screen.plain(f"  {program} {arguments}")
    screen.plain()


if __name__ == "__main__":
    sys.exit(main())
