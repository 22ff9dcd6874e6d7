"""What Ctrl-C does while a command is imported, while it works, and once it is done."""

from __future__ import annotations

import os
import signal

CODE = 130
"""Exit code of a command that was interrupted, as shells have it."""


def ends_at_once() -> None:
    """Let Ctrl-C end this process at once: nothing has been begun.

    The exception that Python raises by itself would come out of whatever is imported at that
    moment, with a traceback; some modules swallow it, or make another one of it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def is_raised() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again: what has been begun is to be ended in order."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def changes_nothing(code: int) -> None:
    """Let Ctrl-C end this process with *code*: all is done and told, but for Python's own end."""
    if signal.getsignal(signal.SIGINT) in (_end, signal.default_int_handler):
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))


def _end(*_: object) -> None:
    # Not by click, which may be half imported. Below the ^C that the terminal shows.
    os.write(2, b"\ninterrupted\n")
    os._exit(CODE)
