"""The tables of a job in Prefect: every endpoint in one of them, none too long for a browser."""

from __future__ import annotations

import re

import pytest

from certrail.store.job_results import Member
from certrail.tracker import Status
from tasks._job_page import parts, row


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
