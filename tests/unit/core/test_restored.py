"""After a restore: which served certificate is what a request would order."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from certrail.model import KeyAlgorithm
from certrail.restored import Code, Restored, Served, Wanted, judge

MADE = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
RESTORED = Restored(made_at=MADE, at=MADE + timedelta(hours=30))
NAMES = frozenset({"www.example.test"})
SERVED = Served("new", NAMES, KeyAlgorithm.ECDSA_P256, MADE + timedelta(hours=5))
WANTED = Wanted(NAMES, KeyAlgorithm.ECDSA_P256, previous="old")
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("served", "expected"),
    [
        pytest.param(SERVED, Code.TAKEN, id="issued between"),
        pytest.param(replace(SERVED, fingerprint="old"), Code.KNOWN, id="the one of the backup"),
        pytest.param(replace(SERVED, is_revoked=True), Code.REVOKED, id="revoked"),
        pytest.param(
            replace(SERVED, not_before=MADE - timedelta(hours=1)), Code.TAKEN, id="dated back"
        ),
        pytest.param(
            replace(SERVED, not_before=MADE - timedelta(hours=1) - SECOND),
            Code.NOT_BETWEEN,
            id="before the backup",
        ),
        pytest.param(replace(SERVED, not_before=RESTORED.at), Code.TAKEN, id="at the last moment"),
        pytest.param(
            replace(SERVED, not_before=RESTORED.at + SECOND),
            Code.NOT_BETWEEN,
            id="somebody else's, after the restore",
        ),
        pytest.param(replace(SERVED, names=NAMES | {"example.test"}), Code.NAMES, id="more names"),
        pytest.param(replace(SERVED, names=frozenset()), Code.NAMES, id="no names"),
        pytest.param(
            replace(SERVED, algorithm=KeyAlgorithm.RSA_2048), Code.KEY, id="another kind of key"
        ),
        pytest.param(replace(SERVED, algorithm=None), Code.KEY, id="a key nobody asks for"),
    ],
)
def test_what_is_served(served: Served, expected: Code) -> None:
    """Taken only where the old installation must have put it there after the backup."""
    assert expected is judge(RESTORED, served, WANTED).code


def test_a_first_certificate_has_none_before_it() -> None:
    """The old installation enrolled the endpoint after the backup."""
    assert judge(RESTORED, SERVED, replace(WANTED, previous="")).code is Code.TAKEN


@pytest.mark.parametrize(
    ("age", "reason", "expected"),
    [
        pytest.param(-SECOND, "requested", True, id="a person's, in the backup"),
        pytest.param(-SECOND, "renewal-profile-changed", True, id="the policy's, in the backup"),
        pytest.param(SECOND, "requested", False, id="a person's, after the restore"),
        pytest.param(SECOND, "renewal-due", True, id="due by what the backup knows"),
        pytest.param(SECOND, "renewal-expired", True, id="expired by what the backup knows"),
        pytest.param(SECOND, "renewal-names-changed", False, id="names changed since"),
        pytest.param(SECOND, "renewal-profile-changed", False, id="another profile since"),
        pytest.param(SECOND, "renewal-ca-distrusted", False, id="an issuer distrusted since"),
    ],
)
def test_whose_certificate_may_be_there(age: timedelta, reason: str, expected: bool) -> None:
    """What a person asks for after the restore is a new certificate, whatever is served."""
    assert expected == RESTORED.may_be_served(RESTORED.at + age, reason)


def test_a_clock_that_is_behind_takes_nothing_away() -> None:
    """The new machine's clock may be behind that of the old one."""
    behind = Restored(made_at=MADE, at=MADE - timedelta(minutes=5))

    assert behind.knew(MADE - timedelta(minutes=1))
