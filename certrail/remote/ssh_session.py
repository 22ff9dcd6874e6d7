"""One logged-in SSH connection: commands with a deadline, and an SFTP channel."""

from __future__ import annotations

import logging
import shlex
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

import paramiko

from certrail.connectors import CommandResult
from certrail.errors import Busy, PermissionRefused, Unreachable
from certrail.log import plain
from certrail.remote.local_process import Capture
from certrail.remote.posix_paths import to_bytes
from certrail.remote.ssh_login import log_in, negotiate
from certrail.remote.ssh_settings import SshSettings, pinned_keys
from certrail.remote.sudo import Sudo

# paramiko logs tracebacks of what it also raises. Whoever wants them attaches a handler here.
WIRE_LOG = "certrail.ssh.wire"
logging.getLogger(WIRE_LOG).addHandler(logging.NullHandler())
logging.getLogger(WIRE_LOG).propagate = False

_LITERAL = frozenset(range(0x20, 0x7F)) - frozenset(b"\\!'")
_CHUNK = 32768
_LINGER = 0.5
"""Seconds given to output that a daemon left behind by the command keeps open."""
_TICK = 0.02
_SILENCE = timedelta(seconds=60)
"""How long one SFTP answer may take."""
_GUARD_MARGIN = 5.0


def command_line(argv: Sequence[str]) -> str:
    """Return *argv* as one text for the login shell, whichever that is.

    Quoting by ``shlex`` is right for POSIX shells. csh and fish read
    backslash, "!" and line breaks between quotes in their own way, so a
    command with one of those is spelled out for ``sh`` in octal.
    """
    quoted = shlex.join(argv)
    if quoted.isascii() and quoted.isprintable() and not set(quoted) & set("\\!"):
        return quoted
    spelled = "".join(
        chr(byte) if byte in _LITERAL else f"\\0{byte:03o}" for byte in to_bytes(quoted)
    )
    return f"""sh -c 'eval "$(printf %b "$1")"' sh '{spelled}'"""


class SshSession:
    """A connection that is logged in. Use one from one thread at a time.

    Attributes:
        settings: what it was opened with.
        opened: when, by the monotonic clock.
        usable: False once something broke; such a session is closed, not used again.
        notes: what was learnt about the host and stays true for the connection.
        proven: the way to become root that was seen to work on it.
        left: temporary files on the host that are to be removed, and could not be yet.
    """

    def __init__(self, settings: SshSettings, name: str) -> None:
        """Connect, check the host key, log in.

        Raises:
            HostKeyMismatch: the server is not the one that was pinned.
            AuthenticationFailed: it refused every credential.
            Unreachable: no connection, or no answer in time.
        """
        self.settings = settings
        self.usable = True
        self.opened = time.monotonic()
        self.notes: dict[str, str] = {}
        self.proven: Sudo | None = None
        self.left: list[str] = []
        self._sftp: paramiko.SFTPClient | None = None
        self._above: SshSession | None = None
        pinned = pinned_keys(settings)
        channel = self._open_socket(name)
        try:
            self._transport = negotiate(settings, channel, pinned, name=name, log=WIRE_LOG)
            try:
                log_in(self._transport, settings, name=name)
            except BaseException:
                self._transport.close()
                raise
        except BaseException:
            channel.close()
            if self._above is not None:
                self._above.close()
            raise
        self._transport.set_keepalive(int(settings.keepalive.total_seconds()))

    def close(self) -> None:
        """Close the connection and everything on it."""
        self.usable = False
        self._transport.close()
        if self._above is not None:
            self._above.close()

    def answers(self) -> bool:
        """Return whether the connection still works; asks the server."""
        if not self.usable or not self._transport.is_active():
            return False
        try:
            self._transport.open_session(timeout=5).close()
        except (paramiko.SSHException, EOFError, OSError):
            return False
        return True

    def execute(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes,
        timeout: timedelta,
        limit: int,
        name: str,
        what: str,
    ) -> CommandResult:
        """Run *argv* over there.

        Raises:
            Unreachable: the deadline passed (the channel is closed then), or
                the connection broke.
        """
        started = time.monotonic()
        deadline = started + timeout.total_seconds()
        with self.guarded(timeout.total_seconds() + _GUARD_MARGIN, name):
            channel = self._transport.open_session(timeout=timeout.total_seconds())
            try:
                channel.exec_command(command_line(argv))
                kept, complaints = Capture(limit), Capture(limit)
                if not _exchange(channel, stdin, deadline, kept, complaints):
                    raise Unreachable(
                        f"{plain(what)} on {name} did not finish within "
                        f"{timeout.total_seconds():g} s",
                        remedy="Look at why the command hangs on the host, then retry.",
                        connector=name,
                    )
                code = channel.exit_status
            finally:
                channel.close()
        if code < 0:
            if not self._transport.is_active():
                self.usable = False
                raise Unreachable(f"the connection to {name} broke", connector=name)
            # Ended by a signal, which SSH tells instead of an exit code.
            code = 128
        return CommandResult(code, kept.bytes(), complaints.bytes(), time.monotonic() - started)

    def sftp(self, name: str) -> paramiko.SFTPClient | None:
        """Return the SFTP channel, opened at the first call; None if the server has no SFTP."""
        if "no-sftp" in self.notes:
            return None
        if self._sftp is None:
            with self.guarded(_SILENCE.total_seconds(), name):
                self._sftp = self._open_sftp()
            if self._sftp is None:
                self.notes["no-sftp"] = "yes"
        return self._sftp

    @contextmanager
    def guarded(self, seconds: float, name: str) -> Iterator[None]:
        """Turn what paramiko raises into our errors, and end the connection after *seconds*.

        paramiko waits without a limit in places, so the connection is cut
        from outside; a stalled server never holds a worker.
        """
        timer = threading.Timer(seconds, self._transport.close)
        timer.daemon = True
        timer.start()
        try:
            yield
        except paramiko.ChannelException as exc:
            if exc.code == 1:
                raise PermissionRefused(
                    f"{name} refuses another session: {plain(exc.text)}",
                    remedy="Allow sessions for the account, and raise MaxSessions if it is low.",
                    connector=name,
                ) from exc
            raise Busy(f"{name} opens no session now: {plain(exc.text)}", connector=name) from exc
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise self._broken(exc, name) from exc
        finally:
            timer.cancel()

    @contextmanager
    def watched(self, name: str) -> Iterator[None]:
        """Turn a lost or stalled SFTP channel into our error; other ``OSError`` pass.

        The channel has a time limit for each answer of its own.
        """
        try:
            yield
        except (TimeoutError, EOFError, paramiko.SSHException) as exc:
            raise self._broken(exc, name) from exc
        except OSError as exc:
            if not self.alive or (self._sftp is not None and _is_closed(self._sftp)):
                raise self._broken(exc, name) from exc
            raise

    def _broken(self, exc: BaseException, name: str) -> Unreachable:
        self.usable = False
        reason = plain(exc) or type(exc).__name__
        return Unreachable(f"the connection to {name} broke: {reason}", connector=name)

    @property
    def alive(self) -> bool:
        """Whether the connection is up as far as is known here; asks nobody."""
        return self.usable and self._transport.is_active()

    def _open_sftp(self) -> paramiko.SFTPClient | None:
        channel = self._transport.open_session(timeout=_SILENCE.total_seconds())
        channel.settimeout(_SILENCE.total_seconds())
        try:
            channel.invoke_subsystem("sftp")
            return paramiko.SFTPClient(channel)
        except (paramiko.SSHException, EOFError) as exc:
            channel.close()
            if not self._transport.is_active():
                raise paramiko.SSHException("connection lost") from exc
            return None

    def _open_socket(self, name: str) -> socket.socket | paramiko.Channel:
        settings = self.settings
        seconds = settings.connect_timeout.total_seconds()
        if settings.jump is not None:
            self._above = SshSession(settings.jump, f"{name} (jump host)")
            try:
                return self._above.forward(settings.host, settings.port, name)
            except BaseException:
                self._above.close()
                raise
        try:
            opened = socket.create_connection((settings.host, settings.port), seconds)
        except (OSError, UnicodeError) as exc:
            reason = getattr(exc, "strerror", None) or plain(exc) or "no answer in time"
            raise Unreachable(
                f"cannot connect to {settings.named(name)}: {reason}", connector=name
            ) from exc
        with suppress(OSError):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def forward(self, host: str, port: int, name: str) -> paramiko.Channel:
        """Return a byte stream to *host* and *port* as seen from the server (RFC 4254 7.2)."""
        seconds = self.settings.connect_timeout.total_seconds()
        with self.guarded(seconds + _GUARD_MARGIN, name):
            try:
                return self._transport.open_channel(
                    "direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=seconds
                )
            except paramiko.ChannelException as exc:
                raise Unreachable(
                    f"{self.settings.address} does not reach {plain(host)}:{port}: "
                    f"{plain(exc.text)}",
                    remedy="Check address and firewall as seen from the jump host, and that its "
                    "sshd allows TCP forwarding.",
                    connector=name,
                ) from exc


def _is_closed(client: paramiko.SFTPClient) -> bool:
    channel = client.get_channel()
    return channel is None or channel.closed


def _exchange(
    channel: paramiko.Channel, stdin: bytes, deadline: float, kept: Capture, complaints: Capture
) -> bool:
    """Feed and drain *channel* until the command ended; False if the deadline came first."""
    pending = memoryview(stdin)
    if not pending:
        channel.shutdown_write()
    # Not channel.fileno(): paramiko may write to its wake-up pipe after closing
    # it, when the number already belongs to another connection.
    arrived = threading.Event()
    channel.in_buffer.set_event(arrived)
    channel.in_stderr_buffer.set_event(arrived)
    ended: float | None = None
    while True:
        # Looked at before draining: nothing arrives after it.
        finished = channel.eof_received or channel.closed
        while channel.recv_ready():
            kept.add(channel.recv(_CHUNK))
        while channel.recv_stderr_ready():
            complaints.add(channel.recv_stderr(_CHUNK))
        now = time.monotonic()
        if ended is None and channel.exit_status_ready():
            ended = now
        if finished or (ended is not None and now > ended + _LINGER):
            break
        if now >= deadline:
            return False
        if pending and channel.send_ready():
            try:
                pending = pending[channel.send(bytes(pending[:_CHUNK])) :]
            except OSError:
                # The command did not want all of its input; its exit code says more.
                pending = pending[:0]
            if not pending:
                channel.shutdown_write()
            continue
        arrived.wait(_TICK)
    return channel.status_event.wait(max(0.0, deadline - time.monotonic()))
