"""Places in the hours of a CA: never too many, the critical ones first."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certrail.renewal.budget import Wish, allot, hour_of

NOW = datetime(2029, 1, 1, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


def wish(key: int, at: datetime, criticality: str = "normal", days: float = 10) -> Wish[int]:
    return Wish(key, at, criticality, NOW + timedelta(days=days))


def test_what_fits_stays_where_it_is() -> None:
    """Moments are only moved where a budget says so."""
    wishes = [wish(n, NOW + n * HOUR) for n in range(1, 50)]
    assert allot(wishes, per_hour=1, taken={}, now=NOW) == {w.key: w.at for w in wishes}


def test_a_mass_revocation_replaces_the_critical_ones_first() -> None:
    """All windows moved to now: ten thousand certificates, three hundred in an hour."""
    ranks = ("low", "normal", "critical", "high")
    wishes = [wish(n, NOW, ranks[n % 4], days=n % 97) for n in range(10_000)]
    found = allot(wishes, per_hour=300, taken={}, now=NOW)
    assert max(Counter(hour_of(at) for at in found.values()).values()) <= 300
    order = sorted(wishes, key=lambda w: found[w.key])
    told = [w.criticality for w in order]
    assert told == sorted(told, key=["critical", "high", "normal", "low"].index)
    assert max(found.values()) - NOW < 35 * HOUR
    # Even, not three hundred in one second.
    assert len(set(found.values())) == 10_000


def test_what_is_taken_stays_taken() -> None:
    """An operator's own moment is not moved by the others."""
    hour = hour_of(NOW + HOUR)
    found = allot([wish(1, NOW + HOUR)], per_hour=2, taken={hour: 2}, now=NOW)
    assert hour_of(found[1]) == hour + 1


# A busy machine makes examples slowly: time says nothing here.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.integers(-600, 6000), st.sampled_from(["critical", "normal", "low"])),
        max_size=200,
    ),
    st.integers(1, 20),
    st.dictionaries(st.integers(0, 20), st.integers(0, 25), max_size=10),
)
def test_no_hour_has_more_than_its_budget(
    given_: list[tuple[int, str]], per_hour: int, taken: dict[int, int]
) -> None:
    """The CA counts, whatever our reasons are."""
    base = {hour_of(NOW) + hour: count for hour, count in taken.items()}
    wishes = [wish(n, NOW + timedelta(minutes=m), c) for n, (m, c) in enumerate(given_)]
    found = allot(wishes, per_hour=per_hour, taken=base, now=NOW)
    assert set(found) == {w.key for w in wishes}
    used = Counter(hour_of(at) for at in found.values())
    for hour, count in used.items():
        assert count + base.get(hour, 0) <= per_hour
    for one in wishes:
        assert found[one.key] >= max(one.at, NOW)
