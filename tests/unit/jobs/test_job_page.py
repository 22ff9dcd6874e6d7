"""The tables of a job in Prefect: every endpoint in one of them, none too long for a browser."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest

from certrail.store.job_results import Member
from certrail.tracker import Status
from tasks._job_page import parts, row, written

POST = httpx.Request("POST", "http://prefect.test/artifacts/")


def members(count: int) -> list[Member]:
    return [
        Member(n, f"h{n}.test:443", 1, Status.AUTOMATION_SUCCESSFUL, None, None, None, None, None)
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "sizes", "note"),
    [
        (0, [0], ""),
        (8, [8], ""),
        (2000, [2000], ""),
        (2001, [2000, 1], ". Endpoints 2001 to 2001 of 2001, failed ones first"),
        (10000, [2000] * 5, ". Endpoints 8001 to 10000 of 10000, failed ones first"),
    ],
)
def test_every_endpoint_is_in_one_table(count: int, sizes: list[int], note: str) -> None:
    """In the order given, under keys that Prefect takes, the first under the documented one."""
    found = parts(members(count))

    assert [len(part.members) for part in found] == sizes
    assert [one.position for part in found for one in part.members] == list(range(count))
    assert found[0].key == "bulk-job-endpoints"
    assert len({part.key for part in found}) == len(found)
    assert all(re.fullmatch(r"[a-z0-9-]+", part.key) for part in found)
    assert found[-1].note == note


def test_words_of_others_stay_words_in_a_row() -> None:
    """What a CA or a device answers is in the message, and the page is one of Prefect's."""
    said = "refused: <img src=x onerror=alert(1)> [click](http://evil.test) | **bold**\nnext"
    member = Member(0, "*.h.test:443", 1, Status.AUTOMATION_FAILED, None, None, None, said, None)

    found = row(member)

    assert found["endpoint"] == r"\*.h.test:443"
    assert found["why"] == (
        r"refused: \<img src=x onerror=alert(1)\> \[click\](http://evil.test) \|"
        r" \*\*bold\*\* next"
    )


def away() -> httpx.HTTPError:
    return httpx.ConnectError("connection refused", request=POST)


def answered(status: int) -> httpx.HTTPError:
    return httpx.HTTPStatusError(f"{status}", request=POST, response=httpx.Response(status))


class FakeServer:
    """Takes what is written, except where a piece is to fail; the last failure goes on."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.tried: list[str] = []

    def piece(self, name: str, *failures: httpx.HTTPError | None) -> Callable[[], Awaitable[None]]:
        left: Iterator[httpx.HTTPError | None] = iter(failures)

        async def write() -> None:
            self.tried.append(name)
            if (failure := next(left, failures[-1] if failures else None)) is not None:
                raise failure
            self.stored.append(name)

        return write


def test_what_prefect_does_not_take_while_it_is_away_is_written_when_it_is_back() -> None:
    """A restart of the server at a job's end costs none of its page, and doubles nothing."""
    server = FakeServer()
    pieces = [
        server.piece("failures", away(), answered(500), None),
        server.piece("table"),
        server.piece("table-2", answered(503), None),
    ]

    lost = asyncio.run(written(pieces, within=30, pause=0))

    assert lost == []
    assert server.stored == ["failures", "table", "table-2"]


def test_what_is_refused_for_good_is_told_at_once_and_the_rest_is_written() -> None:
    """Trying a request again that the server calls wrong would only hold up the job's end."""
    server = FakeServer()
    pieces = [server.piece("failures", answered(422)), server.piece("table")]

    lost = asyncio.run(written(pieces, within=30, pause=0))

    assert lost == ["422"]
    assert server.tried == ["failures", "table"]
    assert server.stored == ["table"]


def test_what_the_server_cannot_store_does_not_cost_the_rest() -> None:
    """It answers, so the next one may be taken although the time is over."""
    server = FakeServer()
    pieces = [server.piece("failures", answered(500)), server.piece("table")]

    lost = asyncio.run(written(pieces, within=0.05, pause=0.01))

    assert lost == ["500"]
    assert server.tried.count("failures") > 1
    assert server.stored == ["table"]


def test_a_server_that_stays_away_is_not_waited_for_forever() -> None:
    """The job ends without its page, and says what is missing."""
    server = FakeServer()
    pieces = [server.piece("failures", away()), server.piece("table", away())]
    began = time.monotonic()

    lost = asyncio.run(written(pieces, within=0.05, pause=0.01))

    assert time.monotonic() - began >= 0.05
    assert lost == ["connection refused"]
    assert set(server.tried) == {"failures"}
