"""Certificate installed: stage, check, switch, verify, or restore."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from certrail import log
from certrail.connectors import DeliveryTarget, HoldsKey, InstallTarget
from certrail.errors import ActivationRefused, CertrailError, InvalidRequest
from certrail.model import Bundle, Site, Staged
from certrail.policy import Undo, undo_installation
from certrail.steps import serving
from certrail.steps.outcome import Outcome, Work
from certrail.store import certificates, keys, requests
from certrail.store.certificates import Certificate
from certrail.store.database import locked, transaction
from certrail.tls.findings import Reason
from certrail.tls.probe import ProbeReport

OpenTarget = Callable[[], AbstractContextManager[tuple[InstallTarget, Site]]]

_STAGE, _ACTIVATE, _RESTORE = "install.stage", "install.activate", "install.restore"
# The target switched, but clients do not see it: the installation did not work.
_NOT_SWITCHED = frozenset(
    {
        Reason.LEAF_DIFFERS,
        Reason.UNREACHABLE,
        Reason.HANDSHAKE_FAILED,
        Reason.KEY_MISMATCH,
        Reason.NO_CERTIFICATE,
        Reason.WRONG_PROTOCOL,
        Reason.ADDRESSES_DISAGREE,
        Reason.STARTTLS_REFUSED,
    }
)


def install(work: Work, open_target: OpenTarget) -> Outcome:
    """Install the request's certificate and see by a handshake that it is served.

    Changes on one target are made one after the other.

    Raises:
        ActivationRefused: the target refused, or went on serving something
            else; what was there before serves again.
    """
    certificate = issued(work)
    with open_target() as (target, site), locked(lock_name(work, target)):
        bundle = bundle_for(certificate, target)
        staged = _stage(work, target, site, bundle)
        line = _activate(work, target, staged)
        report = serving.settled(work.plan, bundle.chain)
        wrong = [f for f in report.failures if f.code in _NOT_SWITCHED]
        if wrong:
            told = _undo(work, target, staged)
            raise ActivationRefused(
                f"{line}, but {wrong[0].message}; {told}", remedy=wrong[0].remedy
            )
    return Outcome.completed(line)


def accept(work: Work, open_target: OpenTarget) -> None:
    """Drop what is no longer needed once the installation has passed its test."""
    staged = _staged(work)
    if staged is None:
        return
    with open_target() as (target, _), locked(lock_name(work, target)):
        try:
            target.discard(staged)
        except CertrailError as exc:
            # Leftovers do no harm and go with the next renewal.
            log.logger.warning("install.discard failed: %s", exc)


def undo(work: Work, open_target: OpenTarget, report: ProbeReport) -> str:
    """Put back what served before, if that is better than what serves now.

    Returns one line for people about what was done and what serves.
    """
    staged = _staged(work)
    if staged is None:
        return "nothing was changed"
    verdict = undo_installation(_previous(work), datetime.now(UTC))
    if verdict.code is Undo.KEEP:
        return f"the new certificate stays, since {verdict.message}"
    with open_target() as (target, _), locked(lock_name(work, target)):
        return _undo(work, target, staged)


def _stage(work: Work, target: InstallTarget, site: Site, bundle: Bundle) -> Staged:
    fingerprint = bundle.chain.fingerprint
    with work.journal.effect(_STAGE, fingerprint, {"site": site.id}) as effect:
        if effect.outcome is None:
            staged = target.stage(site, bundle, target.serving(site))
            effect.record(
                {"summary": staged.summary},
                lambda connection: requests.keep_staged(
                    connection, work.request.id, staged.to_json()
                ),
            )
            log.effect(_STAGE, request=work.request.id, site=site.id, what=staged.summary)
            return staged
    stored = _staged(work)
    if stored is None:
        raise InvalidRequest("what was staged is not on record", remedy="Retry the request.")
    return stored


def _activate(work: Work, target: InstallTarget, staged: Staged) -> str:
    with work.journal.effect(_ACTIVATE, staged.fingerprint) as effect:
        if effect.outcome is not None:
            return str(effect.outcome["line"])
        try:
            line = target.activate(staged)
        except CertrailError as exc:
            # A clear no: what is staged is stale. Otherwise nobody knows how far
            # it got, and the next try goes on with the same staged files.
            if not exc.retryable:
                _forget(work, target, staged)
            raise
        effect.record({"line": line})
        log.effect(_ACTIVATE, request=work.request.id, site=staged.site, what=line)
        return line


def _undo(work: Work, target: InstallTarget, staged: Staged) -> str:
    with work.journal.effect(_RESTORE, f"{staged.fingerprint}:{work.request.run_count}") as effect:
        line = target.restore(staged)
        effect.record({"line": line})
    log.effect(_RESTORE, request=work.request.id, site=staged.site, what=line)
    _forget(work, target, staged)
    now = serving.served(work.plan)
    if staged.replaces is None:
        return f"{line}; nothing was served there before"
    if now == staged.replaces:
        return f"{line}; the previous certificate serves again"
    seen = f"{now[:16]}…" if now else "nothing"
    return f"{line}; a client now sees {seen} instead of the previous certificate"


def _forget(work: Work, target: InstallTarget, staged: Staged) -> None:
    """Make the next run stage and activate anew: what was done is undone."""
    try:
        target.discard(staged)
    except CertrailError as exc:
        log.logger.warning("install.discard failed: %s", exc)
    work.journal.forget(_STAGE, staged.fingerprint)
    work.journal.forget(_ACTIVATE, staged.fingerprint)
    with transaction() as connection:
        requests.keep_staged(connection, work.request.id, None)


def issued(work: Work) -> Certificate:
    """Return the certificate that the request obtained.

    Raises:
        InvalidRequest: there is none yet.
    """
    if work.request.certificate_id is None:
        raise InvalidRequest(
            "the request has no certificate to install",
            remedy="Retry: issuance is gone through again, without a second order.",
        )
    return certificates.get(work.request.certificate_id)


def bundle_for(certificate: Certificate, target: object) -> Bundle:
    """Return chain and key for *target*; without the key where the target holds it.

    Raises:
        InvalidRequest: the key is neither in the store nor on the target.
    """
    if certificate.key_id is None and isinstance(target, HoldsKey):
        return Bundle(certificate.chain, None)
    if certificate.key_id is None:
        raise InvalidRequest(
            "the private key of this certificate is not in the key store",
            remedy="Start a reissue, which makes a new key.",
        )
    bundle = Bundle(certificate.chain, keys.load(certificate.key_id))
    bundle.must_match()
    return bundle


def _previous(work: Work) -> Certificate | None:
    staged = _staged(work)
    if staged is None or staged.replaces is None:
        return None
    return certificates.by_fingerprint(staged.replaces)


def _staged(work: Work) -> Staged | None:
    return Staged.from_json(work.request.staged) if work.request.staged else None


def lock_name(work: Work, target: InstallTarget | DeliveryTarget) -> str:
    """Return the name of the lock under which *target* is changed."""
    named = work.plan.target
    return f"target:{target.lock_name or (named.reference if named else work.plan.location)}"
