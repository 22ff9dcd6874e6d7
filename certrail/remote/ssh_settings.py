"""What an SSH connection is made of: address, credential, and the host keys accepted."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import hmac
import io
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from certrail.errors import AuthenticationFailed, HostKeyMismatch, InvalidRequest
from certrail.log import plain


@dataclass(frozen=True, slots=True)
class SshSettings:
    """Where to log in and how. Two equal settings may share a connection.

    Secrets are texts already opened; none of them is in the ``repr``.

    Attributes:
        host: name or address.
        username: account there.
        private_key_file: path on this machine, "" for none.
        private_key: the key itself (OpenSSH or PEM text), "" for none.
        passphrase: of the private key.
        password: for password login, also tried after a key.
        use_agent: offer the keys of the SSH agent of this process.
        known_hosts_file: pins host keys in the format of sshd(8).
        host_key: pins them as text: one ``type base64`` a line.
        connect_timeout: for each of connecting, key exchange and login.
        keepalive: pause between keep-alive messages.
        jump: log in there first and go on from it.
    """

    host: str
    username: str
    port: int = 22
    private_key_file: str = ""
    private_key: str = field(default="", repr=False)
    passphrase: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    use_agent: bool = False
    known_hosts_file: str = ""
    host_key: str = ""
    connect_timeout: timedelta = timedelta(seconds=15)
    keepalive: timedelta = timedelta(seconds=15)
    jump: SshSettings | None = None

    @property
    def address(self) -> str:
        """``user@host:port``, for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return plain(f"{self.username}@{host}:{self.port}")

    def named(self, name: str) -> str:
        """Return the connector's name with the address, for messages."""
        return self.address if name == self.address else f"{name} ({self.address})"

    @property
    def known_as(self) -> str:
        """The name under which known hosts files list this server."""
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"


def load_key(settings: SshSettings) -> paramiko.PKey | None:
    """Return the private key of *settings*, None if it has none.

    Raises:
        AuthenticationFailed: it cannot be read, or the passphrase is wrong.
    """
    if settings.private_key:
        text, source = settings.private_key, "the private key"
    elif settings.private_key_file:
        source = f"the private key file {plain(settings.private_key_file)}"
        try:
            text = Path(settings.private_key_file).expanduser().read_text()
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
            raise AuthenticationFailed(
                f"cannot read {source}: {reason}",
                remedy="Put the key there, readable by the worker's account only.",
            ) from exc
    else:
        return None
    try:
        return _parse_key(text.strip() + "\n", settings.passphrase)
    except (paramiko.SSHException, ValueError, TypeError) as exc:
        # The reason may quote the key's text, so it is not passed on.
        wrong = "the passphrase is wrong, or " if settings.passphrase else ""
        raise AuthenticationFailed(
            f"cannot use {source}: {wrong}it is encrypted, damaged or of an unknown kind",
            remedy="Give an OpenSSH or PEM key (RSA, ECDSA or Ed25519) and its `passphrase`.",
        ) from exc


def pinned_keys(settings: SshSettings) -> list[paramiko.PKey]:
    """Return the host keys that are accepted for *settings*; never empty.

    Raises:
        HostKeyMismatch: none is pinned for this host.
        InvalidRequest: the file or the text cannot be read.
    """
    keys = [*_from_text(settings.host_key), *_from_file(settings)]
    if not keys:
        where = f" in {plain(settings.known_hosts_file)}" if settings.known_hosts_file else ""
        raise HostKeyMismatch(
            f"no host key is pinned for {plain(settings.known_as)}{where}",
            remedy="Fetch the key with `ssh-keyscan`, compare it with the one the host's "
            "administrator tells, and put it into `known_hosts_file` or `host_key`.",
        )
    return keys


def key_print(key: paramiko.PKey) -> str:
    """Return a public key's kind and SHA-256 fingerprint as OpenSSH writes them."""
    digest = hashlib.sha256(key.asbytes()).digest()
    return f"{key.get_name()} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def _parse_key(text: str, passphrase: str) -> paramiko.PKey:
    secret = passphrase.encode() or None
    try:
        loaded = serialization.load_ssh_private_key(text.encode(), secret)
    except ValueError:
        other = serialization.load_pem_private_key(text.encode(), secret)
        if not isinstance(
            other, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
        ):
            raise
        loaded = other
    # paramiko reads Ed25519 keys in OpenSSH's own format only, so all go through it.
    plain_text = loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    ).decode()
    match loaded:
        case rsa.RSAPrivateKey():
            return paramiko.RSAKey.from_private_key(io.StringIO(plain_text))
        case ec.EllipticCurvePrivateKey():
            return paramiko.ECDSAKey.from_private_key(io.StringIO(plain_text))
        case ed25519.Ed25519PrivateKey():
            return paramiko.Ed25519Key.from_private_key(io.StringIO(plain_text))
        case _:
            raise ValueError("unknown kind of key")


def _from_text(text: str) -> list[paramiko.PKey]:
    keys = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = line.split()
        # A line copied from a known hosts file begins with the host's name.
        start = 0 if _is_key_type(fields[0]) else 1
        key = _public_key(fields[start : start + 2])
        if key is None:
            raise InvalidRequest(
                f"not a host key: {plain(line[:60])!r}",
                remedy="Give one `type base64` a line, as in a file ssh_host_*_key.pub.",
            )
        keys.append(key)
    return keys


def _from_file(settings: SshSettings) -> list[paramiko.PKey]:
    if not settings.known_hosts_file:
        return []
    path = Path(settings.known_hosts_file).expanduser()
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as exc:
        raise InvalidRequest(
            f"cannot read the known hosts file {plain(path)}: {exc.strerror}",
            remedy="Create it with the host's key, readable by the worker's account.",
        ) from exc
    revoked = set()
    accepted = []
    for line in lines:
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        if fields[0].startswith("@"):
            key = _public_key(fields[2:4])
            if fields[0] == "@revoked" and key is not None:
                revoked.add(key.asbytes())
            # Certificate authorities for host keys are not used: keys are pinned.
            continue
        key = _public_key(fields[1:3])
        if key is None:
            continue
        if _listed(fields[0].split(","), settings.known_as):
            accepted.append(key)
    return [key for key in accepted if key.asbytes() not in revoked]


def _listed(patterns: list[str], name: str) -> bool:
    """Return whether a line's first field means *name* (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    found = False
    for pattern in patterns:
        if pattern.startswith("|1|"):
            found = found or hmac.compare_digest(
                paramiko.HostKeys.hash_host(name, pattern), pattern
            )
            continue
        negated = pattern.startswith("!")
        # Only "*" and "?" are special there; "[" is part of "[host]:port".
        glob = pattern.removeprefix("!").lower().replace("[", "[[]")
        if fnmatch.fnmatchcase(name.lower(), glob):
            if negated:
                return False
            found = True
    return found


def _is_key_type(text: str) -> bool:
    return text.startswith(("ssh-", "ecdsa-sha2-", "sk-"))


def _public_key(fields: list[str]) -> paramiko.PKey | None:
    if len(fields) < 2:
        return None
    try:
        return paramiko.PKey.from_type_string(fields[0], base64.b64decode(fields[1]))
    except (paramiko.SSHException, ValueError, paramiko.pkey.UnknownKeyType):
        return None
