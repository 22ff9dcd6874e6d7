"""What every target does when the other side is not there, stalls, babbles or throttles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from blocks._base import TargetBlock
from certrail.connectors import InstallTarget
from certrail.errors import AuthenticationFailed, CertrailError, Throttled, Unreachable
from certrail.steps import installation
from certrail.tracker import StepStatus
from tests.support.installing import request_for, work_of
from tests.support.process import free_port
from tests.support.scripted import scripted
from tests.support.target_faults import FAULTS, Lacks, Said
from tests.support.targets import DEVICES, TARGETS, WRONG, Loss, Place, Target

SAID = {
    (str(target), fault): (target, said)
    for target in TARGETS
    for fault in FAULTS
    if not isinstance(said := target.speech[fault], Lacks)
}


@pytest.mark.parametrize(("target", "said"), SAID.values(), ids=[" ".join(one) for one in SAID])
def test_faults(target: Target, said: tuple[Said, ...]) -> None:
    """Whatever is at the address, the answer is one of ours, in time, and tells no secret."""
    for one in said:
        with (
            scripted(one.reply, stall=one.stall) as server,
            target.at(server.port) as opened,
            pytest.raises(one.error) as caught,
        ):
            opened.check()

        assert caught.value.remedy
        assert WRONG not in f"{caught.value} {caught.value.remedy}"
        if isinstance(caught.value, Throttled):
            assert caught.value.retry_after is not None
            assert caught.value.retry_after >= timedelta(seconds=7)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_what_is_left_out_has_a_reason(target: Target) -> None:
    """A protocol that cannot say something, or asks for no password."""
    left_out = [said.reason for said in target.speech.values() if isinstance(said, Lacks)]
    if target.no_credential:
        left_out.append(target.no_credential)
    assert set(target.speech) == set(FAULTS)
    assert all(len(reason) > 40 for reason in left_out)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_nothing_listens(target: Target) -> None:
    """Unreachable, and worth a retry."""
    with target.at(free_port()) as one, pytest.raises(Unreachable) as caught:
        one.check()

    assert caught.value.retryable


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_reply_to_the_switch_that_is_lost(
    database_url: str, target: Target, tmp_path: Path
) -> None:
    """Before it was done, after, or denied although it was: the next run finds out and goes on."""
    with target.placed(tmp_path) as place:
        for number, loss in enumerate(Loss):
            bundle = place.ca.bundle(*place.names)
            request = request_for(place.ca, bundle, place.port, f"lb/{number}")
            before = place.served()
            place.lose(loss)

            told = tried(request, place)
            after = place.served()
            outcome = installation.install(work_of(request), place.opener)

            # Some look for themselves after an error, and find that it was done.
            assert (told and told.retryable and told.remedy) or loss is Loss.DENIED, told
            assert after in (before, bundle.chain.fingerprint)
            assert outcome.status is StepStatus.COMPLETED
            assert bundle.chain.fingerprint == place.served()
            installation.accept(work_of(request), place.opener)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_an_undo_that_was_cut_off_is_done_by_the_next_run(
    database_url: str, target: Target, tmp_path: Path
) -> None:
    """What was there before is still known, although the new one serves when it begins."""
    with target.placed(tmp_path) as place:
        request = request_for(place.ca, place.ca.bundle(*place.names), place.port)
        before = place.served()
        installation.install(work_of(request), place.opener)
        place.lose(Loss.BEFORE)

        told = installation.undo(work_of(request), place.opener)
        installation.install(work_of(request), place.opener)
        again = installation.undo(work_of(request), place.opener)

        assert "failed" in told.line
        assert "serves again" in again.line
        assert before == place.served()


def tried(request: UUID, place: Place) -> CertrailError | None:
    """Run the step once and return what it failed with."""
    try:
        installation.install(work_of(request), place.opener)
    except CertrailError as exc:
        return exc
    return None


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_the_right_password(target: Target, tmp_path: Path) -> None:
    """One line for people."""
    with target.placed(tmp_path) as place, place.opener() as (one, _):
        line = one.check()

    assert line
    assert line.isprintable()


@pytest.mark.parametrize("target", [one for one in TARGETS if not one.no_credential], ids=str)
def test_a_wrong_password(target: Target, tmp_path: Path) -> None:
    """Not worth a retry: accounts get locked."""
    with (
        with_wrong_password(target, tmp_path) as one,
        pytest.raises(AuthenticationFailed) as caught,
    ):
        one.check()

    assert not caught.value.retryable
    assert WRONG not in str(caught.value)


@contextmanager
def with_wrong_password(target: Target, folder: Path) -> Iterator[InstallTarget]:
    """Open *target* at the right place, with the password :data:`WRONG`."""
    if target.device:
        assert target.to
        with target.device().running() as device, target.to(device, WRONG, device.roots) as one:
            yield one
        return
    with target.placed(folder) as place, target.at(place.api) as one:
        yield one


@pytest.mark.parametrize("target", DEVICES, ids=str)
def test_an_unknown_certificate(target: Target) -> None:
    """The password never goes to a device that cannot prove who it is."""
    assert target.device
    assert target.to
    with (
        target.device().running() as device,
        target.to(device, None, "") as one,
        pytest.raises(Unreachable) as caught,
    ):
        one.check()

    assert "ca_bundle" in caught.value.remedy
    assert device.calls == []


def test_every_install_target_has_its_faults() -> None:
    """A target that is left out here would be one whose faults nobody tries."""
    slugs = {block.get_block_type_slug() for block in TargetBlock.vendors()}
    assert slugs == {target.slug for target in TARGETS}
    assert all(set(target.speech) == set(FAULTS) for target in TARGETS)
