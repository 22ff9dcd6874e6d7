"""The first seconds of an SSH connection: key exchange, host key, login."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import paramiko

from certrail.errors import (
    AuthenticationFailed,
    HostKeyMismatch,
    UnexpectedReply,
    Unreachable,
)
from certrail.log import plain
from certrail.remote.ssh_settings import SshSettings, key_print, load_key

# An RSA key signs under these names (RFC 8332); its own name stands for SHA-1.
_RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")


def negotiate(
    settings: SshSettings,
    channel: socket.socket | paramiko.Channel,
    pinned: Sequence[paramiko.PKey],
    *,
    name: str,
    log: str,
) -> paramiko.Transport:
    """Exchange keys over *channel* and check the server's key against *pinned*.

    Raises:
        HostKeyMismatch: the server shows another key.
        UnexpectedReply: it speaks something else, or no common algorithm.
        Unreachable: no answer in time.
    """
    seconds = settings.connect_timeout.total_seconds()
    try:
        transport = paramiko.Transport(channel)
    except (paramiko.SSHException, OSError) as exc:
        raise Unreachable(f"cannot talk SSH to {name}: {plain(exc)}", connector=name) from exc
    transport.set_log_channel(log)
    # The wait below is the limit; paramiko's own are to end its thread only.
    transport.banner_timeout = seconds + 5
    transport.handshake_timeout = seconds + 5
    transport.auth_timeout = seconds
    _prefer(transport, pinned)
    done = threading.Event()
    try:
        transport.start_client(event=done)
        finished = done.wait(seconds)
        failure = transport.get_exception()
        if not finished or not transport.is_active():
            raise _no_session(failure, settings, finished=finished, name=name)
        shown = transport.get_remote_server_key()
        if not any(shown.asbytes() == key.asbytes() for key in pinned):
            raise HostKeyMismatch(
                f"{settings.named(name)} shows the host key {key_print(shown)}, pinned is "
                + " or ".join(key_print(key) for key in pinned),
                connector=name,
            )
    except paramiko.SSHException as exc:
        transport.close()
        raise Unreachable(f"cannot talk SSH to {name}: {plain(exc)}", connector=name) from exc
    except BaseException:
        transport.close()
        raise
    return transport


def log_in(transport: paramiko.Transport, settings: SshSettings, *, name: str) -> None:
    """Authenticate with key, agent and password, in this order, as far as given.

    Raises:
        AuthenticationFailed: all were refused, or none is configured.
        Unreachable: the server went away meanwhile, or took too long.
    """
    refused: list[str] = []
    with _logins(transport, settings) as logins:
        for label, login in logins:
            wanted = _attempt(login, label, refused, transport, settings.named(name), name)
            if wanted == []:
                return
            if wanted:
                refused.append(f"{label} accepted, {', '.join(map(plain, wanted))} wanted too")
        if not logins and settings.use_agent:
            refused.append("the agent has no key, and no other key or password is given")
        elif not logins:
            refused.append("no key or password is given")
    raise AuthenticationFailed(
        f"{settings.named(name)} refused the login: {'; '.join(refused)}",
        remedy=f"Put the public key into ~/.ssh/authorized_keys of {plain(settings.username)} on "
        "the host, or correct user, key or password of the connector.",
        connector=name,
    )


def _attempt(
    login: Callable[[], Iterable[str]],
    label: str,
    refused: list[str],
    transport: paramiko.Transport,
    where: str,
    name: str,
) -> list[str] | None:
    """Return what the server still wants ([] for nothing), None if it refused."""
    try:
        return list(login())
    except paramiko.BadAuthenticationType as exc:
        allowed = ", ".join(plain(item) for item in exc.allowed_types)
        refused.append(f"{label} not allowed, only {allowed or 'nothing'}")
    except paramiko.AuthenticationException as exc:
        if transport.is_active() and "timeout" not in str(exc):
            refused.append(f"{label} refused")
        elif refused:
            # Servers hang up after too many attempts.
            refused.append(f"{label}: the server hung up")
        else:
            raise Unreachable(f"{where} went away during login", connector=name) from exc
    except (paramiko.SSHException, EOFError, OSError) as exc:
        raise Unreachable(f"{where} went away during login: {plain(exc)}", connector=name) from exc
    return None


@contextmanager
def _logins(
    transport: paramiko.Transport, settings: SshSettings
) -> Iterator[list[tuple[str, Callable[[], Iterable[str]]]]]:
    """Open what can be offered, in order; the agent signs while the context lasts."""
    key = load_key(settings)
    with _agent_keys(wanted=settings.use_agent) as agent_keys:
        offers = [(f"key {key_print(key)}", key)] if key is not None else []
        offers += [(f"agent key {key_print(held)}", held) for held in agent_keys]
        logins: list[tuple[str, Callable[[], Iterable[str]]]] = [
            (label, partial(transport.auth_publickey, settings.username, held))
            for label, held in offers
        ]
        if settings.password:
            login = partial(transport.auth_password, settings.username, settings.password)
            logins.append(("password", login))
        yield logins


@contextmanager
def _agent_keys(*, wanted: bool) -> Iterator[tuple[paramiko.PKey, ...]]:
    try:
        agent = paramiko.Agent() if wanted else None
    except (paramiko.SSHException, OSError):
        agent = None
    try:
        yield tuple(agent.get_keys()) if agent else ()
    finally:
        if agent:
            agent.close()


def _prefer(transport: paramiko.Transport, pinned: Sequence[paramiko.PKey]) -> None:
    """Ask first for the kinds of key that are pinned: a server may have several."""
    options = transport.get_security_options()
    wanted: list[str] = []
    for key in pinned:
        kind = key.get_name()
        wanted += _RSA_SIGNATURES if kind == "ssh-rsa" else (kind,)
    known = options.key_types
    first = [kind for kind in dict.fromkeys(wanted) if kind in known]
    options.key_types = (*first, *(kind for kind in known if kind not in first))


def _no_session(
    failure: BaseException | None, settings: SshSettings, *, finished: bool, name: str
) -> Unreachable | UnexpectedReply:
    where = settings.named(name)
    if isinstance(failure, paramiko.ssh_exception.IncompatiblePeer):
        return UnexpectedReply(
            f"{where} shares no algorithm with us: {plain(failure)}",
            remedy="Update the SSH server; old key exchanges and SHA-1 are not offered.",
            connector=name,
        )
    if not finished:
        return Unreachable(
            f"{where} did not finish the SSH handshake within "
            f"{settings.connect_timeout.total_seconds():g} s",
            connector=name,
        )
    return Unreachable(
        f"{where} broke the SSH handshake off: {plain(failure or 'no reason given')}",
        connector=name,
    )
