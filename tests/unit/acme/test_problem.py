"""Problem documents become errors with a cause and a remedy."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.acme.problem import PREFIX, Problem, remedy_for, validation_remedy
from certrail.errors import (
    AuthenticationFailed,
    CertrailError,
    Conflict,
    ConnectorError,
    DomainNotValidated,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    Throttled,
    Unreachable,
)

PAUSE = timedelta(seconds=90)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("accountDoesNotExist", 400, AuthenticationFailed),
        ("alreadyReplaced", 409, Rejected),
        ("alreadyRevoked", 400, Rejected),
        ("badCSR", 400, Rejected),
        ("badNonce", 400, Unreachable),
        ("badPublicKey", 400, Rejected),
        ("badRevocationReason", 400, Rejected),
        ("badSignatureAlgorithm", 400, Rejected),
        ("caa", 403, Rejected),
        ("compound", 400, Rejected),
        ("connection", 400, DomainNotValidated),
        ("dns", 400, DomainNotValidated),
        ("dnssec", 400, DomainNotValidated),
        ("externalAccountRequired", 403, AuthenticationFailed),
        ("incorrectResponse", 400, DomainNotValidated),
        ("invalidContact", 400, Rejected),
        ("invalidProfile", 400, InvalidRequest),
        ("malformed", 400, Rejected),
        ("malformed", 404, NotFound),
        ("orderNotReady", 403, Conflict),
        ("rateLimited", 429, Throttled),
        ("rateLimited", 503, Throttled),
        ("rejectedIdentifier", 400, Rejected),
        ("serverInternal", 500, Unreachable),
        ("tls", 400, DomainNotValidated),
        ("unauthorized", 403, PermissionRefused),
        ("unsupportedContact", 400, Rejected),
        ("unsupportedIdentifier", 400, Rejected),
        ("userActionRequired", 403, Rejected),
        ("inventedLater", 400, Rejected),
        ("inventedLater", 401, AuthenticationFailed),
        ("inventedLater", 403, PermissionRefused),
        ("inventedLater", 404, NotFound),
        ("inventedLater", 409, Conflict),
        ("inventedLater", 429, Throttled),
        ("inventedLater", 502, Unreachable),
    ],
)
def test_every_type_has_its_error_and_a_remedy(
    code: str, status: int, kind: type[CertrailError]
) -> None:
    """The error decides about retries, and a person reads cause and remedy."""
    problem = Problem.parse({"type": PREFIX + code, "detail": "the CA's words"}, status)

    error = problem.error("new order", connector="le", retry_after=PAUSE)

    assert type(error) is kind
    assert str(error) == f"new order: the CA's words ({code})"
    assert error.remedy
    if isinstance(error, ConnectorError):
        assert (error.connector, error.code, error.retry_after) == ("le", PREFIX + code, PAUSE)


def test_a_busy_server_that_names_a_pause_is_throttling() -> None:
    """503 with Retry-After is how load balancers slow clients down."""
    assert isinstance(Problem(status=503).error("x", retry_after=PAUSE), Throttled)
    assert isinstance(Problem(status=503).error("x"), Unreachable)


def test_problems_of_single_names_are_told_with_their_name() -> None:
    """With a hundred names in an order, "rejected" alone helps nobody."""
    problem = Problem.parse(
        {
            "type": PREFIX + "malformed",
            "detail": "Some of the identifiers were rejected",
            "subproblems": [
                {
                    "type": PREFIX + "rejectedIdentifier",
                    "detail": "forbidden by policy",
                    "identifier": {"type": "dns", "value": "bad.test"},
                },
                {
                    "type": PREFIX + "caa",
                    "detail": "CAA record says no",
                    "identifier": {"type": "dns", "value": "worse.test"},
                },
            ],
        },
        403,
    )

    text = str(problem.error("new order"))

    assert "bad.test: forbidden by policy (rejectedIdentifier)" in text
    assert "worse.test: CAA record says no (caa)" in text


def test_new_terms_of_service_are_named() -> None:
    """The page to open is in the document; without it nobody knows what to do."""
    problem = Problem.parse(
        {"type": PREFIX + "userActionRequired", "instance": "https://ca.test/terms"}, 403
    )

    assert "https://ca.test/terms" in problem.error("new order").remedy


def test_control_characters_cannot_forge_log_lines() -> None:
    """The CA's words end up in logs and on terminals."""
    problem = Problem.parse({"detail": "first\nsecond\x1b[31m"}, 400)

    assert "\n" not in str(problem)
    assert "\x1b" not in str(problem)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=12,
)
fields = st.sampled_from(["type", "detail", "title", "identifier", "subproblems", "instance"])


@given(st.dictionaries(fields, json_values) | json_values, st.integers(100, 599))
def test_any_json_makes_a_printable_error(data: Any, status: int) -> None:
    """What stands in front of the CA answers with JSON of its own."""
    problem = Problem.parse(data, status)
    error = problem.error("new order")

    assert str(error).isprintable() or all(
        ord(sign) > 159 for sign in str(error) if not sign.isprintable()
    )
    assert len(str(error)) < 2100
    assert error.remedy


def test_remedies_for_failed_validations_speak_of_the_proof() -> None:
    """In a validation "unauthorized" means a wrong proof, not a wrong account."""
    assert "account" in remedy_for("unauthorized")
    assert "account" not in validation_remedy(f"{PREFIX}unauthorized")
    assert "CAA" in validation_remedy("caa")
    assert validation_remedy("")
    assert remedy_for("inventedLater") == ""
