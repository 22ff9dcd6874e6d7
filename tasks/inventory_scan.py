"""What the endpoints of the inventory serve now."""

from __future__ import annotations

import time
from datetime import timedelta

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from certrail.steps import looking
from tasks._threads import in_thread

_MOST = 5000
# Shorter than what reconciliation takes for the life of housekeeping.
_WITHIN = timedelta(minutes=5)


@task(
    name="Look at the endpoints",
    task_run_name="Look at the endpoints",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def look_at_endpoints() -> str:
    """Look at what is served, and tell of certificates that somebody else put there.

    Returns what was found, in a sentence.
    """
    found = await in_thread(looking.look_around, most=_MOST, within=_WITHIN, clock=time)
    log = get_run_logger()
    for location in found.drifted[:50]:
        log.warning("%s serves another certificate than the one installed", location)
    told = f"{found.answered} endpoints answered, {found.silent} did not"
    if found.left:
        told += f", {found.left} are left for the next round"
    return f"{told}; {len(found.drifted)} began to serve another certificate than ours"
