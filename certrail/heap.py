"""Memory of the processes that run for months: what stays is left alone, what is free given back.

Python looks for cycles that can be freed among all objects, at moments that the number of new ones
decides: under load a tenth of the server's time goes into looks through modules, models and routes
that stay until its end (:func:`keep`).

The C library keeps, for later, what lies free between blocks that are in use: the Prefect
server, whose objects take no more after a job than before it, holds 20 MiB more after one
of some hundred endpoints, and no other process can have them. To give them back takes
three milliseconds of CPU after a job, and one when nothing happened.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import threading
from collections.abc import Callable

EVERY = 60.0
"""So often a process gives back, in seconds."""

THREAD = "give back"
"""What the thread is called, in ``top -H`` too; the kernel takes 15 characters."""

# Python's own 700 are less than one call to the server makes.
_NEW_OBJECTS = 10_000

_LIBC = ctypes.CDLL(None)
_TRIM: Callable[[int], int] | None = getattr(_LIBC, "malloc_trim", None)  # glibc only

# linux/prctl.h
_PR_SET_NAME = 15


def keep() -> None:
    """Leave what there is now out of the search for cycles, and search less often for new ones.

    For the end of a process's start. What is kept is freed as before once nobody refers to it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 10, 10)


def without_core_files() -> None:
    """Leave no copy of the memory, which has keys in it, should this process or a child crash.

    Only the soft limit is lowered: ``prlimit --core`` of an operator gives one back.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))


def give_back() -> bool:
    """Give free pages to the machine. Returns whether there were any that could be given."""
    return bool(_TRIM is not None and _TRIM(0))


def give_back_regularly(every: float = EVERY) -> None:
    """Do it *every* so many seconds, in a thread, until the process ends."""
    if _TRIM is not None:
        threading.Thread(target=_regularly, args=(every,), name=THREAD, daemon=True).start()


def _regularly(every: float) -> None:
    # Python 3.11 tells the kernel no names of threads.
    _LIBC.prctl(_PR_SET_NAME, THREAD.encode(), 0, 0, 0)
    pause = threading.Event()
    while not pause.wait(every):
        give_back()
