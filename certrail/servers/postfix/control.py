"""Talk to the Postfix programs."""

from __future__ import annotations

import posixpath

from certrail.connectors import Host
from certrail.servers.postfix.settings import PostfixSettings
from certrail.servers.program import Program
from certrail.servers.target import ProgramControl


class PostfixControl(ProgramControl):
    """One Postfix instance on one host."""

    def __init__(self, host: Host, settings: PostfixSettings) -> None:
        self.program = Program(host, "Postfix")
        self._settings = settings

    def version(self) -> str:
        """Return name and version, ``Postfix 3.7.11``."""
        return f"Postfix {self.value('mail_version')}"

    def value(self, *names: str) -> str:
        """Return the values of parameters as Postfix sees them, one per line, expanded."""
        argv = [self._tool("postconf"), "-c", self._settings.config, "-x", "-h", *names]
        # Warnings about unused parameters go to standard error.
        return self.program.run(argv).stdout.decode(errors="surrogateescape").rstrip("\n")

    def in_sni_map(self, name: str) -> str:
        """Return the map in which *name* has a certificate of its own, "" if none."""
        for table in self.value("tls_server_sni_maps").replace(",", " ").split():
            argv = [self._tool("postmap"), "-c", self._settings.config, "-F", "-q", name, table]
            if self.program.run(argv).exit_code == 0:
                return table
        return ""

    def test(self) -> str:
        """Return "" if Postfix accepts its configuration; it never looks at certificates."""
        return self.program.words(self._command("check"), self._settings.longest_test)

    def reload(self) -> str:
        """Reload; new connections are then answered with the new certificate."""
        argv = self._command("reload")
        return self.program.timed(lambda: self.program.words(argv, self._settings.longest_reload))

    def _command(self, what: str) -> list[str]:
        return [self._settings.binary, "-c", self._settings.config, what]

    def _tool(self, name: str) -> str:
        folder = posixpath.dirname(self._settings.binary)
        return posixpath.join(folder, name) if folder else name
