"""The filter language of the inventory."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from certrail.errors import InvalidRequest
from certrail.store.filters import Clause, Operator, render
from certrail.store.inventory import parse_filter


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("status=ready", Clause("automation_status", Operator.EQUAL, ("ready",))),
        ("names~shop", Clause("names", Operator.CONTAINS, ("shop",))),
        ("days_left<30", Clause("days_left", Operator.LESS, (30.0,))),
        ("days_left >= -1", Clause("days_left", Operator.AT_LEAST, (-1.0,))),
        ("tag=shop,blog", Clause("tags", Operator.EQUAL, ("shop", "blog"))),
        ("job='a, and \"b\"'", Clause("job_name", Operator.EQUAL, ('a, and "b"',))),
        ("profile=", Clause("profile", Operator.EQUAL, ())),
        ("profile!=", Clause("profile", Operator.NOT_EQUAL, ())),
        ("location=[::1]:443", Clause("location", Operator.EQUAL, ("[::1]:443",))),
        ("issuer!~Let", Clause("issuer", Operator.CONTAINS_NOT, ("Let",))),
        (
            "not_after<2027-01-31",
            Clause("not_after", Operator.LESS, (datetime(2027, 1, 31, tzinfo=UTC),)),
        ),
        ("STATUS=Ready", Clause("automation_status", Operator.EQUAL, ("Ready",))),
        (
            "status='Automation failed'",
            Clause("automation_status", Operator.EQUAL, ("Automation failed",)),
        ),
        ("status~failed", Clause("automation_status", Operator.CONTAINS, ("failed",))),
        ("risk=served-differs", Clause("risks", Operator.EQUAL, ("served-differs",))),
    ],
)  # fmt: skip
def test_clauses(text: str, clause: Clause) -> None:
    """What people type becomes one condition of the right kind."""
    assert parse_filter(text) == [clause]


def test_clauses_are_joined_by_and() -> None:
    """All of them must hold; the word is not a value unless it is quoted."""
    found = parse_filter('profile= and tag="and" AND days_left<3')

    assert [(c.field, c.values) for c in found] == [
        ("profile", ()),
        ("tags", ("and",)),
        ("days_left", (3.0,)),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("stauts=x", "did you mean status"),
        ("zzz=x", "known are"),
        ("status", "operator is expected"),
        ("status=a b", "`and` is expected"),
        ("status=a and", "`and` is expected"),
        ("and status=a", "no field"),
        ("=x", "field name is expected"),
        ("status<x", "compared with"),
        ("days_left~3", "compared with"),
        ("days_left<soon", "is a number"),
        ("days_left<nan", "up to 1000000"),
        ("days_left<inf", "up to 1000000"),
        ("days_left>-inf", "up to 1000000"),
        ("days_left<1e15", "up to 1000000"),
        ("lifetime_days=1000001", "up to 1000000"),
        ("status=failed", "did you mean automation-failed"),
        ("status=ready,failed", "no automation_status 'failed'"),
        ("status!=readdy", "did you mean ready"),
        ("status=zzz", "known are: not-configured, ready, "),
        ("risk=expired", "did you mean certificate-expired"),
        ("days_left<1,2", "takes one value"),
        ("days_left<", "a value is expected"),
        ("names~", "a value is expected"),
        ("tag=a,", "after the comma"),
        ("tag=,a", "a value is expected"),
        ("not_after<soon", "is a time"),
        ("status='x", "cannot be read"),
        ("status=x; drop table endpoints", "`and` is expected"),
        ("a" * 3000, "longer than"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, why: str) -> None:
    """A filter that is silently understood otherwise would start jobs on the wrong endpoints."""
    with pytest.raises(InvalidRequest, match=why):
        parse_filter(text)


_TEXTS = st.text(st.characters(exclude_characters='"', exclude_categories=["Cs"]), min_size=1)
_FIELDS = st.sampled_from(["location", "tags", "profile", "issuer"])
_CLAUSES = st.one_of(
    st.builds(
        Clause,
        _FIELDS,
        st.sampled_from([Operator.EQUAL, Operator.NOT_EQUAL, Operator.CONTAINS]),
        st.lists(_TEXTS, min_size=1, max_size=3).map(tuple),
    ),
    st.builds(Clause, _FIELDS, st.just(Operator.EQUAL), st.just(())),
    st.builds(
        Clause,
        st.just("days_left"),
        st.sampled_from([Operator.LESS, Operator.AT_LEAST]),
        st.integers(-(10**6), 10**6).map(lambda days: (float(days),)),
    ),
    st.builds(
        Clause,
        st.just("not_after"),
        st.just(Operator.GREATER),
        st.datetimes(timezones=st.just(UTC)).map(lambda moment: (moment,)),
    ),
)


@given(st.lists(_CLAUSES, min_size=1, max_size=3))
def test_what_is_written_is_read_back(clauses: list[Clause]) -> None:
    """Saved views and the dashboard hold filters as text; they must select the same rows."""
    text = " and ".join(render(clause) for clause in clauses)
    assume(len(text) <= 2000)

    assert parse_filter(text) == clauses


def test_a_value_with_both_quotes_cannot_be_written() -> None:
    """Nothing else is saved in its place."""
    with pytest.raises(InvalidRequest):
        render(Clause("issuer", Operator.EQUAL, ("a\"b'c",)))
