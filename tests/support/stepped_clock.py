"""A wall clock that a test steps while a process runs.

libfaketime cannot be used for it: it makes ``time.sleep`` of Python 3.11 fail as
soon as the clock goes back. So the name ``datetime`` in the product's modules
is replaced in the process; what measures durations (``time.monotonic``) is not.
"""

from __future__ import annotations

import datetime as real
import os
import sys
from pathlib import Path
from typing import Any

VARIABLE = "CERTRAIL_TEST_CLOCK"
_OURS = ("certrail.", "tasks.", "flows.", "blocks.", "deployments.")


def offset() -> real.timedelta:
    """Return how far the clock is wrong now."""
    return real.timedelta(seconds=float(Path(os.environ[VARIABLE]).read_text() or 0))


class _Kind(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, real.datetime)


class _Stepped(real.datetime, metaclass=_Kind):
    """``datetime``, but for what time it is; its values are ordinary ones."""

    @classmethod
    def now(cls, tz: real.tzinfo | None = None) -> Any:
        """Return the time that a wrong clock shows."""
        return real.datetime.now(tz) + offset()


def install() -> int:
    """Use the clock in every module of the product that is loaded; returns in how many."""
    changed = 0
    for name, module in list(sys.modules.items()):
        if name.startswith(_OURS) and getattr(module, "datetime", None) is real.datetime:
            module.datetime = _Stepped  # type: ignore[attr-defined]
            changed += 1
    return changed
