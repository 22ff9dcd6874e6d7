"""Switch a server to another certificate, or leave everything as it was.

What is about to change is written down on the host first, with a copy of
each file, so that any later process can finish or undo it::

    <base>/<name>/changes/<version>/journal.json
                                    0, 1, …       the files as they were
"""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from certrail.connectors import Host
from certrail.errors import ActivationRefused, CertrailError, Conflict, NotFound
from certrail.log import effect, plain
from certrail.remote.leftovers import remove_unfinished
from certrail.servers.splice import Replacement, take_back
from certrail.servers.versions import Versions


class Control(Protocol):
    """How a server program is asked to judge and to read its configuration."""

    def test(self) -> str:
        """Return "" if the server accepts its configuration, else its own words."""
        ...

    def reload(self) -> str:
        """Make the running server use its configuration.

        Returns "" once it does, else the server's own words.
        """
        ...


@runtime_checkable
class Starts(Protocol):
    """A :class:`Control` of a server that reads its configuration only when it starts.

    Attributes:
        edited: told before a reload: whether more than certificates has changed.
    """

    edited: bool


class State(StrEnum):
    """How far a change got."""

    PREPARED = "prepared"
    """Files may have been changed; the server may have read them."""
    LIVE = "live"
    """The server uses it."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """One configuration file to be changed: real path, bytes now and then, and the difference."""

    path: str
    before: bytes
    after: bytes
    made: tuple[Replacement, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """What a change was before and is afterwards, as it is noted on the host."""

    link_before: str
    link_after: str
    files: tuple[FileRecord, ...]
    state: State


@dataclass(frozen=True, slots=True)
class FileRecord:
    path: str
    mode: int
    before: str
    after: str
    copy: str
    made: tuple[tuple[str, str], ...]


class Transaction:
    """The change that makes one version of a certificate live."""

    def __init__(self, host: Host, versions: Versions, version: str, *, server: str) -> None:
        self._host = host
        self._versions = versions
        self._version = version
        self._server = server
        self.directory = versions.changes(version)

    @property
    def _journal(self) -> str:
        return posixpath.join(self.directory, "journal.json")

    def state(self) -> State | None:
        """Return how far this change got, None if it was never begun or was undone."""
        record = self._read()
        return record.state if record else None

    @classmethod
    def begin_again(cls, host: Host, versions: Versions, *, server: str) -> None:
        """Undo what a crash left half done on this site; quiet if there is nothing.

        The caller holds the lock for the host, so a change that is not live
        belongs to a process that is gone, whichever version it was for.
        """
        parent = versions.changes()
        if host.info(parent) is None:
            return
        for version in host.list_directory(parent):
            cls(host, versions, version, server=server)._undo_unfinished()

    def _undo_unfinished(self) -> None:
        record = self._read()
        if record is not None and record.state is not State.LIVE:
            effect("activation.undo", host=self._host.name, change=self.directory)
            self._undo(record, self._as_before(record))
            self.forget()

    def switch(self, files: Sequence[FileChange], control: Control) -> None:
        """Point the link at the version, write *files*, test, reload.

        Raises:
            ActivationRefused: the server refused; everything is as it was before.
            Conflict: a file changed since it was read; nothing was changed.
        """
        record = self.put(files)
        reloading = False
        try:
            words = control.test()
            if words:
                raise self._refused("refuses the new configuration", words)
            reloading = True
            _tell(control, record)
            words = control.reload()
            if words:
                raise self._refused("tested the configuration but did not take it over", words)
        except CertrailError as exc:
            self._put_back(record, exc, control if reloading else None)
            raise
        self.keep(record)

    def put(self, files: Sequence[FileChange]) -> Record:
        """Point the link at the version and write *files*; the server knows nothing of it yet.

        Raises:
            Conflict: a file changed since it was read; nothing was changed.
        """
        try:
            record = self._prepare(files)
        except CertrailError:
            self.forget()
            raise
        try:
            self._versions.switch(record.link_after)
            for change, noted in zip(files, record.files, strict=True):
                self._write(change, noted)
        except CertrailError as exc:
            self._put_back(record, exc, None)
            raise
        return record

    def keep(self, record: Record) -> None:
        """Note that the server has taken over what was :meth:`put`."""
        self._versions.remember(self._version)
        self._save(replace(record, state=State.LIVE))
        self._tidy(record)

    def put_back(self, record: Record) -> None:
        """Undo :meth:`put`; the server is not told.

        Raises:
            Conflict: somebody has changed link or file in a way that cannot be undone.
        """
        self._undo(record, self._as_before(record))
        self.forget()

    def restore(self, control: Control) -> bool:
        """Put back link and files and make the server read them; False if there was nothing to do.

        Raises:
            Conflict: somebody has changed link or file in a way that cannot
                be undone by itself; nothing was changed.
            ActivationRefused: the server refuses what was there before.
        """
        record = self._read()
        if record is None:
            return False
        contents = self._as_before(record)
        self._save(replace(record, state=State.PREPARED))
        self._undo(record, contents)
        _tell(control, record)
        for ask in (control.test, control.reload):
            if words := ask():
                raise ActivationRefused(
                    f"the previous configuration was put back, but {self._server} "
                    f"does not take it over: {words}",
                    remedy=f"Correct the configuration on {self._host.name}, then reload it.",
                )
        self.forget()
        return True

    def forget(self) -> None:
        """Remove the journal and the copies."""
        self._host.remove(self.directory, tree=True)
        parent = posixpath.dirname(self.directory)
        if self._host.info(parent) is not None and not self._host.list_directory(parent):
            self._host.remove(parent)

    def _tidy(self, record: Record) -> None:
        """Remove what somebody who was cut off while writing these files has left beside them."""
        remove_unfinished(self._host, *(posixpath.dirname(noted.path) for noted in record.files))

    def _prepare(self, files: Sequence[FileChange]) -> Record:
        noted = []
        self._host.make_directory(posixpath.dirname(self.directory), mode=0o700)
        self._host.make_directory(self.directory, mode=0o700)
        for number, change in enumerate(files):
            info = self._host.info(change.path)
            mode = info.mode if info else 0o644
            copy = posixpath.join(self.directory, str(number))
            self._host.write_file(copy, change.before, mode=mode)
            made = tuple((_to_text(one.old), _to_text(one.new)) for one in change.made)
            noted.append(
                FileRecord(
                    change.path, mode, _digest(change.before), _digest(change.after), copy, made
                )
            )
        record = Record(
            link_before=self._versions.live_target(),
            link_after=self._versions.target(self._version),
            files=tuple(noted),
            state=State.PREPARED,
        )
        self._save(record)
        return record

    def _write(self, change: FileChange, noted: FileRecord) -> None:
        if _digest(self._host.read_file(change.path)) != noted.before:
            raise Conflict(
                f"{change.path} on {self._host.name} was changed by somebody else meanwhile",
                connector=self._host.name,
            )
        self._host.write_file(change.path, change.after, mode=noted.mode)

    def _put_back(self, record: Record, cause: CertrailError, reload: Control | None) -> None:
        """Undo after *cause*; says in a note on *cause* if that did not work.

        *reload* is who has read the new files already.
        """
        try:
            self._undo(record, self._as_before(record))
            words = reload.reload() if reload is not None else ""
            if words:
                cause.add_note(f"reload after putting everything back: {words}")
            self.forget()
        except CertrailError as exc:
            effect("activation.undo-failed", host=self._host.name, cause=exc)
            cause.remedy = (
                f"Putting the files back failed too ({plain(exc)}); retry, which does that first."
            )

    def _refused(self, what: str, words: str) -> ActivationRefused:
        return ActivationRefused(
            f"{self._server} on {self._host.name} {what}: {words}; the previous certificate "
            "was put back"
        )

    def _as_before(self, record: Record) -> list[bytes | None]:
        """Return what to write back into each file, None where it is as it was.

        Raises:
            Conflict: link or file are neither as before nor as we left them.
        """
        now = self._versions.live_target()
        if now not in (record.link_before, record.link_after):
            raise Conflict(
                f"{self._versions.live_link} points at {plain(now)}: another certificate was "
                "installed since",
                remedy="Nothing was put back. Look at which certificate is wanted.",
                connector=self._host.name,
            )
        return [self._as_it_was(noted, record.state) for noted in record.files]

    def _undo(self, record: Record, contents: Sequence[bytes | None]) -> None:
        # The reverse of the order of switch: the files may name the link.
        for noted, content in zip(record.files, contents, strict=True):
            if content is not None:
                self._host.write_file(noted.path, content, mode=noted.mode)
        if self._versions.live_target() != record.link_before:
            self._versions.switch(record.link_before)
        self._tidy(record)

    def _as_it_was(self, noted: FileRecord, state: State) -> bytes | None:
        """Return what to write back, None if nothing of ours is in the file."""
        now = self._host.read_file(noted.path)
        if _digest(now) == noted.before:
            return None
        if _digest(now) == noted.after:
            return self._host.read_file(noted.copy)
        made = [Replacement(_to_bytes(old), _to_bytes(new)) for old, new in noted.made]
        if state is State.PREPARED and not self._is_made(now, made):
            # A crash came before it was written, or after it was put back; other sites that
            # are configured in this file went on.
            return None
        return take_back(now, made, noted.path)

    def _is_made(self, data: bytes, made: Sequence[Replacement]) -> bool:
        """Whether what we write is in *data*; a file is written as a whole or not at all."""
        link = self._versions.live_link.encode()
        ours = [one for one in made if link in one.new] or made
        return any(one.new in data for one in ours)

    def _save(self, record: Record) -> None:
        self._host.write_file(self._journal, json.dumps(asdict(record)).encode(), mode=0o600)

    def _read(self) -> Record | None:
        try:
            data: dict[str, Any] = json.loads(self._host.read_file(self._journal))
        except NotFound:
            return None
        files = tuple(
            FileRecord(**{**one, "made": tuple((old, new) for old, new in one["made"])})
            for one in data["files"]
        )
        return Record(data["link_before"], data["link_after"], files, State(data["state"]))


def _tell(control: Control, record: Record) -> None:
    if isinstance(control, Starts):
        control.edited = bool(record.files)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _to_text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _to_bytes(text: str) -> bytes:
    return base64.b64decode(text)
