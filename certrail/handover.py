"""What a stopping worker says to the runs inside it.

A run ends in the middle either because somebody cancelled it, or because its
worker stops and another one goes on with it. Both reach the code as
``asyncio.CancelledError``; only the first one ends the request.
"""

from __future__ import annotations

HANDED_BACK = "certrail: the worker stops, another one goes on"


def is_handed_back(error: BaseException) -> bool:
    """Return whether a cancellation leaves the request for another worker."""
    return HANDED_BACK in error.args
