"""What goes wrong between us and a host behind SSH, against a real sshd."""

from __future__ import annotations

import socket
import subprocess
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pydantic import SecretStr

from blocks.hosts.ssh import SshMachine
from certrail.errors import (
    AuthenticationFailed,
    ConnectorError,
    HostKeyMismatch,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Unreachable,
)
from certrail.remote.ssh_pool import POOL
from tests.support.process import binary, free_port, running, wait_for
from tests.support.sshd import Account, Sshd, account, sshd, write_key

SECRET = "correct horse battery staple"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd"), password_login=True) as running:
        yield running


@pytest.fixture(scope="module")
def user() -> Iterator[Account]:
    """Somebody who may log in and nothing else."""
    with account() as made:
        yield made


@pytest.fixture(autouse=True)
def _fresh_connections() -> Iterator[None]:
    POOL.close()
    yield
    POOL.close()


def block(server: Sshd, **fields: Any) -> SshMachine:
    given = {
        "host": "127.0.0.1",
        "port": server.port,
        "username": "root",
        "private_key_file": str(server.key_file),
        "known_hosts_file": str(server.known_hosts),
    }
    return SshMachine(**{**given, **fields})


def refused(machine: SshMachine, error: type[ConnectorError]) -> ConnectorError:
    """Return the error of opening *machine*; no secret may be anywhere in it."""
    with pytest.raises(error) as caught, machine.connect():
        raise AssertionError("it let us in")
    text = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert SECRET not in text
    assert caught.value.remedy
    return caught.value


def test_another_host_key_is_refused(server: Sshd, tmp_path: Path) -> None:
    """A reinstalled server and a man in the middle look alike."""
    other = write_key(tmp_path / "other", ed25519.Ed25519PrivateKey.generate())

    error = refused(block(server, known_hosts_file="", host_key=other), HostKeyMismatch)

    assert not error.retryable
    assert str(error).count("SHA256:") == 2


def test_another_kind_of_pinned_key_is_refused(server: Sshd, tmp_path: Path) -> None:
    """A server without the pinned kind of key must not get in with another kind."""
    other = write_key(tmp_path / "other", ec.generate_private_key(ec.SECP256R1()))

    refused(block(server, known_hosts_file="", host_key=other), HostKeyMismatch)


def test_an_unknown_host_is_refused_and_not_learnt(server: Sshd, tmp_path: Path) -> None:
    """Trust on first use would trust whoever answers first."""
    empty = tmp_path / "known_hosts"
    empty.write_text("# nobody\n")

    error = refused(block(server, known_hosts_file=str(empty)), HostKeyMismatch)

    assert "ssh-keyscan" in error.remedy
    assert empty.read_text() == "# nobody\n"


def test_no_pinned_key_at_all_is_refused(server: Sshd) -> None:
    """There is no way to switch the check off."""
    refused(block(server, known_hosts_file=""), HostKeyMismatch)


def test_a_revoked_key_is_refused(server: Sshd, tmp_path: Path) -> None:
    """`@revoked` wins over every other line (sshd(8))."""
    known = tmp_path / "known_hosts"
    known.write_text(f"{server.known_hosts.read_text()}@revoked * {server.host_key}\n")

    refused(block(server, known_hosts_file=str(known)), HostKeyMismatch)


def test_a_missing_known_hosts_file_is_named(server: Sshd, tmp_path: Path) -> None:
    """A wrong path is not the same as an unknown host."""
    with (
        pytest.raises(InvalidRequest, match="absent"),
        block(server, known_hosts_file=str(tmp_path / "absent")).connect(),
    ):
        pass


def test_a_wrong_key_is_refused(server: Sshd, tmp_path: Path) -> None:
    """The message names the key that was offered, so that it can be compared."""
    write_key(tmp_path / "id", ed25519.Ed25519PrivateKey.generate())

    error = refused(block(server, private_key_file=str(tmp_path / "id")), AuthenticationFailed)

    assert "SHA256:" in str(error)
    assert "authorized_keys" in error.remedy


def test_a_wrong_password_is_refused(server: Sshd, user: Account) -> None:
    """Trying again would only lock the account."""
    error = refused(
        block(server, username=user.name, private_key_file="", password=SecretStr(SECRET)),
        AuthenticationFailed,
    )

    assert not error.retryable


def test_no_credential_is_told(server: Sshd) -> None:
    """An incomplete connector says what it lacks."""
    error = refused(block(server, private_key_file=""), AuthenticationFailed)

    assert "no key" in str(error)


@pytest.mark.parametrize("content", ["", "rubbish", "encrypted"])
def test_a_key_that_cannot_be_used(server: Sshd, tmp_path: Path, content: str) -> None:
    """Missing, damaged, or with a passphrase that is wrong."""
    path = tmp_path / "id"
    if content == "encrypted":
        write_key(path, ed25519.Ed25519PrivateKey.generate(), passphrase="another one")
    elif content:
        path.write_text(content)

    error = refused(
        block(server, private_key_file=str(path), passphrase=SecretStr(SECRET)),
        AuthenticationFailed,
    )

    assert str(path) in str(error)


def test_password_login(server: Sshd, user: Account) -> None:
    """Some hosts have nothing else."""
    machine = block(
        server, username=user.name, private_key_file="", password=SecretStr(user.password)
    )

    with machine.connect() as host:
        assert host.check().startswith(user.name)


def test_agent_login(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key stays with an agent; without it in there, nobody is let in."""
    socket_path = tmp_path / "agent"
    argv = [binary("ssh-agent", "openssh-client"), "-D", "-a", str(socket_path)]
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket_path))
    machine = block(server, private_key_file="", use_agent=True)

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(socket_path)) == 0

    with running(argv, log=tmp_path / "log", ready=answers):
        assert "the agent has no key" in str(refused(machine, AuthenticationFailed))
        add = [binary("ssh-add", "openssh-client"), "-q", str(server.key_file)]
        subprocess.run(add, check=True, capture_output=True)

        with machine.connect() as host:
            assert host.run(["true"]).exit_code == 0


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_a_key_as_text_with_a_passphrase(server: Sshd, tmp_path: Path, kind: str) -> None:
    """Keys come from a vault as text, and in each of OpenSSH's kinds."""
    key: Any = {
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ecdsa": lambda: ec.generate_private_key(ec.SECP384R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()
    public = write_key(tmp_path / "id", key, passphrase=SECRET)
    allowed = server.known_hosts.parent / "authorized_keys"
    before = allowed.read_text()
    allowed.write_text(f"{before}{public}\n")
    try:
        with block(
            server,
            private_key_file="",
            private_key=SecretStr((tmp_path / "id").read_text()),
            passphrase=SecretStr(SECRET),
        ).connect() as host:
            assert host.run(["true"]).exit_code == 0
    finally:
        allowed.write_text(before)


def test_secrets_are_not_in_the_repr(server: Sshd) -> None:
    """Prefect and loggers print blocks and settings."""
    machine = block(
        server,
        private_key=SecretStr(SECRET),
        password=SecretStr(SECRET),
        passphrase=SecretStr(SECRET),
        sudo_password=SecretStr(SECRET),
    )

    assert SECRET not in repr(machine) + str(machine) + repr(machine._settings())


def test_a_refused_connection_is_unreachable() -> None:
    """The host is down: trying later can help."""
    error = refused(
        SshMachine(host="127.0.0.1", port=free_port(), username="root", host_key=HOST_KEY),
        Unreachable,
    )

    assert error.retryable
    assert "refused" in str(error)


def test_an_unknown_name_is_unreachable() -> None:
    """`.invalid` never resolves (RFC 6761)."""
    refused(SshMachine(host="host.invalid", username="root", host_key=HOST_KEY), Unreachable)


def test_a_server_that_stalls_is_unreachable() -> None:
    """A port that takes connections and says nothing must not hold a worker."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        error = refused(
            SshMachine(
                host="127.0.0.1",
                port=port,
                username="root",
                host_key=HOST_KEY,
                connect_timeout=0.5,
            ),
            Unreachable,
        )

    assert "0.5 s" in str(error)


def test_a_server_that_speaks_http_is_unreachable() -> None:
    """The wrong port is told as what it is."""
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 200) as port:
        refused(
            SshMachine(host="127.0.0.1", port=port, username="root", host_key=HOST_KEY),
            Unreachable,
        )


def test_a_cut_connection_is_unreachable_and_the_next_one_works(
    server: Sshd, tmp_path: Path
) -> None:
    """A reboot in the middle of a step: the retry opens a new connection by itself."""
    machine = block(server)
    with machine.connect() as host:
        server.cut_connections()
        with pytest.raises(Unreachable):
            host.write_file(f"{tmp_path}/file", b"x")
        with pytest.raises(Unreachable):
            host.run(["true"])

    with machine.connect() as host:
        host.write_file(f"{tmp_path}/file", b"x")


def test_an_idle_connection_that_died_is_replaced(server: Sshd) -> None:
    """Firewalls and reboots end idle connections without asking."""
    machine = block(server)
    with machine.connect() as host:
        host.run(["true"])
    assert POOL.idle_count() == 1
    server.cut_connections()

    with machine.connect() as host:
        assert host.run(["true"]).exit_code == 0


@pytest.mark.parametrize("sudo", [False, True], ids=["sftp", "commands"])
def test_a_transfer_that_is_cut_leaves_the_old_file(
    server: Sshd, tmp_path: Path, sudo: bool
) -> None:
    """Half a certificate must never be in the place of a whole one."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    failure: list[BaseException] = []

    def write() -> None:
        try:
            with block(server, sudo=sudo).connect() as host:
                host.write_file(str(path), bytes(200_000_000))
        except ConnectorError as exc:
            failure.append(exc)

    writer = threading.Thread(target=write)
    writer.start()
    wait_for(
        lambda: any(size > 100_000 for size in sizes(leftovers(tmp_path))),
        "the transfer is under way",
    )
    server.cut_connections()
    writer.join()

    assert [type(exc) for exc in failure] == [Unreachable]
    assert path.read_bytes() == b"old"
    with block(server, sudo=sudo).connect():
        # It can hold a key; the script removes it by itself.
        wait_for(lambda: leftovers(tmp_path) == [], "what was cut off is removed")


def test_a_script_whose_input_is_cut_cleans_up_after_itself(server: Sshd, tmp_path: Path) -> None:
    """The end of a connection that is lost must not count as the end of the content."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    failure: list[BaseException] = []

    def write() -> None:
        try:
            with block(server, sudo=True).connect() as host:
                host.write_file(str(path), bytes(200_000_000))
        except ConnectorError as exc:
            failure.append(exc)

    writer = threading.Thread(target=write)
    writer.start()
    wait_for(
        lambda: any(size > 100_000 for size in sizes(leftovers(tmp_path))),
        "the transfer is under way",
    )
    server.cut_connections(commands=False)
    writer.join()

    wait_for(lambda: leftovers(tmp_path) == [], "the script removed its temporary file")
    assert [type(exc) for exc in failure] == [Unreachable]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("sftp", [True, False], ids=["sftp", "commands"])
def test_what_the_account_may_not_do_is_told(user: Account, tmp_path: Path, sftp: bool) -> None:
    """An ordinary account without sudo: the remedy names both ways out."""
    with (
        sshd(tmp_path / "sshd", sftp=sftp) as server,
        block(server, username=user.name).connect() as host,
    ):
        for call in (
            lambda: host.write_file("/etc/certrail-test", b"x"),
            lambda: host.read_file("/etc/shadow"),
            lambda: host.make_directory("/etc/certrail-test"),
            lambda: host.remove("/etc/hostname"),
            lambda: host.write_file(f"{user.home}/file", b"x", owner="root"),
        ):
            with pytest.raises(PermissionRefused) as caught:
                call()
            assert "sudo: true" in caught.value.remedy
        assert host.glob("/root/*") == ()
        assert not [name for name in host.list_directory(str(user.home)) if "certrail" in name]
        POOL.close()


def test_sudo_that_is_not_granted_is_told_before_anything_is_done(
    server: Sshd, user: Account
) -> None:
    """The first step fails, not the one that replaces files."""
    error = refused(block(server, username=user.name, sudo=True), PermissionRefused)

    assert "visudo" in error.remedy


def test_a_wrong_sudo_password_is_an_authentication_failure(server: Sshd) -> None:
    """Tried once only: it may lock the account."""
    with account(sudo="ALL") as operator:
        refused(
            block(server, username=operator.name, sudo=True, sudo_password=SecretStr(SECRET)),
            AuthenticationFailed,
        )
        POOL.close()


def test_a_sudo_password_that_is_not_asked_for_reaches_no_command(server: Sshd) -> None:
    """sudo leaves the password on the input where its rules need none."""
    with account(sudo="NOPASSWD: ALL") as administrator:
        machine = block(
            server, username=administrator.name, sudo=True, sudo_password=SecretStr(SECRET)
        )
        with machine.connect() as host:
            assert host.run(["cat"], stdin=b"content").stdout == b"content"
            assert host.run(["cat"]).stdout == b""
        POOL.close()


def test_a_sudo_password_is_in_no_process_listing(server: Sshd, tmp_path: Path) -> None:
    """Every account of the host can read the arguments of every process."""
    with account(sudo="ALL") as operator:
        machine = block(
            server,
            username=operator.name,
            sudo=True,
            sudo_password=SecretStr(operator.password),
        )
        with machine.connect() as host:
            listing = host.run(["sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ"])
        POOL.close()

    assert b"cmdline" in listing.stdout
    assert operator.password.encode() not in listing.stdout


def test_start_up_files_that_talk_do_not_disturb(tmp_path: Path) -> None:
    """Many accounts greet their user, also when nobody reads it."""
    with (
        account() as talker,
        sshd(tmp_path / "sshd", sftp=False, startup_files=True) as server,
    ):
        rules = talker.home / ".bashrc"
        rules.write_text("echo Welcome back\necho and more >&2\n")
        with block(server, username=talker.name).connect() as host:
            host.write_file(f"{talker.home}/file", b"content")

            assert host.read_file(f"{talker.home}/file") == b"content"
            assert "file" in host.list_directory(str(talker.home))
            assert host.check().startswith(f"{talker.name} on Linux")
        POOL.close()


def test_an_account_for_sftp_only(user: Account, tmp_path: Path) -> None:
    """Files work there, and a command says why it does not."""
    with (
        sshd(tmp_path / "sshd", options=["ForceCommand internal-sftp"]) as server,
        block(server, username=user.name).connect() as host,
    ):
        host.write_file(f"{user.home}/only", b"content", mode=0o600)

        found = host.info(f"{user.home}/only")
        assert found is not None
        assert (found.owner, found.mode) == (user.name, 0o600)
        with pytest.raises(PermissionRefused):
            host.check()
        with pytest.raises(NotFound):
            host.write_file(f"{user.home}/only", b"x", owner="no-such-account")
        POOL.close()


def test_a_jump_host_leads_on(server: Sshd, tmp_path: Path) -> None:
    """Servers in a closed network are reached through one that is open."""
    with sshd(tmp_path / "inner") as inner:
        known = tmp_path / "known_hosts"
        known.write_text(server.known_hosts.read_text() + inner.known_hosts.read_text())
        allowed = tmp_path / "inner/authorized_keys"
        allowed.write_text((server.known_hosts.parent / "authorized_keys").read_text())
        machine = block(
            inner,
            private_key_file=str(server.key_file),
            known_hosts_file=str(known),
            jump_host="127.0.0.1",
            jump_port=server.port,
        )
        with machine.connect() as host:
            host.write_file(f"{tmp_path}/file", b"x")
            assert host.run(["sh", "-c", "echo $SSH_CONNECTION"]).stdout.split()[3] == (
                str(inner.port).encode()
            )
        POOL.close()

    error = refused(machine, Unreachable)
    assert "jump host" in error.remedy


def test_a_hung_command_keeps_the_connection(server: Sshd) -> None:
    """Only the command is given up."""
    with block(server).connect() as host:
        with pytest.raises(Unreachable):
            host.run(["sleep", "20"], timeout=timedelta(seconds=0.2))
        assert host.run(["true"]).exit_code == 0

    assert POOL.idle_count() == 1


HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBJVvQQTQdTgF8YqUZQ0KZ2mUHnqXUvYzrGvwJQ3n3eZ"


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".certrail-")]


def sizes(paths: list[Path]) -> list[int]:
    return [path.stat().st_size for path in paths if path.exists()]


@contextmanager
def answering(content: bytes) -> Iterator[int]:
    """Serve *content* to whoever connects first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(content)
                client.recv(1024)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()
