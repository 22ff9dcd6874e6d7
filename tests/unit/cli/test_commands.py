"""The command tree: help, examples, exit codes, and what is not imported."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import pytest
from click.testing import CliRunner

from certrail.cli import _errors
from certrail.cli.commands import cli, run
from certrail.errors import (
    ActivationRefused,
    CertrailError,
    Conflict,
    InvalidRequest,
    KeyUnavailable,
    NotFound,
    Unreachable,
)

ROOT = Path(__file__).resolve().parents[3]


def walk(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command below *command* with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from walk(found, (*path, name))


TREE = dict(walk(cli, ()))


@pytest.mark.parametrize("path", TREE, ids=lambda path: " ".join(path) or "certrail")
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    """Help is read by people who are in a hurry: they copy the example."""
    result = CliRunner().invoke(cli, [*path, "--help"], prog_name="certrail")

    assert result.exit_code == 0
    assert "Example:" in result.output
    assert f"certrail {' '.join(path)}".strip() in result.output.split("Example:")[1]


@pytest.mark.parametrize("path", TREE, ids=lambda path: " ".join(path) or "certrail")
def test_every_option_says_what_it_does(path: tuple[str, ...]) -> None:
    """An option without a word is a riddle."""
    told = [p for p in TREE[path].params if isinstance(p, click.Option)]

    assert [p.name for p in told if not p.help and p.name not in ("limit", "concurrency")] == []


def test_every_listing_command_has_json() -> None:
    """Other programs read what we print."""
    for path, command in TREE.items():
        if path and path[-1] in ("list", "show", "check", "scan", "doctor"):
            assert "as_json" in {p.name for p in command.params}, path


def test_help_needs_neither_prefect_nor_the_database() -> None:
    """It must come at once, and without an installation."""
    code = (
        "import sys; from certrail.cli.commands import run; run(['--help']);"
        "print([m for m in ('prefect', 'sqlalchemy', 'httpx', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert done.stdout.endswith("[]\n")
    assert "certrail request start" in done.stdout


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """It is asked for in every report of a defect."""
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("certrail 0.")


@pytest.mark.parametrize(
    "arguments",
    [["frobnicate"], ["endpoint", "list", "--frob"], ["request", "start"], ["apply"],
     ["endpoint", "list", "--limit", "0"], ["endpoint", "list", "--status", "nothing"]],
)  # fmt: skip
def test_a_wrong_call_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts tell a typing error from work that failed."""
    assert run(arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("x"), 2),
        (NotFound("x"), 2),
        (Conflict("x"), 2),
        (Unreachable("x"), 3),
        (KeyUnavailable("x"), 3),
        (ActivationRefused("x"), 1),
        (httpx.ConnectError("refused"), 3),
        (OSError(errno.ENOSPC, "No space left on device"), 3),
        (PermissionError(errno.EACCES, "Permission denied", "/srv/certrail/logs"), 3),
    ],
)
def test_exit_codes(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """0 done, 1 the work failed, 2 the call was wrong, 3 something is not reachable."""
    assert _errors.tell(error) == code
    said = capsys.readouterr().err
    assert said.startswith("Error: ")
    assert "Remedy: " in said


def test_a_folder_that_cannot_be_used_is_named_and_no_defect(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever runs it can mend a mode or a full disk; nobody has to be told of a defect."""
    _errors.tell(PermissionError(errno.EACCES, "Permission denied", "/srv/certrail/logs"))
    said = capsys.readouterr().err

    assert "/srv/certrail/logs: Permission denied" in said
    assert "defect" not in said


def test_remote_text_in_an_error_is_made_plain(capsys: pytest.CaptureFixture[str]) -> None:
    """Messages quote what servers said."""
    _errors.tell(CertrailError("it said \x1b]0;owned\x07"))

    assert "\x1b" not in capsys.readouterr().err


def test_a_defect_is_one_line_and_its_details_are_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """People get no traceback, those who mend it do."""
    monkeypatch.setenv("CERTRAIL_DATA_DIR", str(tmp_path))
    with pytest.raises(ZeroDivisionError) as caught:
        divmod(1, 0)

    assert _errors.tell(caught.value) == 1
    said = capsys.readouterr().err
    (file,) = tmp_path.iterdir()

    assert "this is a defect: ZeroDivisionError: " in said
    assert "Traceback" not in said
    assert str(file) in said
    assert "Traceback" in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "arguments",
    [["endpoint", "list"], ["request", "list"], ["request", "start", "a:443"],
     ["connector", "list"], ["connector", "check"], ["endpoint", "show", "a:443"]],
)  # fmt: skip
def test_without_an_installation_the_remedy_is_up(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first call of a new user, before anything was started."""
    monkeypatch.setenv("CERTRAIL_DATA_DIR", str(tmp_path))
    for name in ("CERTRAIL_DATABASE_URL", "PREFECT_API_URL", "CERTRAIL_KEY", "CERTRAIL_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)

    from certrail.settings import settings

    settings.cache_clear()
    try:
        assert run(arguments) == 3
    finally:
        settings.cache_clear()
    said = capsys.readouterr()

    assert "certrail up" in said.err
    assert said.out == ""


def test_nobody_reads_on(tmp_path: Path) -> None:
    """`certrail endpoint list | head` is no error."""
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m certrail.cli.main connector add --list-types | true"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path)},
    )

    assert done.stderr == ""
