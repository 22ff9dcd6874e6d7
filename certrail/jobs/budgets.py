"""What a job may use at the same time: places at a CA, under a domain, on a device.

The names are those of Prefect's global concurrency limits. A limit whose
slots decay is a rate limit: its places are not given back, they grow again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from ipaddress import ip_address

from publicsuffixlist import PublicSuffixList

from certrail.configuration.plan import Plan

DEFAULTS: Mapping[str, int] = {"ca": 20, "domain": 10, "device": 10}
"""Places of a limit that nobody has set yet, by what it is about."""


PER_SECOND = 6.5
"""Endpoints that a Prefect server of one process carries in a second: see the bulk chapters of
``benchmarks/results.md``."""

WAVE_SECONDS = 2.0
"""From the end of one wave to the first endpoint of the next: a worker asks every second."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit as it is set in Prefect.

    Attributes:
        slots: places.
        per_second: how many of them grow again in a second; 0 for places that are given back.
        active: False where somebody has switched it off: it holds nobody up.
    """

    slots: int
    per_second: float = 0.0
    active: bool = True

    @property
    def text(self) -> str:
        """The limit for people."""
        if not self.active:
            return "off"
        if self.per_second:
            return f"{self.slots}, then {self.per_second:g} a second"
        return f"{self.slots} at a time"


@dataclass(frozen=True, slots=True)
class Share:
    """How much of one budget a job wants."""

    name: str
    endpoints: int
    limit: Limit
    is_set: bool

    def seconds(self, each: float) -> float:
        """Return the least time that this budget alone allows, *each* seconds an endpoint."""
        if not self.limit.active:
            return 0.0
        if self.limit.per_second > 0:
            return max(0, self.endpoints - self.limit.slots) / self.limit.per_second
        return self.endpoints * each / max(1, self.limit.slots)


def names(plan: Plan) -> tuple[str, ...]:
    """Return the budgets that a request with *plan* draws on.

    Registered domains count where control of the name is proven: these are
    what public CAs limit by.
    """
    found = [f"ca:{plan.ca.name}"]
    if plan.validation is not None:
        domains = {registered_domain(name) for name in plan.names}
        found += sorted(f"domain:{domain}" for domain in domains if domain)
    targets = [plan.target, *(place.target for place in plan.also_on)]
    found += [f"device:{one.name}" for one in targets if one is not None]
    return tuple(dict.fromkeys(found))


def registered_domain(name: str) -> str:
    """Return the part below the public suffix, "" for addresses and suffixes themselves."""
    bare = name.removeprefix("*.").lower()
    try:
        ip_address(bare)
    except ValueError:
        return _suffixes().privatesuffix(bare) or ""
    return ""


def default(name: str) -> Limit:
    """Return the limit of a budget that nobody has set."""
    return Limit(DEFAULTS[name.partition(":")[0]])


def shares(plans: Iterable[Plan], present: Mapping[str, Limit]) -> list[Share]:
    """Return the budgets of a job, those that hold it up most first.

    A domain with fewer endpoints than its default limit would never wait for
    it and is left out, unless somebody has set a limit for it.
    """
    wanted = Counter(name for plan in plans for name in names(plan))
    found = [
        Share(name, count, present.get(name) or default(name), name in present)
        for name, count in wanted.items()
        if name in present or not name.startswith("domain:") or count > DEFAULTS["domain"]
    ]
    return sorted(found, key=lambda share: (-share.seconds(1.0), share.name))


@dataclass(frozen=True, slots=True)
class Wave:
    """A wave of a job as far as its duration goes.

    Attributes:
        size: its endpoints.
        by_budget: how many of them draw on each budget that pauses, or wait for a window.
    """

    size: int
    by_budget: Mapping[str, int] = field(default_factory=dict)


def expected(
    waves: Sequence[Wave],
    budget: Sequence[Share],
    *,
    each: timedelta,
    concurrency: int,
    pauses: Mapping[str, timedelta] | None = None,
) -> timedelta:
    """Return how long a job of these waves takes if nothing goes wrong.

    Args:
        waves: each begins when the one before it is over.
        budget: from :func:`shares`.
        each: how long one endpoint takes.
        concurrency: how many run at the same time.
        pauses: budgets that pause and windows that open later, as :class:`Wave` names them, with
            the time from the job's begin until then.
    """
    seconds = each.total_seconds()
    waits = {name: max(0.0, wait.total_seconds()) for name, wait in (pauses or {}).items()}

    def lasts(size: int) -> float:
        return max(seconds, size * seconds / concurrency, size / PER_SECOND) if size else 0.0

    at = 0.0
    for wave in waves:
        # What draws on a budget that pauses begins when that goes on; the others do not wait.
        late = (
            max(at, waits[name]) + lasts(size)
            for name, size in wave.by_budget.items()
            if size and name in waits
        )
        if wave.size:
            at = max(at + lasts(wave.size), *late, at) + WAVE_SECONDS
    held = (share.seconds(seconds) + waits.get(share.name, 0.0) for share in budget)
    return timedelta(seconds=max(at, *held, 0.0))


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()
