"""How what was staged becomes live and goes back, the same for every server program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from certrail.connectors import Host, InstallTarget, MakesKeyFiles, SwitchesTogether
from certrail.errors import ActivationRefused, PermissionRefused
from certrail.log import effect
from certrail.model import Staged
from certrail.servers.settings import ServerSettings
from certrail.servers.transaction import Control, FileChange, Record, State, Transaction
from certrail.servers.versions import Versions, version_of
from certrail.words import served_again

_NO_RIGHT = ("Permission denied", "not permitted")


class SwitchedTarget(InstallTarget, MakesKeyFiles, SwitchesTogether, ABC):
    """A server program that takes over files, with one test and one reload for any number."""

    server: ClassVar[str]
    """Its name, for people."""
    test_command: ClassVar[str]
    """How a person tests the configuration."""
    host: Host
    settings: ServerSettings
    control: Control
    _put: tuple[Transaction, Record, Staged, str] | None = None

    @property
    @abstractmethod
    def told(self) -> str:
        """What the server was made to do, for people."""

    @abstractmethod
    def _change(self, staged: Staged) -> tuple[Transaction, list[FileChange], str]:
        """Return what makes *staged* live, and it for people; "" if it is live already."""

    @abstractmethod
    def _transaction(self, staged: Staged) -> tuple[Transaction, Versions]:
        """Return the transaction of *staged*, and the versions it is one of."""

    def examine(self) -> str:
        """Return "" if the configuration is fit to be changed, else what is wrong with it."""
        return self.control.test()

    def activate(self, staged: Staged) -> str:
        transaction, changes, summary = self._change(staged)
        if not summary:
            return f"{self.server}: {staged.fingerprint[:16]}… was live already, nothing changed"
        try:
            transaction.switch(changes, self.control)
        except ActivationRefused:
            # Said by someone who broke it between staging and now?
            self.must_be_sound()
            raise
        effect("site.activate", host=self.host.name, site=staged.site)
        return f"{self.server}: {summary}, {self.told}"

    def put(self, staged: Staged) -> bool:
        transaction, changes, summary = self._change(staged)
        if summary:
            self._put = transaction, transaction.put(changes), staged, summary
        return bool(summary)

    def accepts(self) -> str:
        return self.control.test()

    def reload(self) -> str:
        return self.control.reload()

    def keep(self, told: str) -> str:
        assert self._put is not None
        transaction, record, staged, summary = self._put
        transaction.keep(record)
        effect("site.activate", host=self.host.name, site=staged.site)
        return f"{self.server}: {summary}, {told}"

    def put_back(self) -> None:
        assert self._put is not None
        transaction, record, _, _ = self._put
        transaction.put_back(record)

    def restore(self, staged: Staged) -> str:
        transaction, _ = self._transaction(staged)
        if not transaction.restore(self.control):
            return f"{self.server}: nothing to put back"
        effect("site.restore", host=self.host.name, site=staged.site)
        return f"{self.server}: {served_again(staged.replaces)}, {self.told}"

    def discard(self, staged: Staged) -> None:
        transaction, versions = self._transaction(staged)
        if transaction.state() is State.PREPARED:
            transaction.restore(self.control)
        version = version_of(staged.fingerprint)
        if versions.live() == version:
            for old in versions.prune(self.settings.keep_versions):
                Transaction(self.host, versions, old, server=self.server).forget()
            return
        transaction.forget()
        versions.remove(version)

    def must_be_sound(self) -> None:
        words = self.examine()
        if any(text in words for text in _NO_RIGHT):
            raise PermissionRefused(
                f"{self.server} cannot be tested with this account on {self.host.name}: {words}",
                remedy="Log in as root, or set `sudo: true` for the host.",
                connector=self.host.name,
            )
        if words:
            raise ActivationRefused(
                f"{self.server} on {self.host.name} refuses its configuration as it is, "
                f"before anything was changed: {words}",
                remedy=f"Correct the configuration until `{self.test_command}` accepts it, "
                "then retry.",
            )
