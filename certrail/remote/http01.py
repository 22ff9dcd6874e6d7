"""Where the proofs of http-01 are published (RFC 8555 section 8.3)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from certrail.connectors import ChallengeResponder, Host
from certrail.errors import Conflict, InvalidRequest, NotFound, UnexpectedReply
from certrail.log import effect, plain
from certrail.model import Challenge, ChallengeKind
from certrail.remote.posix_paths import checked, readable
from certrail.remote.token_server import published_tokens

WELL_KNOWN = "/.well-known/acme-challenge/"

# The alphabet of base64url without padding, and no longer than a file name may be.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,255}\Z")
# Tells a directory that was made here from one that was there before, also to
# a later process.
_MARK = ".certrail"
_MARK_TEXT = b"Made for http-01 challenges; removed with the last of them.\n"
_ATTEMPTS = 3


def checked_token(token: str) -> str:
    """Return *token* if it is one: it becomes a file name.

    Raises:
        UnexpectedReply: it holds something else than base64url characters.
    """
    if not _TOKEN.match(token):
        raise UnexpectedReply(
            f"the CA sent a token that is not base64url: {plain(token)[:80]!r}",
            remedy="Check the directory URL of the CA; nothing was written.",
        )
    return token


class WebrootResponder(ChallengeResponder):
    """Puts the proofs as files below the document root of a web server that runs already."""

    kind = ChallengeKind.HTTP_01

    def __init__(self, host: Host, webroot: str) -> None:
        """Use *webroot*, an existing directory of *host*.

        Raises:
            InvalidRequest: it is not an absolute path.
        """
        self._host = host
        self._webroot = checked(webroot).rstrip("/")
        self._well_known = f"{self._webroot}/.well-known"
        self._directory = f"{self._well_known}/acme-challenge"

    def publish(self, challenges: Sequence[Challenge]) -> str:
        """Write one file for each challenge, readable by everybody.

        Raises:
            NotFound: the web root does not exist.
            PermissionRefused, StorageFull: as ``Host.write_file``.
        """
        files = {checked_token(item.token): item.key_authorization for item in challenges}
        for token, proof in files.items():
            self._write(token, proof.encode())
        effect("http01.publish", host=self._host.name, webroot=self._webroot, files=len(files))
        return f"{len(files)} file(s) in {readable(self._directory)} on {self._host.name}"

    def withdraw(self, challenges: Sequence[Challenge]) -> None:
        """Remove the files, and directories made for them once they are empty."""
        for item in challenges:
            self._host.remove(posixpath.join(self._directory, checked_token(item.token)))
        for directory in (self._directory, self._well_known):
            self._remove_own(directory)

    def _write(self, token: str, proof: bytes) -> None:
        path = posixpath.join(self._directory, token)
        for attempt in range(1, _ATTEMPTS + 1):
            for directory in (self._well_known, self._directory):
                self._make(directory)
            try:
                self._host.write_file(path, proof, mode=0o644)
            except NotFound:
                # Another request has just removed the directory after its last proof.
                if attempt == _ATTEMPTS:
                    raise
            else:
                return

    def _make(self, directory: str) -> None:
        if self._host.info(directory) is not None:
            return
        root = self._host.info(self._webroot or "/")
        if root is None or root.kind not in ("directory", "link"):
            raise NotFound(
                f"there is no web root {readable(self._webroot)} on {self._host.name}",
                remedy="Set the document root that the web server serves for these names.",
                connector=self._host.name,
            )
        self._host.make_directory(directory)
        try:
            self._host.write_file(posixpath.join(directory, _MARK), _MARK_TEXT)
        except NotFound:
            return

    def _remove_own(self, directory: str) -> None:
        mark = posixpath.join(directory, _MARK)
        try:
            if self._host.list_directory(directory) != (_MARK,):
                return
            self._host.remove(mark)
            self._host.remove(directory)
        except NotFound:
            return
        except Conflict:
            # Another request has put its proof there meanwhile and cleans up later.
            self._host.write_file(mark, _MARK_TEXT)


class ListeningResponder(ChallengeResponder):
    """Answers the CA itself, for machines without a web server on port 80.

    All responders of a process with the same address and port share one
    listener. It is open while a proof is published, and ends with the process.
    """

    kind = ChallengeKind.HTTP_01

    def __init__(self, address: str = "::", port: int = 80) -> None:
        """Listen on *address* (``::`` is every IPv6 and IPv4 address) and *port*.

        Raises:
            InvalidRequest: *port* cannot be one.
        """
        if not 0 < port < 65536:
            raise InvalidRequest(f"not a TCP port: {port}", remedy="Give 1 to 65535.")
        self._address = address
        self._port = port

    def publish(self, challenges: Sequence[Challenge]) -> str:
        """Answer for *challenges* from now on.

        Raises:
            Busy: another program listens there.
            PermissionRefused: the port is not open to our account.
        """
        proofs = {checked_token(item.token): item.key_authorization for item in challenges}
        published_tokens.add(self._address, self._port, proofs)
        effect("http01.listen", address=self._address, port=self._port, tokens=len(proofs))
        return f"{len(proofs)} token(s) answered on {self._address} port {self._port}"

    def withdraw(self, challenges: Sequence[Challenge]) -> None:
        """Stop answering for *challenges*; the port is given up with the last one."""
        published_tokens.discard(self._address, self._port, [item.token for item in challenges])
