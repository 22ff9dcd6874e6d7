"""What every install target promises. A new kind of server adds a case, not a test."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from blocks._base import TargetBlock
from certrail.connectors import InstallTarget, SwitchesTogether
from certrail.errors import ActivationRefused, Conflict, InvalidRequest
from certrail.model import Bundle, Site, Staged
from certrail.servers.registry import kinds
from tests.contract.appliance_cases import APPLIANCES
from tests.contract.install_cases import (
    CASES,
    GAPS,
    OTHER_GAPS,
    Blind,
    Case,
    Forgets,
    Hoards,
    LiveAtOnce,
    Lost,
    Meddles,
    Overwrites,
    PilesUp,
    Reference,
    TakesAnything,
    Touchy,
    Tramples,
    Unlocked,
    World,
    key_digest,
    reference,
)
from tests.support.installing import AtOnce, Opener, request_for

Promise = Callable[[World], None]


def installed(world: World) -> tuple[Staged, Bundle]:
    """Stage and activate a fresh certificate."""
    bundle = world.bundle()
    target = world.open()
    staged = target.stage(world.site, bundle, world.served())
    target.activate(staged)
    return staged, bundle


def serving_follows_activate(world: World) -> None:
    """The inventory believes `serving`, clients believe the handshake."""
    _, bundle = installed(world)

    assert bundle.chain.fingerprint == world.served() == world.open().serving(world.site)


def stage_changes_nothing_visible(world: World) -> None:
    """The maintenance window may be days away."""
    staged = world.open().stage(world.site, world.bundle(), world.old)

    assert world.old == world.served() == world.open().serving(world.site)
    assert staged.fingerprint != world.old


def a_refused_activation_leaves_the_old_certificate(world: World) -> None:
    """Never a half-installed pair."""
    staged = world.open().stage(world.site, world.bundle(), world.old)
    before = world.snapshot()

    with world.refuse(staged), pytest.raises(ActivationRefused) as caught:
        world.open().activate(staged)

    assert not caught.value.retryable
    assert caught.value.remedy
    assert world.old == world.served() == world.open().serving(world.site)
    assert before == world.snapshot()


def a_refused_activation_works_once_the_cause_is_gone(world: World) -> None:
    """Installed again later, never ordered again."""
    staged = world.open().stage(world.site, world.bundle(), world.old)
    with world.refuse(staged), pytest.raises(ActivationRefused):
        world.open().activate(staged)

    world.open().activate(staged)

    assert staged.fingerprint == world.served()


def restore_brings_back_exactly_what_was_live(world: World) -> None:
    """A failed probe must end with what worked before, and may be handled twice."""
    before = world.snapshot()
    staged, _ = installed(world)

    world.open().restore(staged)
    world.open().restore(staged)

    assert world.old == world.served() == world.open().serving(world.site)
    world.open().discard(staged)
    kept = {name: content for name, content in world.snapshot().items() if name != "reloads"}
    assert {name: content for name, content in before.items() if name != "reloads"} == kept


def restore_without_activation_is_quiet(world: World) -> None:
    """A crash may have come before anything was done."""
    staged = world.open().stage(world.site, world.bundle(), world.old)

    world.open().restore(staged)

    assert world.old == world.served()


def stage_twice_is_one(world: World) -> None:
    """A crash between upload and note makes the step upload again."""
    bundle = world.bundle()
    first = world.open().stage(world.site, bundle, world.old)
    before = world.snapshot()

    second = world.open().stage(world.site, bundle, world.old)

    assert first == second
    assert before == world.snapshot()


def the_wrong_predecessor_is_a_conflict(world: World) -> None:
    """Somebody replaced the certificate since the request began."""
    before = world.snapshot()

    with pytest.raises(Conflict):
        world.open().stage(world.site, world.bundle(), world.bundle().chain.fingerprint)

    assert before == world.snapshot()


def what_somebody_else_installed_meanwhile_stays(world: World) -> None:
    """Between staging and the switch lie days: theirs may be the better one."""
    ours = world.open().stage(world.site, world.bundle(), world.old)
    theirs, _ = installed(world)

    with pytest.raises(Conflict):
        world.open().activate(ours)

    assert theirs.fingerprint == world.served() == world.open().serving(world.site)


def a_mismatched_pair_is_refused_before_upload(world: World) -> None:
    """Some servers notice only when the handshakes fail."""
    before = world.snapshot()

    with pytest.raises(InvalidRequest):
        world.open().stage(world.site, Bundle(world.bundle().chain, world.bundle().key), None)

    assert before == world.snapshot()


def activate_twice_is_quiet(world: World) -> None:
    """A second reload would be a second risk."""
    staged, _ = installed(world)
    before = world.snapshot()

    world.open().activate(staged)

    assert before == world.snapshot()
    assert staged.fingerprint == world.served()


def what_was_staged_survives_json(world: World) -> None:
    """Activation may happen in another process."""
    staged = world.open().stage(world.site, world.bundle(), world.old)

    copy = Staged.from_json(json.loads(json.dumps(staged.to_json())))

    world.open().activate(copy)
    assert staged.fingerprint == world.served()


def discard_removes_what_was_not_activated(world: World) -> None:
    """Keys that nobody serves must not lie around."""
    before = world.snapshot()
    staged = world.open().stage(world.site, world.bundle(), world.old)

    world.open().discard(staged)
    world.open().discard(staged)

    assert before == world.snapshot()
    assert world.old == world.served()


def discard_keeps_what_is_live(world: World) -> None:
    """The step discards at the end of every request."""
    staged, _ = installed(world)

    world.open().discard(staged)

    assert staged.fingerprint == world.served() == world.open().serving(world.site)


def a_renewal_follows_a_renewal(world: World) -> None:
    """The second time nothing is new, and only the second can be taken back."""
    first, _ = installed(world)
    world.open().discard(first)
    second, _ = installed(world)
    assert second.fingerprint == world.served()

    world.open().restore(second)

    assert first.fingerprint == world.served()


def check_changes_nothing(world: World) -> None:
    """It runs every few minutes."""
    before = world.snapshot()

    line = world.open().check()

    assert line
    assert "\n" not in line
    assert before == world.snapshot()


def sites_finds_the_site(world: World) -> None:
    """Inventory and endpoint must mean the same place."""
    staged, _ = installed(world)

    found = [site for site in world.open().sites() if site.id == world.site.id]

    assert [staged.fingerprint] == [site.fingerprint for site in found]
    assert found[0].tls


def no_key_in_texts_or_logs(world: World) -> None:
    """Everything but the target's own key file is read by many."""
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("certrail")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        bundle = world.bundle()
        staged = world.open().stage(world.site, bundle, world.old)
        with world.refuse(staged), pytest.raises(ActivationRefused) as caught:
            world.open().activate(staged)
        line = world.open().activate(staged)
    finally:
        logger.removeHandler(handler)

    texts = [line, repr(staged), json.dumps(staged.to_json()), str(caught.value), *records]
    assert not [text for text in texts if key_digest(bundle.key) in text]


def keys_are_private(world: World) -> None:
    """The key is readable by nobody but its owner, from the first byte."""
    installed(world)

    assert {0o600} == set(world.key_modes())


def connections_survive(world: World) -> None:
    """A download that spans the change ends whole."""
    with world.connection() as ends_whole:
        installed(world)
        assert ends_whole()


EVERYWHERE: tuple[Promise, ...] = (
    serving_follows_activate,
    stage_changes_nothing_visible,
    a_refused_activation_leaves_the_old_certificate,
    a_refused_activation_works_once_the_cause_is_gone,
    restore_brings_back_exactly_what_was_live,
    restore_without_activation_is_quiet,
    stage_twice_is_one,
    the_wrong_predecessor_is_a_conflict,
    what_somebody_else_installed_meanwhile_stays,
    activate_twice_is_quiet,
    what_was_staged_survives_json,
    discard_removes_what_was_not_activated,
    discard_keeps_what_is_live,
    a_renewal_follows_a_renewal,
    check_changes_nothing,
    sites_finds_the_site,
)
PROMISES = {
    **dict.fromkeys(EVERYWHERE, ""),
    a_mismatched_pair_is_refused_before_upload: "own key",
    no_key_in_texts_or_logs: "own key",
    keys_are_private: "key files",
    connections_survive: "connections",
}
BROKEN: tuple[tuple[type[Reference], Promise], ...] = (
    (LiveAtOnce, stage_changes_nothing_visible),
    (Overwrites, a_refused_activation_leaves_the_old_certificate),
    (Forgets, restore_brings_back_exactly_what_was_live),
    (Blind, the_wrong_predecessor_is_a_conflict),
    (Tramples, what_somebody_else_installed_meanwhile_stays),
    (PilesUp, stage_twice_is_one),
    (Hoards, discard_removes_what_was_not_activated),
    (TakesAnything, a_mismatched_pair_is_refused_before_upload),
    (Touchy, activate_twice_is_quiet),
    (Meddles, check_changes_nothing),
    (Lost, sites_finds_the_site),
)


@pytest.mark.parametrize(
    "promise",
    [pytest.param(each, marks=pytest.mark.needs(what)) for each, what in PROMISES.items()],
    ids=lambda promise: promise.__name__,
)
@pytest.mark.parametrize(
    "case", [*CASES, *APPLIANCES, reference(Reference)], ids=lambda case: case.name
)
def test_promise(case: Case, promise: Promise, tmp_path: Path) -> None:
    """Each promise says in its own words why it matters."""
    with case.world(tmp_path) as world:
        promise(world)


@pytest.mark.parametrize(
    ("target", "promise"), BROKEN, ids=[target.__name__ for target, _ in BROKEN]
)
def test_a_broken_target_does_not_pass(
    target: type[Reference], promise: Promise, tmp_path: Path
) -> None:
    """A suite that passes everything proves nothing."""
    with (
        reference(target).world(tmp_path) as world,
        pytest.raises((AssertionError, pytest.fail.Exception)),
    ):
        promise(world)


def at_once(world: World, patience: timedelta) -> tuple[AtOnce, list[tuple[Site, Bundle]]]:
    """Two requests come to the same machine at the same moment; return what they did and wanted."""
    wanted = list(world.two())
    assert world.port or not world.open().traits.serves, "say where clients of the world connect"

    def way(number: int, site: Site, bundle: Bundle) -> tuple[UUID, Opener]:
        @contextmanager
        def opened() -> Iterator[tuple[InstallTarget, Site]]:
            yield world.open(), site

        place = f"lb/{number}"
        request = request_for(world.ca, bundle, world.port, place, starttls=world.starttls)
        return request, opened

    seen = AtOnce(patience)
    seen.run([way(number, *one) for number, one in enumerate(wanted)])
    return seen, wanted


CASES_AND_REFERENCE = [*CASES, *APPLIANCES, reference(Reference)]


@pytest.mark.parametrize("case", CASES_AND_REFERENCE, ids=lambda case: case.name)
def test_two_requests_at_once(case: Case, database_url: str, tmp_path: Path) -> None:
    """One after the other and both whole, unless the target says that it takes more at a time."""
    with case.world(tmp_path) as world:
        seen, wanted = at_once(world, timedelta(seconds=0.05))

        assert [type(told) for told in seen.told.values()] == [str, str], seen.told
        target = world.open()
        shares = isinstance(target, SwitchesTogether) and bool(target.group)
        assert (seen.apart if shares else seen.serialised) or target.traits.concurrency > 1
        live = {site.id: one for site, one in [*wanted, wanted[seen.last]]}
        for site, _ in wanted:
            assert live[site.id].chain.fingerprint == world.open().serving(site)
        assert live[world.site.id].chain.fingerprint == world.served()


def test_a_target_that_is_not_held_does_not_pass(database_url: str, tmp_path: Path) -> None:
    """The lock is what keeps the two apart, not luck."""
    with reference(Unlocked).world(tmp_path) as world:
        seen, _ = at_once(world, timedelta(seconds=30))

        assert not seen.serialised


def test_every_install_target_is_under_contract() -> None:
    """A block without a case would be a target nobody tests; a gap has to be a known one."""
    assert all(case.lacks <= GAPS | OTHER_GAPS for case in (*CASES, *APPLIANCES))
    slugs = {block.get_block_type_slug() for block in TargetBlock.vendors()}
    assert slugs == {case.kind for case in APPLIANCES}


def test_every_kind_of_server_is_under_contract() -> None:
    """A kind without a case would be a target nobody tests."""
    assert set(kinds()) == {case.kind for case in CASES}
