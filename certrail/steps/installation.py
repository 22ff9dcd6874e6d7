"""Certificate installed: stage, check, switch, verify, or restore."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from uuid import uuid4

from certrail import log
from certrail.connectors import DeliveryTarget, HoldsKey, InstallTarget, MakesKeyFiles
from certrail.errors import ActivationRefused, CertrailError, InvalidRequest
from certrail.journal import Effect
from certrail.model import Bundle, Fingerprint, Site, Staged
from certrail.policy import Undo, undo_installation
from certrail.steps import observing, restored, serving
from certrail.steps.outcome import Outcome, Work
from certrail.steps.rollback import Told, again, take_back
from certrail.steps.together import Ticket, turn
from certrail.store import certificates, keys, requests
from certrail.store.certificates import Certificate
from certrail.store.database import locked, transaction

OpenTarget = Callable[[], AbstractContextManager[tuple[InstallTarget, Site]]]

_DISCARDS = 3
"""How often what is no longer needed is tried to be dropped, by a new connection each time."""

_STAGE, _ACTIVATE, _RESTORE = "install.stage", "install.activate", "install.restore"


def install(work: Work, open_target: OpenTarget) -> Outcome:
    """Install the request's certificate and see by a handshake that it is served.

    Changes on one target are made one after the other.

    Raises:
        ActivationRefused: the target refused, or went on serving something
            else; what was there before serves again.
    """
    certificate = issued(work)
    with open_target() as (target, site):
        if (newer := taken_back(work)) is not None:
            with locked(lock_name(work, target)):
                return take_back(work, target, site, newer, certificate.chain)
        if restored.is_taken(work, certificate) and target.serving(site) == certificate.fingerprint:
            return Outcome.completed("it is installed there already, since before the restore")
        bundle = bundle_for(certificate, target)
        ticket = Ticket(
            target, lambda: _stage(work, target, site, bundle), lambda staged: _begin(work, staged)
        )
        with turn(lock_name(work, target), ticket):
            return _switched(work, target, site, bundle, ticket.staged)


def _switched(
    work: Work, target: InstallTarget, site: Site, bundle: Bundle, staged: Staged | None
) -> Outcome:
    """Stage and activate unless that is done, and see by a handshake that it is served."""
    staged = staged or _stage(work, target, site, bundle)
    line = _activate(work, target, staged)
    wrong = observing.amiss(work, target, site, bundle.chain)
    if wrong:
        told = _undo(work, target, staged)
        raise ActivationRefused(
            f"{line}, but {wrong.message}; {told.line}",
            remedy=told.remedy or wrong.remedy,
        )
    return Outcome.completed(line)


def accept(work: Work, open_target: OpenTarget) -> None:
    """Drop what is no longer needed once the installation has passed its test."""
    staged = _staged(work)
    # What was taken back is one of the versions kept: it goes when newer ones have come.
    if staged is None or taken_back(work) is not None:
        return
    for _ in range(_DISCARDS):
        with open_target() as (target, _), locked(lock_name(work, target)):
            if _discard(target, staged):
                return


def _discard(target: InstallTarget, staged: Staged) -> bool:
    """Return whether all is done, or another try would not help."""
    try:
        target.discard(staged)
    except CertrailError as exc:
        # Leftovers do no harm and go with the next renewal.
        log.logger.warning("install.discard failed: %s", exc)
        return not exc.retryable
    return True


def undo(work: Work, open_target: OpenTarget) -> Told:
    """Put back what served before, if that is better than what serves now."""
    staged = _staged(work)
    if staged is None:
        return Told("nothing was changed")
    with open_target() as (target, _), locked(lock_name(work, target)):
        if (newer := taken_back(work)) is not None:
            return again(work, target, newer)
        return _undo(work, target, staged)


def taken_back(work: Work) -> Staged | None:
    """Return what the target itself is to take back, None where a certificate is installed."""
    kept = work.plan.takes_back
    return Staged.from_json(kept) if kept is not None else None


def _stage(work: Work, target: InstallTarget, site: Site, bundle: Bundle) -> Staged:
    fingerprint = bundle.chain.fingerprint
    with work.journal.effect(_STAGE, fingerprint, {"site": site.id}) as effect:
        if effect.outcome is None:
            if not effect.is_repeated and work.request.run_count > 1:
                # Whatever became of it: from here on something else is to serve.
                work.journal.superseded(_RESTORE, "installed anew")
            present = target.serving(site)
            if present is not None:
                _keep_previous(work, present)
            staged = target.stage(site, bundle, present)
            if staged.replaces == fingerprint:
                # It serves already: an undo was cut off, and what was before is on record there.
                staged = _undone_last(work, fingerprint) or staged
            effect.record(
                {"summary": staged.summary},
                lambda connection: work.keep_staged(connection, staged.to_json()),
            )
            log.effect(_STAGE, request=work.request.id, site=site.id, what=staged.summary)
            return staged
    stored = _staged(work)
    if stored is None:
        raise InvalidRequest("what was staged is not on record", remedy="Retry the request.")
    return stored


def _begin(work: Work, staged: Staged) -> Effect:
    with work.journal.effect(_ACTIVATE, staged.fingerprint) as effect:
        return effect


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
                _forget(work, staged)
                _discard(target, staged)
            raise
        effect.record({"line": line})
        log.effect(_ACTIVATE, request=work.request.id, site=staged.site, what=line)
        return line


def _undo(work: Work, target: InstallTarget, staged: Staged) -> Told:
    """Put back what served before, unless clients refuse it anyway.

    Either way the next run installs anew. That is noted before anything is put
    back: a run that is killed here must not take the installation for done, nor
    the new certificate for what was there before.
    """
    previous = certificates.by_fingerprint(staged.replaces) if staged.replaces else None
    verdict = undo_installation(previous, datetime.now(UTC))
    if verdict.code is Undo.KEEP:
        _forget(work, staged)
        return Told(f"the new certificate stays, since {verdict.message}")
    key = f"{staged.fingerprint}:{uuid4().hex[:12]}"
    work.journal.superseded(_RESTORE, "undone anew")
    intent = {"staged": staged.to_json(), "place": work.place}
    try:
        with work.journal.effect(_RESTORE, key, intent) as effect:
            _forget(work, staged)
            line = target.restore(staged)
            effect.record(
                {"line": line},
                lambda connection: requests.announce(
                    connection, work.request.id, "certrail.request.rolled-back", detail=line
                ),
            )
        log.effect(_RESTORE, request=work.request.id, site=staged.site, what=line)
    except CertrailError as exc:
        with suppress(CertrailError):
            work.journal.superseded(_RESTORE, f"failed: {exc}")
        return Told(f"putting back the previous certificate failed: {exc}", exc.remedy)
    _discard(target, staged)
    if observing.is_read_back(work, target):
        now = target.serving(Site(staged.site))
    else:
        now = serving.served(work.plan)
    if staged.replaces is None:
        return Told(f"{line}; nothing was served there before")
    if now == staged.replaces:
        return Told(f"{line}; the previous certificate serves again")
    seen = f"{now[:16]}…" if now else "nothing"
    return Told(f"{line}; a client now sees {seen} instead of the previous certificate")


def _undone_last(work: Work, fingerprint: Fingerprint) -> Staged | None:
    """Return what an earlier run of the request wanted to undo last, if it is *fingerprint*."""
    for intent in reversed(work.journal.intents(_RESTORE)):
        if "staged" in intent and intent["place"] == work.place:
            staged = Staged.from_json(intent["staged"])
            return staged if staged.fingerprint == fingerprint else None
    return None


def _forget(work: Work, staged: Staged) -> None:
    """Make the next run stage and activate anew."""
    with transaction() as connection:
        for action in (_STAGE, _ACTIVATE):
            work.journal.forget(connection, action, staged.fingerprint)
        work.keep_staged(connection, None)


def _keep_previous(work: Work, fingerprint: Fingerprint) -> None:
    """Put what serves now into the inventory: its dates decide whether it may come back."""
    if certificates.by_fingerprint(fingerprint) is not None or not serving.is_reachable(work.plan):
        return
    if (chain := serving.presented(work.plan, fingerprint)) is not None:
        with transaction() as connection:
            certificates.save(connection, chain)


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
    stays = isinstance(target, MakesKeyFiles) and target.keeps_keys
    if certificate.key_id is None and (stays or isinstance(target, HoldsKey)):
        return Bundle(certificate.chain, None)
    if certificate.key_id is None:
        raise InvalidRequest(
            "the private key of this certificate is not in the key store",
            remedy="Start a reissue, which makes a new key.",
        )
    bundle = Bundle(certificate.chain, keys.load(certificate.key_id))
    bundle.must_match()
    return bundle


def _staged(work: Work) -> Staged | None:
    return Staged.from_json(work.request.staged) if work.request.staged else None


def lock_name(work: Work, target: InstallTarget | DeliveryTarget) -> str:
    """Return the name of the lock under which *target* is changed."""
    named = work.plan.target
    return f"target:{target.lock_name or (named.reference if named else work.plan.location)}"
