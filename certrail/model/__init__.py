"""Frozen values that cross interfaces.

What a method returns so that a later call can refer to it (:class:`Order`,
:class:`Staged`) is plain data that goes through JSON, because the later call
may happen in another process after a crash. These names are what connectors
import, ours and other people's.
"""

from __future__ import annotations

from certrail.model.certificates import (
    UNREADABLE,
    Bundle,
    Chain,
    Csr,
    Fingerprint,
    SubjectSpec,
    fingerprint,
    key_hash,
    key_text,
    serial_text,
    subject_names,
)
from certrail.model.orders import (
    Account,
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeKind,
    Order,
    OrderKey,
    OrderSpec,
    OrderStatus,
    RenewalInfo,
    RevocationReason,
    TxtRecord,
)
from certrail.model.requests import STARTED, Action, KeyAlgorithm, Workflow
from certrail.model.sites import Site, Staged

__all__ = [
    "STARTED",
    "UNREADABLE",
    "Account",
    "Action",
    "Authorization",
    "AuthorizationStatus",
    "Bundle",
    "Chain",
    "Challenge",
    "ChallengeKind",
    "Csr",
    "Fingerprint",
    "KeyAlgorithm",
    "Order",
    "OrderKey",
    "OrderSpec",
    "OrderStatus",
    "RenewalInfo",
    "RevocationReason",
    "Site",
    "Staged",
    "SubjectSpec",
    "TxtRecord",
    "Workflow",
    "fingerprint",
    "key_hash",
    "key_text",
    "serial_text",
    "subject_names",
]
