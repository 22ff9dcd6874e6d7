"""Issuing certificate: all that a CA wants, as one step.

Appliance and delivery requests show account, validation and issuance under
one title; the work is that of the web-server steps.
"""

from __future__ import annotations

from certrail.connectors import CertificateAuthority, ValidatesDomains
from certrail.steps import account, issuance, validation
from certrail.steps.outcome import Outcome, Work
from certrail.steps.validation import OpenResponder
from certrail.tracker import StepStatus


def issue(work: Work, ca: CertificateAuthority, responder: OpenResponder) -> Outcome:
    """Open the order, prove control where the CA asks for it, and keep the chain."""
    if isinstance(ca, ValidatesDomains):
        account.ensure_account(work, ca)
    proven = validation.validate(work, ca, responder)
    issued = issuance.issue(work, ca)
    if proven.status is StepStatus.COMPLETED:
        return Outcome.completed(f"{issued.detail}; {proven.detail}")
    return issued
