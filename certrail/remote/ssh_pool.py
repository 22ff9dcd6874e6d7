"""Connections kept for a while: steps follow each other, and sites share hosts.

Logging in costs both sides about a tenth of a second. A lease is exclusive: it
takes a connection that is idle, after asking whether it still answers, or
opens one. A connection given back is closed after ``IDLE_SECONDS``, at the
end of the process, and at once if anything broke on it.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from certrail.errors import Busy
from certrail.remote.ssh_session import SshSession
from certrail.remote.ssh_settings import SshSettings

IDLE_SECONDS = 60.0
MAX_AGE = 600.0
"""Seconds after which a connection is not kept, so that changed keys and accounts take effect."""
PER_HOST = 8
"""Connections to one host at a time; sshd starts to drop logins at ten (MaxStartups)."""
LEFT_SECONDS = 3600.0
"""So long it is kept in mind which files a broken connection left on a host."""
_WAIT_SECONDS = 120.0


@dataclass
class _Place:
    """What is kept for one set of settings."""

    free: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(PER_HOST)
    )
    idle: list[tuple[float, SshSession]] = field(default_factory=list)
    users: int = 0
    left: dict[str, float] = field(default_factory=dict)


class SshPool:
    """Idle connections by their settings. Safe to use from many threads."""

    def __init__(self, idle_seconds: float = IDLE_SECONDS, max_age: float = MAX_AGE) -> None:
        self._idle_seconds = idle_seconds
        self._max_age = max_age
        self._changed = threading.Condition()
        self._places: dict[SshSettings, _Place] = {}
        self._reaper: threading.Thread | None = None

    @contextmanager
    def lease(self, settings: SshSettings, name: str) -> Iterator[SshSession]:
        """Yield a connection that nobody else uses meanwhile.

        Raises:
            Busy: all of this process's connections to the host stay in use.
            ConnectorError: as opening an ``SshSession``.
        """
        with self._changed:
            place = self._places.setdefault(settings, _Place())
            place.users += 1
        try:
            if not place.free.acquire(timeout=_WAIT_SECONDS):
                raise Busy(
                    f"{PER_HOST} connections to {name} are in use for {_WAIT_SECONDS:.0f} s",
                    remedy="Retry later, or lower the concurrency for this host.",
                    connector=name,
                )
            try:
                session = self._idle_session(place) or SshSession(settings, name)
                try:
                    with self._changed:
                        session.left += place.left
                        place.left.clear()
                    yield session
                finally:
                    self._give_back(place, session)
            finally:
                place.free.release()
        finally:
            with self._changed:
                place.users -= 1
                self._tidy()

    def close(self) -> None:
        """Close every idle connection now."""
        with self._changed:
            sessions = [session for place in self._places.values() for _, session in place.idle]
            for place in self._places.values():
                place.idle.clear()
            self._tidy()
            self._changed.notify_all()
        for session in sessions:
            session.close()

    def idle_count(self) -> int:
        """Return how many connections wait for use."""
        with self._changed:
            return sum(len(place.idle) for place in self._places.values())

    def forget(self) -> None:
        """Drop everything without a word to the servers: after a fork they are the parent's."""
        self._changed = threading.Condition()
        self._places = {}
        self._reaper = None

    def _idle_session(self, place: _Place) -> SshSession | None:
        while True:
            with self._changed:
                if not place.idle:
                    return None
                _, session = place.idle.pop()
            if session.answers():
                return session
            session.close()

    def _give_back(self, place: _Place, session: SshSession) -> None:
        with self._changed:
            place.left.update(dict.fromkeys(session.left, time.monotonic()))
        session.left = []
        if not session.alive or time.monotonic() - session.opened > self._max_age:
            session.close()
            return
        with self._changed:
            place.idle.append((time.monotonic(), session))
            if self._reaper is None:
                self._reaper = threading.Thread(
                    target=self._reap, name="certrail-ssh-idle", daemon=True
                )
                self._reaper.start()

    def _reap(self) -> None:
        """Close what has been idle for long; end when nothing is left."""
        while True:
            with self._changed:
                waiting = [since for place in self._places.values() for since, _ in place.idle]
                if not waiting:
                    self._reaper = None
                    return
                self._changed.wait(max(0.0, min(waiting) + self._idle_seconds - time.monotonic()))
                late = self._take_late(time.monotonic() - self._idle_seconds)
            for session in late:
                session.close()

    def _take_late(self, before: float) -> list[SshSession]:
        late = []
        for place in self._places.values():
            late += [session for since, session in place.idle if since <= before]
            place.idle = [(since, session) for since, session in place.idle if since > before]
        self._tidy()
        return late

    def _tidy(self) -> None:
        # The settings hold secrets: they stay no longer than they are of use.
        long_ago = time.monotonic() - LEFT_SECONDS
        for settings, place in list(self._places.items()):
            place.left = {path: since for path, since in place.left.items() if since > long_ago}
            if not place.idle and place.users == 0 and not place.left:
                del self._places[settings]


POOL = SshPool()
"""The connections of this process."""

atexit.register(POOL.close)
os.register_at_fork(after_in_child=POOL.forget)
