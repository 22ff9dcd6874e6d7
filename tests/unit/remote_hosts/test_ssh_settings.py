"""Which host keys are accepted, and what a remote shell is given."""

from __future__ import annotations

import subprocess
from pathlib import Path

import paramiko
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certrail.errors import HostKeyMismatch, InvalidRequest
from certrail.remote.posix_paths import to_bytes, to_text
from certrail.remote.ssh_session import command_line
from certrail.remote.ssh_settings import SshSettings, pinned_keys

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBJVvQQTQdTgF8YqUZQ0KZ2mUHnqXUvYzrGvwJQ3n3eZ"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2fZzLkzW3Z1H0cQ5bD9q3C0m8tYvKXx1bVxw8V1a2b"
HASHED = paramiko.HostKeys.hash_host("[web01.example.test]:2222")


@pytest.mark.parametrize(
    ("line", "host", "port", "accepted"),
    [
        pytest.param("web01.example.test", "web01.example.test", 22, True, id="name"),
        pytest.param("WEB01.example.test", "web01.Example.test", 22, True, id="case"),
        pytest.param("web01.example.test", "web02.example.test", 22, False, id="other name"),
        pytest.param("web01.example.test", "web01.example.test", 2222, False, id="other port"),
        pytest.param("[web01.example.test]:2222", "web01.example.test", 2222, True, id="port"),
        pytest.param("a,*.example.test,192.0.2.?", "192.0.2.7", 22, True, id="pattern"),
        pytest.param("*.example.test,!web01.*", "web01.example.test", 22, False, id="negated"),
        pytest.param(HASHED, "web01.example.test", 2222, True, id="hashed"),
        pytest.param(HASHED, "web01.example.test", 2223, False, id="hashed, other port"),
        pytest.param("@cert-authority *", "web01.example.test", 22, False, id="authority"),
        pytest.param("# *", "web01.example.test", 22, False, id="comment"),
    ],
)
def test_known_hosts_lines(tmp_path: Path, line: str, host: str, port: int, accepted: bool) -> None:
    """The file is read as sshd(8) describes it."""
    path = tmp_path / "known_hosts"
    path.write_text(f"\n{line} {KEY} comment\nbroken line\n")
    wanted = SshSettings(host, "root", port, known_hosts_file=str(path))

    if accepted:
        assert [key.get_base64() for key in pinned_keys(wanted)] == [KEY.split()[1]]
    else:
        with pytest.raises(HostKeyMismatch):
            pinned_keys(wanted)


def test_several_keys_may_be_pinned(tmp_path: Path) -> None:
    """A host that changes its key is listed with both for a while."""
    wanted = SshSettings("a.test", "root", host_key=f"{KEY} old\na.test {OTHER}\n# note\n")

    assert len(pinned_keys(wanted)) == 2


@pytest.mark.parametrize("text", ["rubbish", "ssh-ed25519", "ssh-ed25519 !!!!", "x y z"])
def test_a_host_key_that_is_none(text: str) -> None:
    """A damaged key must not count as no key."""
    with pytest.raises(InvalidRequest):
        pinned_keys(SshSettings("a.test", "root", host_key=text))


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_a_command_line_says_the_same_to_a_shell(arguments: list[bytes]) -> None:
    """Whatever is in an argument, the shell hands on exactly that."""
    given_ = [to_text(part.replace(b"\0", b"")) for part in arguments]

    line = command_line(["printf", "%s\\0", *given_])

    output = subprocess.run(
        ["/bin/sh", "-c", to_bytes(line)], check=True, capture_output=True
    ).stdout
    assert [to_text(part) for part in output.split(b"\0")[:-1]] == given_


@given(st.text(alphabet="ab\\!\n'\" $`", max_size=30))
def test_a_command_line_is_plain_enough_for_any_shell(text: str) -> None:
    """csh and fish read backslash, "!" and line breaks between quotes in their own way."""
    line = command_line(["printf", "%s", text])

    assert "!" not in line
    assert "\n" not in line
    assert line.isascii()
    assert all(len(part) >= 4 and part[0] == "0" for part in line.split("\\")[1:])
