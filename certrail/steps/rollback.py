"""Going back by the target's own means, where the key of the certificate before is not ours.

A certificate whose key we hold is installed like any other. This is for what
was there before us: the target brings it back from what it kept, and if no
client sees it then, what was to be taken back is made live again.
"""

from __future__ import annotations

from dataclasses import dataclass

from certrail import log
from certrail.connectors import InstallTarget
from certrail.errors import ActivationRefused, CertrailError
from certrail.model import Chain, Site, Staged
from certrail.steps import observing
from certrail.steps.outcome import Outcome, Work
from certrail.store.database import transaction

_RESTORE = "install.restore"


@dataclass(frozen=True, slots=True)
class Told:
    """What was put back: a line for people, and what to do where that did not work."""

    line: str
    remedy: str = ""


def take_back(
    work: Work, target: InstallTarget, site: Site, newer: Staged, chain: Chain
) -> Outcome:
    """Let *target* bring *chain* back in the place of *newer*, and see that clients get it.

    Raises:
        ActivationRefused: it was not brought back; *newer* serves as before.
    """
    with work.journal.effect(_RESTORE, newer.fingerprint) as effect:
        if effect.outcome is None:
            try:
                line = target.restore(newer)
            except CertrailError as exc:
                # Otherwise nobody knows how far it got, and the next try goes on.
                if not exc.retryable:
                    exc.add_note(again(work, target, newer).line)
                raise
            effect.record(
                {"line": line},
                lambda connection: work.keep_staged(connection, newer.to_json()),
            )
            log.effect(_RESTORE, request=work.request.id, site=newer.site, what=line)
    line = str((effect.outcome or {})["line"])
    wrong = observing.amiss(work, target, site, chain)
    if wrong is not None:
        told = again(work, target, newer)
        raise ActivationRefused(
            f"{line}, but {wrong.message}; {told.line}", remedy=told.remedy or wrong.remedy
        )
    return Outcome.completed(line)


def again(work: Work, target: InstallTarget, newer: Staged) -> Told:
    """Make *newer* live again after all. The next run goes back anew."""
    with transaction() as connection:
        work.journal.forget(connection, _RESTORE, newer.fingerprint)
        work.keep_staged(connection, None)
    try:
        line = target.activate(newer)
    except CertrailError as exc:
        return Told(f"making {newer.fingerprint[:16]}… live again failed: {exc}", exc.remedy)
    log.effect("install.activate", request=work.request.id, site=newer.site, what=line)
    return Told(f"{newer.fingerprint[:16]}… is live again: {line}")
