"""Where a proof by DNS stands, for ACME and for other CAs."""

from __future__ import annotations

from dataclasses import asdict

from certrail.model import Challenge, ChallengeKind

ACME = Challenge(
    ChallengeKind.DNS_01, "https://ca/1", "https://ca/2", "a.test", "token", "token.print", "value"
)


def test_acme_has_one_place() -> None:
    """RFC 8555 section 8.4."""
    assert ACME.record_name == "_acme-challenge.a.test"


def test_another_ca_says_where_it_looks() -> None:
    """CertCentral looks at the domain itself, or at a label of its own below it."""
    assert Challenge(**{**asdict(ACME), "txt_name": "a.test"}).record_name == "a.test"


def test_challenges_noted_before_there_was_a_choice_can_be_read() -> None:
    """The journal of an interrupted request may be older than this version."""
    noted = asdict(ACME)
    del noted["txt_name"]

    assert Challenge(**noted) == ACME
