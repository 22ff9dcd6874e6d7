"""A program as CA: what it is given, and what happens when it misbehaves."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.ca.command import CommandCa
from certrail.errors import (
    AuthenticationFailed,
    CertrailError,
    InvalidRequest,
    Rejected,
    UnexpectedReply,
    Unreachable,
)
from certrail.model import RevocationReason
from certrail.wait import Pending
from tests.integration.ca.issuing import csr_for, issue, spec
from tests.support import ca_program

NAME = "www.example.test"


def program(folder: Path, **settings: Any) -> CommandCa:
    ca_program.make_ca(folder)
    (folder / "secret").write_text("open-sesame")
    command = [sys.executable, str(Path(ca_program.__file__)), str(folder)]
    return CommandCa(**{"command": command, "secret": "open-sesame", **settings})


def script(text: str, **settings: Any) -> CommandCa:
    return CommandCa(command=["/bin/sh", "-c", text], **settings)


def check(block: CommandCa) -> str:
    with block.connect() as ca:
        return ca.check()


def finalize(block: CommandCa) -> Any:
    with block.connect() as ca:
        return ca.finalize(ca.open_order(spec(NAME)), csr_for(NAME))


def test_a_fast_program_issues_at_once(tmp_path: Path) -> None:
    """Not every CA makes one wait."""
    with program(tmp_path, environment={"FAST": "1"}).connect() as ca:
        assert issue(ca, NAME).pems


def test_the_wait_is_the_one_asked_for(tmp_path: Path) -> None:
    """Approval may take hours; nobody has to be asked every second for that."""
    with program(tmp_path).connect() as ca:
        order = ca.finalize(ca.open_order(spec(NAME)), csr_for(NAME))
        found = ca.collect(order)

    assert isinstance(found, Pending)
    assert found.retry_after is not None
    assert found.retry_after.total_seconds() == 0.02


def test_the_environment_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's database URL and sealing key are nobody else's business."""
    monkeypatch.setenv("CERTRAIL_KEY", "the-sealing-key")
    monkeypatch.setenv("LD_PRELOAD", "")
    with program(tmp_path, environment={"REGION": "eu"}).connect() as ca:
        issue(ca, NAME, profile="short")
        chain = issue(ca, NAME, key="ref-2")
        ca.revoke(chain, RevocationReason.SUPERSEDED)

    calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    ours = {"PATH", "LANG", "REGION", "CERTRAIL_ACTION", "CERTRAIL_SECRET"}
    orders = {"CERTRAIL_REFERENCE", "CERTRAIL_ORDER", "CERTRAIL_NAMES", "CERTRAIL_PROFILE"}
    # The C library's locale start-up of CPython sets this one itself.
    seen = {key for call in calls for key in call["environ"]} - {"LC_CTYPE"}
    assert seen == ours | orders | {"CERTRAIL_REASON"}
    first = calls[0]["environ"]
    assert first["CERTRAIL_NAMES"] == NAME
    assert first["CERTRAIL_PROFILE"] == "short"
    assert first["CERTRAIL_REFERENCE"] == "ref-1"
    assert not any("open-sesame" in part for call in calls for part in call["argv"])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("exit 1", UnexpectedReply),
        ("exit 75", Unreachable),
        ("exit 77", AuthenticationFailed),
        ("kill -9 $$", UnexpectedReply),
        ('echo \'{"ok": "fine"}\'; exit 3', UnexpectedReply),
        ("echo hello", UnexpectedReply),
        ("true", UnexpectedReply),
        ("echo '[]'", UnexpectedReply),
        ("echo '{\"ok\": 1}'", UnexpectedReply),
        ('echo \'{"ok": "fine", "extra": 1}\'', UnexpectedReply),
        ('echo \'{"ok": "a"}{"ok": "b"}\'', UnexpectedReply),
        ('echo \'{"chain": "nothing"}\'', UnexpectedReply),
        ('echo \'{"pending": -1, "order": "1"}\'', UnexpectedReply),
        ("head -c 2000000 /dev/zero", UnexpectedReply),
        ('echo \'{"refused": "no", "code": "policy"}\'', Rejected),
    ],
)
def test_what_goes_wrong_is_told_apart(text: str, error: type[CertrailError]) -> None:
    """The exit code counts, then the answer's form; nothing half-read passes for success."""
    for call in (check, finalize):
        with pytest.raises(error) as caught:
            call(script(text))
        assert str(caught.value).isprintable()
        assert caught.value.remedy


def test_pending_needs_an_order_to_ask_for() -> None:
    """Without a reference the answer could never be collected."""
    with pytest.raises(UnexpectedReply, match="order"):
        finalize(script("echo '{\"pending\": 1}'"))


def test_a_hanging_program_is_ended() -> None:
    """A worker that waits for ever is a worker lost."""
    with pytest.raises(Unreachable, match="did not finish within 1 s"):
        check(script("sleep 60", timeout=1))


def test_the_words_of_a_failure_are_short_and_without_the_secret() -> None:
    """Programs print their environment when they fail."""
    text = 'printf "bad\\n\\033[31m %s %0500d" "$CERTRAIL_SECRET" 7 >&2; exit 9'
    with pytest.raises(UnexpectedReply) as caught:
        check(script(text, secret="open-sesame"))

    assert "open-sesame" not in str(caught.value)
    assert "<hidden>" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 450


def test_a_program_that_is_not_there_is_a_mistake_in_the_settings() -> None:
    """It has to be installed on every worker."""
    with pytest.raises(InvalidRequest, match="cannot be started"):
        check(CommandCa(command=["/usr/local/bin/no-such-program"]))


def test_another_keys_certificate_is_refused(tmp_path: Path) -> None:
    """A program that mixes up its orders must not break a server."""
    with program(tmp_path, environment={"FAST": "1"}).connect() as ca:
        order = ca.open_order(spec(NAME))
        ca.finalize(order, csr_for(NAME))

        with pytest.raises(UnexpectedReply, match="another key"):
            ca.finalize(order, csr_for(NAME))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"command": ["issue"]}, "absolute path"),
        ({"command": []}, "at least 1"),
        ({"command": ["/bin/true", "a\0b"]}, "NUL"),
        ({"environment": {"CERTRAIL_NAMES": "x"}}, "set by Certrail"),
        ({"environment": {"A=B": "x"}}, "no name"),
    ],
    ids=str,
)
def test_settings_are_checked(settings: dict[str, Sequence[str]], message: str) -> None:
    """Nothing is left to a shell or to chance."""
    with pytest.raises(ValidationError, match=message):
        CommandCa(**{"command": ["/bin/true"], **settings})
