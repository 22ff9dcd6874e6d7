"""ACME account created: create the account, or find and verify the existing one."""

from __future__ import annotations

from urllib.parse import urlsplit

from certrail.connectors import CertificateAuthority, ValidatesDomains
from certrail.model import Account
from certrail.steps.outcome import Outcome, Work


def ensure_account(work: Work, ca: CertificateAuthority) -> Outcome:
    """Return once an account that the CA accepts is there.

    The stored account is the journal here: its key is kept before the first
    newAccount, its URL after, and newAccount with a known key returns the
    account that exists (RFC 8555 section 7.3.1). Repeating after a crash
    makes no second account.
    """
    if not isinstance(ca, ValidatesDomains):
        return Outcome.skipped(f"{work.plan.ca.name} needs no account")
    return Outcome.completed(_detail(ca.ensure_account(), work.plan.ca.name))


def _detail(account: Account, ca: str) -> str:
    short = "/".join(urlsplit(account.url).path.strip("/").split("/")[-2:]) or account.url
    return f"account {short} at {ca} {'created' if account.created else 'found and verified'}"
