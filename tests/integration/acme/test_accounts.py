"""Accounts: made once, found again, bound, changed, lost and closed."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from certrail.acme.account import StoredAccount
from certrail.acme.ca import AcmeCa
from certrail.acme.signing import new_account_key, signer_of
from certrail.errors import AuthenticationFailed, NotFound, Unreachable
from certrail.model import Account
from tests.integration.acme.conftest import Connect
from tests.support.acme_client import FileKeeper, Publisher, issue, spec
from tests.support.pebble import EAB_KEYS, ChallengeServer, Pebble, pebble
from tests.support.scripted_acme import Answer, ScriptedAcme


def test_an_account_is_made_once_and_found_afterwards(
    shared_pebble: Pebble, connect: Connect, keeper: FileKeeper
) -> None:
    """The step "ACME account created" runs in every request and must not make a second."""
    before = shared_pebble.account_count()

    first = connect(shared_pebble, contact="ops@example.test").ensure_account()
    second = connect(shared_pebble, contact="ops@example.test").ensure_account()

    stored = keeper.load()
    assert stored is not None
    assert (first.created, second.created) == (True, False)
    assert first.url == second.url == stored.url
    assert first.contact == second.contact == stored.contact == ("mailto:ops@example.test",)
    assert shared_pebble.account_count() == before + 1


def test_the_key_is_stored_before_the_ca_hears_of_it(
    scripted: ScriptedAcme, connect: Connect, keeper: FileKeeper
) -> None:
    """A crash in between must not lose the account: the key finds it again."""
    stored: list[StoredAccount | None] = []

    def answer(request: object) -> Answer:
        stored.append(keeper.load())
        return Answer(status=500, body="crash")

    scripted.on("/account", answer)

    with pytest.raises(Unreachable):
        connect(url=f"{scripted.url}/dir").ensure_account()

    assert stored[0] is not None
    assert stored[0].url == ""
    after = keeper.load()
    assert after is not None
    assert after.key.reveal() == stored[0].key.reveal()


def test_an_account_whose_url_was_never_noted_is_found_by_its_key(
    shared_pebble: Pebble, connect: Connect, keeper: FileKeeper
) -> None:
    """newAccount with a known key is "here it is", not a second account."""
    made = connect(shared_pebble).ensure_account()
    stored = keeper.load()
    assert stored is not None
    keeper.save(replace(stored, url=""))

    found = connect(shared_pebble).ensure_account()

    assert found == Account(made.url, created=False)


def test_a_ca_that_lost_all_accounts_gets_the_same_key_again(
    tmp_path: Path, answers: ChallengeServer, connect: Connect, dns: Publisher, keeper: FileKeeper
) -> None:
    """Pebble forgets everything on restart; test CAs are rebuilt as well."""
    with pebble(tmp_path, answers=answers) as server:
        ca = connect(server)
        first = ca.ensure_account()
        before = keeper.load()
        order = ca.open_order(spec("lost.example.test"))
        server.restart()

        with pytest.raises(AuthenticationFailed) as caught:
            ca.open_order(spec("lost.example.test"))
        again = ca.ensure_account()
        after = keeper.load()
        with pytest.raises(NotFound):
            ca.reopen(order)
        issue(ca, ["lost.example.test"], dns)

    assert "first step" in caught.value.remedy
    assert before is not None
    assert after is not None
    assert (first.created, again.created) == (True, True)
    assert before.key.reveal() == after.key.reveal()
    assert after.url == again.url


def test_a_changed_contact_is_told_to_the_ca_once(
    shared_pebble: Pebble, connect: Connect, keeper: FileKeeper
) -> None:
    """The old address may belong to somebody who left."""
    made = connect(shared_pebble, contact="old@example.test").ensure_account()
    changed = connect(shared_pebble, contact="new@example.test").ensure_account()
    log = shared_pebble.log.read_text()
    again = connect(shared_pebble, contact="new@example.test").ensure_account()
    new_log = shared_pebble.log.read_text()[len(log) :]

    stored = keeper.load()
    assert stored is not None
    assert made.url == changed.url == again.url
    assert (changed.created, changed.contact) == (False, ("mailto:new@example.test",))
    assert stored.contact == again.contact == ("mailto:new@example.test",)
    assert "/my-account/" not in new_log


def test_threads_and_processes_make_one_account(
    shared_pebble: Pebble, connect: Connect, tmp_path: Path
) -> None:
    """A bulk job starts many requests of a new connector at the same moment."""
    before = shared_pebble.account_count()
    arguments = (
        shared_pebble.directory_url,
        str(shared_pebble.ca_bundle),
        str(tmp_path / "account"),
    )
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as processes, ThreadPoolExecutor(8) as threads:
        remote = processes.starmap_async(ensure_in_process, [arguments] * 4)
        local = list(threads.map(lambda _: connect(shared_pebble).ensure_account(), range(8)))
        urls = {account.url for account in local} | set(remote.get(60))

    assert len(urls) == 1
    assert shared_pebble.account_count() == before + 1


def ensure_in_process(directory_url: str, ca_bundle: str, folder: str) -> str:
    """Find or make the account in another process."""
    keeper = FileKeeper(Path(folder))
    return AcmeCa(directory_url, keeper=keeper, ca_bundle=ca_bundle).ensure_account().url


def test_external_account_binding(
    tmp_path: Path, answers: ChallengeServer, connect: Connect, dns: Publisher, keeper: FileKeeper
) -> None:
    """Missing, wrong, right, and changed credentials."""
    right = {"eab_kid": "kid-1", "eab_hmac_key": EAB_KEYS["kid-1"]}
    wrong = {"eab_kid": "kid-1", "eab_hmac_key": EAB_KEYS["kid-2"]}
    with pebble(tmp_path, answers=answers, eab_keys=EAB_KEYS) as server:
        for settings in ({}, wrong, {**right, "eab_kid": "unknown"}):
            with pytest.raises(AuthenticationFailed) as caught:
                connect(server, **settings).ensure_account()
            assert "eab_kid" in caught.value.remedy
            assert EAB_KEYS["kid-1"] not in f"{caught.value}{caught.value.remedy}"
        with pytest.raises(AuthenticationFailed):
            connect(server).check()

        made = connect(server, **right).ensure_account()
        found = connect(server, **right).ensure_account()
        issue(connect(server, **right), ["eab.example.test"], dns)
        kept = keeper.load()

        with pytest.raises(AuthenticationFailed):
            connect(server, eab_kid="kid-2", eab_hmac_key=EAB_KEYS["kid-1"]).ensure_account()
        unharmed = keeper.load()
        other = connect(server, eab_kid="kid-2", eab_hmac_key=EAB_KEYS["kid-2"]).ensure_account()

    assert (made.created, found.created, other.created) == (True, False, True)
    assert made.url == found.url != other.url
    assert kept is not None
    assert unharmed is not None
    assert (kept.url, kept.eab_kid) == (unharmed.url, unharmed.eab_kid) == (made.url, "kid-1")
    assert kept.key.reveal() == unharmed.key.reveal()


def test_an_account_that_moved_is_noted(
    scripted: ScriptedAcme, connect: Connect, keeper: FileKeeper
) -> None:
    """CAs change their URLs; every later request is signed with the account's present one."""
    keeper.save(StoredAccount(f"{scripted.url}/old/1", new_account_key()))
    scripted.on("/account", Answer({}, 200, {"Location": f"{scripted.url}/account/1"}))
    scripted.on("/order", scripted.new_order())
    ca = connect(url=f"{scripted.url}/dir")

    account = ca.ensure_account()
    ca.open_order(spec("a.test"))

    stored = keeper.load()
    assert stored is not None
    assert account.url == stored.url == f"{scripted.url}/account/1"
    assert scripted.asked("/order")[0].header["kid"] == stored.url


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        pytest.param(Answer.problem("externalAccountRequired", 403), True, id="refused"),
        pytest.param(Answer("{", 201, cut=9), False, id="answer lost"),
    ],
)
def test_a_change_of_the_external_account_loses_no_key(
    scripted: ScriptedAcme, connect: Connect, keeper: FileKeeper, answer: Answer, kept: bool
) -> None:
    """Refused: the account before is still ours. Answer lost: the new one may exist by now."""
    before = StoredAccount(f"{scripted.url}/account/1", new_account_key())
    keeper.save(before)
    scripted.on("/account", answer)
    ca = connect(url=f"{scripted.url}/dir", eab_kid="new", eab_hmac_key="c2VjcmV0")

    with pytest.raises((AuthenticationFailed, Unreachable)):
        ca.ensure_account()

    after = keeper.load()
    (asked,) = scripted.asked("/account")
    assert asked.json["externalAccountBinding"]
    assert after is not None
    assert (after.key.reveal() == before.key.reveal()) is kept
    assert signer_of(after.key).public_key.to_json() == asked.header["jwk"] or kept


def deactivated_by_status(scripted: ScriptedAcme) -> None:
    """The account is returned, with its status."""
    location = {"Location": f"{scripted.url}/account/1"}
    scripted.on("/account", Answer({"status": "deactivated"}, 200, location))


def deactivated_by_problem(scripted: ScriptedAcme) -> None:
    """The request is refused (RFC 8555 section 7.3.6)."""
    scripted.on("/account", Answer.problem("unauthorized", 403, detail="account is deactivated"))


@pytest.mark.parametrize("close", [deactivated_by_status, deactivated_by_problem])
def test_a_closed_account_says_so(
    scripted: ScriptedAcme,
    connect: Connect,
    keeper: FileKeeper,
    close: Callable[[ScriptedAcme], None],
) -> None:
    """It can never be used again, and only a person can decide to have a new one."""
    keeper.save(StoredAccount(f"{scripted.url}/account/1", new_account_key()))
    close(scripted)

    for call in (
        connect(url=f"{scripted.url}/dir").ensure_account,
        connect(url=f"{scripted.url}/dir").check,
    ):
        with pytest.raises(AuthenticationFailed, match="deactivated") as caught:
            call()
        assert "stored account" in caught.value.remedy


def test_a_real_ca_with_a_deactivated_account(
    shared_pebble: Pebble, connect: Connect, keeper: FileKeeper
) -> None:
    """The same, with what Pebble says."""
    ca = connect(shared_pebble)
    account = ca.ensure_account()
    deactivate(ca, account.url)

    with pytest.raises(AuthenticationFailed) as caught:
        ca.ensure_account()
    keeper.forget()

    assert "stored account" in caught.value.remedy
    assert connect(shared_pebble).ensure_account().created


def deactivate(ca: AcmeCa, url: str) -> None:
    """Close the account, as a person with its key does."""
    ca._post(url, b'{"status":"deactivated"}', "deactivate")


def test_check_changes_nothing_and_tells_what_is_there(
    shared_pebble: Pebble, connect: Connect, keeper: FileKeeper
) -> None:
    """`certrail connector check` is safe to run at any time."""
    before = shared_pebble.account_count()
    without = connect(shared_pebble).check()

    assert "no account yet" in without
    assert keeper.load() is None
    assert shared_pebble.account_count() == before

    account = connect(shared_pebble).ensure_account()
    assert account.url in connect(shared_pebble).check()
