"""One turn of the renewal sweep: decide, then schedule within the budgets.

Everything but asking the CAs and telling Prefect. It may run at any time and
any number of times; each turn does a bounded amount of work.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from certrail.errors import InvalidRequest
from certrail.renewal.budget import Wish, allot, hour_of
from certrail.renewal.due import Code, Decision, decide
from certrail.store import renewal_candidates, renewal_decisions, renewal_facts, renewals
from certrail.store.renewal_candidates import Candidate
from certrail.store.renewal_facts import Known

_TOLERANCE = timedelta(seconds=60)


@dataclass(slots=True)
class Turn:
    """What a turn did.

    Attributes:
        decided: endpoints whose renewal was decided anew.
        scheduled: requests made, or opened again.
        moved: scheduled renewals put to another moment.
        ended: renewals called off because nothing asks for them any more.
        refused: locations that cannot be renewed, with the reason.
    """

    decided: int = 0
    scheduled: list[UUID] = field(default_factory=list)
    moved: list[UUID] = field(default_factory=list)
    ended: list[UUID] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def turn(now: datetime, *, horizon: timedelta, decisions: int = 2000, most: int = 500) -> Turn:
    """Go through one turn.

    Args:
        now: the present.
        horizon: how far ahead renewals are made visible as scheduled runs.
        decisions: most endpoints that are decided in one turn.
        most: most renewals that are scheduled, or moved, in one turn.
    """
    done = Turn()
    _decide(done, now, decisions)
    _schedule(done, now, horizon, most)
    return done


def _decide(done: Turn, now: datetime, limit: int) -> None:
    versions = renewal_decisions.undecided(now, limit)
    ids = list(versions)
    known = renewal_facts.look(ids)
    decisions: list[tuple[UUID, Decision]] = []
    anew: list[tuple[Known, Decision]] = []
    for endpoint_id in ids:
        one = known.get(endpoint_id)
        if isinstance(one, Known):
            profile = one.prepared.profile
            decision = decide(one.facts, profile.renew, profile.calendar, now)
            anew.append((one, decision))
        else:
            decision = Decision(Code.UNCONFIGURED, str(one or "it is gone"))
        decisions.append((endpoint_id, decision))
    renewal_decisions.keep(decisions, now, versions)
    done.ended = renewals.refresh(anew)
    done.decided = len(decisions)


def _schedule(done: Turn, now: datetime, horizon: timedelta, most: int) -> None:
    by_ca: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in (*renewal_candidates.due(now, horizon, most), *renewal_candidates.movable()):
        by_ca[candidate.ca].append(candidate)
    taken, budgets = renewal_candidates.taken(now), renewal_candidates.budgets()
    wanted: list[tuple[Candidate, datetime]] = []
    moves: list[tuple[UUID, datetime]] = []
    for ca, candidates in by_ca.items():
        places = allot(
            [Wish(c.endpoint_id, c.at, c.criticality, c.ends) for c in candidates],
            per_hour=budgets[ca],
            taken=taken.get(ca, {}),
            now=now,
        )
        for candidate in candidates:
            at = places[candidate.endpoint_id]
            if candidate.scheduled_at is None:
                wanted.append((candidate, at))
            elif candidate.request_id is not None and _differs(candidate.scheduled_at, at, now):
                moves.append((candidate.request_id, at))
    done.scheduled, refused = renewals.schedule(wanted, now)
    renewal_decisions.keep([(c.endpoint_id, _refusal(why)) for c, why in refused], now, {})
    done.refused = [str(why) for _, why in refused]
    done.moved = renewals.move(sorted(moves, key=lambda one: one[1])[:most])


def _differs(before: datetime, at: datetime, now: datetime) -> bool:
    if before <= now:
        # On its way. Where an agent was away many are, and all would begin when it returns:
        # what the hour has no place for is put off.
        return hour_of(at) > hour_of(now)
    return abs(before - at) > _TOLERANCE


def _refusal(why: InvalidRequest) -> Decision:
    return Decision(Code.UNCONFIGURED, str(why))
