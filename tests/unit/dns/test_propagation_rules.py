"""What people read while and after waiting for DNS."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certrail.dns.propagation import Propagation
from certrail.dns.query import Server
from certrail.errors import NotPropagated
from certrail.model import TxtRecord
from tests.support.process import free_port


class Clock:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def test_polling_slows_down_and_ends_at_the_deadline() -> None:
    """Thousands of waits at once may not hammer the name servers of one zone."""
    dead = Server("127.0.0.1", free_port())
    clock = Clock()

    with pytest.raises(NotPropagated):
        Propagation([TxtRecord("a.test", "x")], {"a.test": [dead]}, clock=clock).wait(
            timeout=timedelta(seconds=60), interval=timedelta(seconds=2)
        )

    assert clock.now == 60
    assert clock.sleeps[:3] == [2.0, 3.0, 4.5]
    assert max(clock.sleeps) == 10


def test_many_lagging_servers_make_one_line() -> None:
    """A message of thirteen servers is not read."""
    dead = [Server(f"127.0.0.{n}", free_port(f"127.0.0.{n}")) for n in range(2, 8)]

    with pytest.raises(NotPropagated) as caught:
        Propagation([TxtRecord("a.test", "x")], {"a.test": dead}, clock=Clock()).wait(
            timeout=timedelta(seconds=1), interval=timedelta(seconds=1)
        )

    assert f"not visible on {dead[0]}" in str(caught.value)
    assert str(caught.value).endswith("and 2 more")
