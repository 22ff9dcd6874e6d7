"""The renewal sweep: ask the CAs, decide and schedule, tell Prefect."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import timedelta

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from blocks._base import CaBlock
from certrail.cli import _prefect
from certrail.connectors import OffersRenewalInfo
from certrail.errors import CertrailError, Throttled
from certrail.settings import settings
from certrail.steps import renewal
from certrail.store import database, renewal_info, renewals, request_schedule, requests
from certrail.store.renewal_info import Question
from tasks._threads import in_thread

_QUESTIONS = 500
_AT_ONCE = 4
_MOST = 500
_FAILED = timedelta(hours=1)
_NOTHING = timedelta(days=1)


@task(
    name="Ask the CAs when to renew",
    task_run_name="Ask the CAs when to renew",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def ask_cas() -> int:
    """Fetch the renewal information that may be asked for by now.

    Returns how many windows are new or moved.
    """
    by_ca: dict[str, list[Question]] = defaultdict(list)
    now = await in_thread(database.now)
    for question in await in_thread(renewal_info.questions, now, _QUESTIONS):
        by_ca[question.ca].append(question)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(reference: str, questions: list[Question]) -> int:
        async with gate:
            return await in_thread(_ask, reference, questions)

    moved = sum(await asyncio.gather(*(one(ca, asked) for ca, asked in by_ca.items())))
    if moved:
        get_run_logger().info("renewal windows: %d new or moved", moved)
    return moved


@task(
    name="Decide and schedule renewals",
    task_run_name="Decide and schedule renewals",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def decide_and_schedule() -> dict[str, int]:
    """Decide anew what changed, and make the renewals that are near visible as requests."""
    horizon = timedelta(days=settings().renewal_horizon_days)
    done = await in_thread(renewal.turn, await in_thread(database.now), horizon=horizon)
    counts = {
        "decided": done.decided,
        "scheduled": len(done.scheduled),
        "moved": len(done.moved),
        "called off": len(done.ended),
        "refused": len(done.refused),
    }
    log = get_run_logger()
    for line in done.refused[:20]:
        log.warning("not renewed: %s", line)
    if any(counts.values()):
        log.info("renewals: %s", ", ".join(f"{n} {what}" for what, n in counts.items() if n))
    return counts


@task(
    name="Tell Prefect",
    task_run_name="Tell Prefect",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def tell_prefect() -> int:
    """Make the runs of scheduled renewals, and move those whose moment changed."""
    waiting = await in_thread(renewals.untold, _MOST)
    if not waiting:
        return 0
    return await in_thread(_tell, waiting)


def _ask(reference: str, questions: list[Question]) -> int:
    moved = 0
    now = database.now()
    try:
        with CaBlock.named(reference).connect() as ca:
            for number, question in enumerate(questions):
                if not isinstance(ca, OffersRenewalInfo):
                    renewal_info.keep(question.certificate_id, None, now, now + _NOTHING)
                    continue
                try:
                    info = ca.renewal_info(question.chain)
                except Throttled as exc:
                    pause = exc.retry_after or _FAILED
                    for left in questions[number:]:
                        renewal_info.keep(left.certificate_id, None, now, now + pause, str(exc))
                    break
                except CertrailError as exc:
                    renewal_info.keep(question.certificate_id, None, now, now + _FAILED, str(exc))
                    continue
                again = now + (info.retry_after if info else _NOTHING)
                moved += renewal_info.keep(question.certificate_id, info, now, again)
    except CertrailError as exc:
        # The CA is away: renewal goes by what it said last, or by the lifetime.
        for question in questions:
            renewal_info.keep(question.certificate_id, None, now, now + _FAILED, str(exc))
    return moved


def _tell(waiting: list[requests.Request]) -> int:
    done = 0
    with _prefect.runs() as runs:
        for request in waiting:
            if request.flow_run_id is None:
                requests.bind_run(request.id, runs.start(request))
            else:
                runs.move(request)
            request_schedule.told(request.id, request.scheduled_at)
            done += 1
    return done
