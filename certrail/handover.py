"""What ends a run in the middle, and what that means for its request.

A run ends in the middle because somebody cancelled it, because its worker
stops and another one goes on with it, or because the worker's process breaks
down. All reach the code as ``asyncio.CancelledError``; only the first one ends
the request.
"""

from __future__ import annotations

CANCELLED = "certrail: somebody cancelled it"
HANDED_BACK = "certrail: the worker stops, another one goes on"


def somebody_cancelled(error: BaseException) -> bool:
    """Return whether somebody wanted the request to end; otherwise another worker goes on."""
    return CANCELLED in error.args
