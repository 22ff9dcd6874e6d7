"""Storms of every kind over real requests; `make chaos` goes on for as long as it is told to.

There each reply of a request is spoiled in each way, here some of them in each.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from certrail.settings import read_run_file
from tests.chaos.field import Field, Trouble, the_field
from tests.chaos.invariants import must_be_settled, must_hold
from tests.chaos.leaks import must_not_leak
from tests.chaos.troubles import BATCHES
from tests.support.fault_link import Break
from tests.support.faulty_proxy import Fault
from tests.support.stack import Stack

AT_ONCE = 3
_NAMES = {
    batch: [f"c{n}x{i}.example.test" for i in range(AT_ONCE)] for n, batch in enumerate(BATCHES)
}
TWICE = ["twice0.example.test", "twice1.example.test"]
_SPOILED: list[tuple[Fault, Break]] = [
    (Fault.CUT_AFTER, Break.CUT),
    (Fault.REFUSED_AFTER, Break.ALL_CUT),
    (Fault.TRUNCATED, Break.TRUNCATED),
    (Fault.STALLED, Break.STALLED),
    (Fault.DELAYED, Break.DELAYED),
    (Fault.DOUBLED, Break.CUT),
]
_REPLIES = 12
"""A request gets so many from the CA, and fewer from DNS; of the others in pieces below."""
_PIECES = {"ssh": 6, "prefect": 1, "database": 9}
_ALL = int(os.environ.get("CHAOS_TIMES", "1")) > 1
REPLIES = {
    f"r{number}k{kind}.example.test": (number, *faults)
    for number in range(1, _REPLIES + 1)
    for kind, faults in enumerate(_SPOILED)
    if _ALL or number == 2 * kind + 1
}


@pytest.fixture(scope="module")
def field(installation: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    names = [*(name for names in _NAMES.values() for name in names), *TWICE, *REPLIES]
    with the_field(installation, tmp_path_factory.mktemp("chaos"), names) as made:
        yield made
        must_be_settled(made)


@pytest.fixture(autouse=True)
def _environment(installation: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    running = read_run_file(installation.data_dir)
    assert running is not None
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("batch", "troubles"), BATCHES.items(), ids=list(BATCHES))
def test_requests_get_through(field: Field, batch: str, troubles: tuple[Trouble, ...]) -> None:
    """All faults of a kind at once, on every way, over several requests."""
    seen = field.storm(_NAMES[batch], troubles)

    assert seen.fired == Counter(one.way for one in troubles), "a fault did not happen"
    must_hold(field, seen)
    must_not_leak(field.stack, seen.requests.values(), logs=[field.log])


@pytest.mark.parametrize("name", REPLIES, ids=[name.partition(".")[0] for name in REPLIES])
def test_a_request_survives_each_reply_spoiled(field: Field, name: str) -> None:
    """The reply of this number, from the CA, DNS, host, Prefect and database alike."""
    number, fault, broken = REPLIES[name]
    troubles = [Trouble("ca", fault, number), Trouble("dns", fault, 1 + number % 4)]
    troubles += [Trouble(way, broken, number * pieces) for way, pieces in _PIECES.items()]

    seen = field.storm([name], troubles)

    # An early one may end the run before the others' turn.
    assert seen.fired, "no fault happened"
    must_hold(field, seen)
    must_not_leak(field.stack, seen.requests.values(), logs=[field.log])


def test_two_processes_on_each_request(field: Field) -> None:
    """The second one waits for the lease and finds the work done, or goes on with it."""
    seen = field.storm(TWICE[:1], [], twice=True)

    must_hold(field, seen)
    assert seen.orders == 1


def test_the_same_request_asked_for_twice_at_once(field: Field) -> None:
    """One is made; the other is told of it."""
    location = f"{TWICE[1]}:443"
    before = field.outside.ca.order_count()

    with ThreadPoolExecutor(2) as pool:
        done = list(
            pool.map(lambda _: field.stack.cli("request", "start", location, "--wait"), range(2))
        )

    assert sorted(one.returncode for one in done) == [0, 2], [one.stderr for one in done]
    assert any("active request already" in one.stderr for one in done)
    assert field.outside.ca.order_count() - before == 1
