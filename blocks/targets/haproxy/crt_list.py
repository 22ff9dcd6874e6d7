"""A certificate that HAProxy does not have yet: a new file, and a line in a crt-list.

``new ssl cert`` makes an empty place in memory, which ``set`` and ``commit`` fill;
``add ssl crt-list`` lets a listener use it, ``del ssl crt-list`` and ``del ssl cert``
take it away (HAProxy Management Guide 2.6, section 9.3; tried with 2.6.12 and 2.8.25).
Both files are changed on disk as well, for the next start.
"""

from __future__ import annotations

import re

from blocks.targets.haproxy.runtime_api import RuntimeApi
from certrail.connectors import Host
from certrail.errors import ActivationRefused, InvalidRequest, NotFound
from certrail.log import plain

_ENTRY = re.compile(r"(?P<file>\S+?)(?::\d+)?(?:\s.*)?")


class CrtList:
    """One crt-list, in HAProxy's memory and in its file."""

    def __init__(self, api: RuntimeApi, host: Host, path: str) -> None:
        self._api = api
        self._host = host
        self.path = path

    def must_exist(self) -> None:
        """Check that a listener uses this list.

        Raises:
            NotFound: HAProxy knows no such list.
        """
        known = self._api.run("show ssl crt-list").splitlines()
        if self.path not in known:
            raise NotFound(
                f"{self._api.label}: HAProxy has no crt-list {self.path}",
                remedy="Set crt_list of the endpoint's server to one of: "
                + (
                    plain(", ".join(line for line in known if line))
                    or "none, so a bind line with crt-list is needed first"
                ),
                connector=self._api.label,
            )

    def add(self, file: str) -> None:
        """Let listeners use *file*, which is in memory; a second time is quiet.

        Raises:
            ActivationRefused: HAProxy refuses it.
        """
        if file not in self._in_memory():
            said = self._api.run(f"add ssl crt-list {self.path} {file}")
            if "Success!" not in said:
                raise ActivationRefused(
                    f"HAProxy refused the line in {self.path}: {plain(' '.join(said.split()))}"
                )
        text = self._text()
        if file not in _files(text):
            ended = text if not text or text.endswith("\n") else f"{text}\n"
            self._host.write_file(self.path, f"{ended}{file}\n".encode())

    def remove(self, file: str) -> None:
        """Take *file* out of the list; absent is quiet."""
        text = self._text()
        kept = [line for line in text.splitlines(keepends=True) if _file_of(line) != file]
        if "".join(kept) != text:
            self._host.write_file(self.path, "".join(kept).encode())
        if file in self._in_memory():
            said = self._api.run(f"del ssl crt-list {self.path} {file}")
            if "deleted in crtlist" not in said:
                raise InvalidRequest(
                    f"HAProxy keeps {file} in {self.path}: {plain(' '.join(said.split()))}",
                    remedy="Remove it by hand: `del ssl crt-list`, then `del ssl cert`.",
                )

    def _in_memory(self) -> set[str]:
        return _files(self._api.run(f"show ssl crt-list {self.path}"))

    def _text(self) -> str:
        try:
            return self._host.read_file(self.path).decode()
        except UnicodeDecodeError as exc:
            raise InvalidRequest(
                f"{self.path} is not a text", remedy="Check crt_list of the endpoint's server."
            ) from exc


def _files(text: str) -> set[str]:
    return {found for line in text.splitlines() if (found := _file_of(line))}


def _file_of(line: str) -> str:
    found = _ENTRY.fullmatch(line.strip())
    return found["file"] if found and not line.lstrip().startswith("#") else ""
