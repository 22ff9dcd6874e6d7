"""What we ask of the outside world: one abstract class per kind of connector.

A vendor lives in ``blocks/<kind>/<vendor>.py`` and nothing outside that file
names it. Every method may raise any ``ConnectorError``; a method's docstring
lists only the errors callers treat specially. No method sleeps or retries,
and each has a deadline of its own. These names are what connectors import, ours
and other people's.
"""

from __future__ import annotations

from certrail.connectors.authorities import (
    CertificateAuthority,
    FindsOrders,
    ListsOrders,
    OffersRenewalInfo,
    ValidatesDomains,
)
from certrail.connectors.base import Connector
from certrail.connectors.hosts import CommandResult, FileInfo, Host
from certrail.connectors.notifiers import Notifier
from certrail.connectors.targets import (
    DeliveryTarget,
    HoldsKey,
    InstallTarget,
    MakesKeyFiles,
    SwitchesTogether,
    Traits,
)
from certrail.connectors.validation import ChallengeResponder, DnsProvider

__all__ = [
    "CertificateAuthority",
    "ChallengeResponder",
    "CommandResult",
    "Connector",
    "DeliveryTarget",
    "DnsProvider",
    "FileInfo",
    "FindsOrders",
    "HoldsKey",
    "Host",
    "InstallTarget",
    "ListsOrders",
    "MakesKeyFiles",
    "Notifier",
    "OffersRenewalInfo",
    "SwitchesTogether",
    "Traits",
    "ValidatesDomains",
]
