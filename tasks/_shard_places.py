"""The places of its job that a shard has at present, as the worker of the shard counts them.

The number is in the shard's row and is good as long as its lease (:mod:`certrail.jobs.shares`
decides on it each time that the lease is renewed), so a place costs no call of its own. The
only shard of a job has all places and asks nobody.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from certrail.jobs.shares import Need, Share

# A worker that is told of a run takes it within about this time.
_CALLED_SECONDS = 5.0


class ShardPlaces:
    """Places that endpoints take and give back.

    Args:
        concurrency: places of the job.
        is_only: the job has no other shard.
        lease_seconds: for how long an answer is good.
        monotonic: a clock that is never set.

    Attributes:
        returning: endpoints that gave their place up and want one again.
        line: endpoints that could begin if they had a place.
    """

    def __init__(
        self,
        concurrency: int,
        *,
        is_only: bool,
        lease_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.returning = 0
        self.line = 0
        self._concurrency = concurrency
        self._is_only = is_only
        self._lease_seconds = lease_seconds
        self._monotonic = monotonic
        self._has = concurrency if is_only else 0
        self._used = 0
        self._good_until = math.inf if is_only else -math.inf
        self._asked = self._first = monotonic()

    @property
    def free(self) -> int:
        """How many can be taken now."""
        if self._monotonic() >= self._good_until:
            return 0
        return max(0, self._has - self._used)

    def take(self) -> None:
        """Take a place; ask for :attr:`free` before."""
        self._used += 1

    def give_back(self) -> None:
        """Give a place back."""
        self._used -= 1

    def need(self) -> Need | None:
        """Return what to ask for, None if there is nobody to ask.

        Until the answer is here none is free: a place that is taken meanwhile could be one
        that the answer gives to another shard. An answer that got lost is one like that.
        """
        if self._is_only:
            return None
        self._good_until = -math.inf
        self._asked = self._monotonic()
        wanted = self._used + self.returning + self.line
        return Need(
            in_use=self._used,
            wanted=min(self._concurrency, wanted),
            concurrency=self._concurrency,
            is_first=self._asked - self._first < _CALLED_SECONDS,
        )

    def granted(self, share: Share) -> None:
        """Heed the answer to :meth:`need`."""
        self._has = share.places
        # The lease began after the question.
        self._good_until = self._asked + self._lease_seconds
