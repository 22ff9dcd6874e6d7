"""What is checked before a certificate leaves for a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certrail.errors import InvalidRequest
from certrail.model import Bundle, Chain
from certrail.x509.chain import describe, is_self_signed, must_be_installable, ordered
from tests.support.nginx import TestCa

CA = TestCa()
BUNDLE = CA.bundle("a.test")
LEAF, INTERMEDIATE = BUNDLE.chain.certificates
NOW = datetime.now(UTC)


@settings(deadline=None)
@given(st.permutations([LEAF, INTERMEDIATE, CA.root, CA.bundle("b.test").chain.leaf]))
def test_a_shuffled_chain_is_put_in_order(certificates: list[object]) -> None:
    """Vendors hand out bundles in any order, with the root and with strangers."""
    assert ordered(certificates, LEAF).certificates == [LEAF, INTERMEDIATE]  # type: ignore[arg-type]


def test_a_lone_self_signed_certificate_stays() -> None:
    """There is nothing else to send."""
    assert [CA.root] == ordered([CA.root], CA.root).certificates
    assert is_self_signed(CA.root)
    assert not is_self_signed(LEAF)


def test_a_good_bundle_passes() -> None:
    """Leaf, intermediate, key: as every CA hands it out."""
    must_be_installable(BUNDLE)


@pytest.mark.parametrize(
    ("bundle", "words"),
    [
        pytest.param(
            CA.bundle("a.test", not_before=NOW - timedelta(2), not_after=NOW - timedelta(1)),
            "expired on",
            id="expired",
        ),
        pytest.param(
            CA.bundle("a.test", not_before=NOW + timedelta(1), not_after=NOW + timedelta(2)),
            "not valid before .* by the clock of this worker",
            id="not yet valid",
        ),
        pytest.param(
            Bundle(Chain.of([LEAF, CA.root]), BUNDLE.key),
            "Test Root did not issue CN=a.test",
            id="gap in the chain",
        ),
        pytest.param(
            Bundle(Chain.of([INTERMEDIATE, LEAF]), None), "is a CA certificate", id="wrong order"
        ),
        pytest.param(
            Bundle(BUNDLE.chain, CA.bundle("a.test").key),
            "do not belong together",
            id="key of another certificate",
        ),
        pytest.param(Bundle(Chain(()), None), "chain is empty", id="nothing"),
    ],
)
def test_what_would_not_serve_is_refused(bundle: Bundle, words: str) -> None:
    """Before anything is uploaded, since servers notice late or never."""
    with pytest.raises(InvalidRequest, match=words):
        must_be_installable(bundle)


def test_a_certificate_is_described_by_subject_or_name() -> None:
    """Messages name certificates the way people know them."""
    assert describe(LEAF) == "CN=a.test"
