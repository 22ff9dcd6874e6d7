"""Talk to the Dovecot programs."""

from __future__ import annotations

import posixpath
import re

from certrail.connectors import Host
from certrail.servers.dovecot.config import Setting, settings_of
from certrail.servers.dovecot.settings import DovecotSettings
from certrail.servers.program import Program
from certrail.servers.target import ProgramControl


class DovecotControl(ProgramControl):
    """One Dovecot on one host."""

    def __init__(self, host: Host, settings: DovecotSettings) -> None:
        self.program = Program(host, "Dovecot")
        self._settings = settings

    def version(self) -> str:
        """Return name and version, ``Dovecot 2.3.19``."""
        text = self.program.run([self._tool("dovecot"), "--version"]).text
        found = re.match(r"[\d.]+", text)
        return f"Dovecot {found[0]}" if found else "Dovecot"

    def test(self) -> str:
        """Return "" if Dovecot can read its configuration; it never looks at certificates."""
        argv = [self._tool("doveconf"), "-c", self._settings.config, "-n"]
        return self.program.words(argv, self._settings.longest_test, said=_errors)

    def reload(self) -> str:
        """Reload; new connections are then answered with the new certificate."""
        argv = [self._settings.binary, "-c", self._settings.config, "reload"]
        return self.program.timed(lambda: self.program.words(argv, self._settings.longest_reload))

    def listeners(self) -> dict[str, tuple[int, bool]]:
        """Return port and whether TLS begins at once for each listener (``imap``, ``imaps``)."""
        argv = [self._tool("doveconf"), "-c", self._settings.config]
        data = self.program.run(argv).stdout
        found: dict[str, tuple[int, bool]] = {}
        protocols = ""
        ports: dict[str, dict[str, str]] = {}
        for one in settings_of(data, "doveconf"):
            if not isinstance(one, Setting):
                continue
            if one.name == "protocols" and not one.blocks:
                protocols = one.value
            if len(one.blocks) == 2 and one.blocks[1].startswith("inet_listener "):
                service, listener = (block.partition(" ")[2] for block in one.blocks)
                if service.endswith("-login"):
                    ports.setdefault(f"{service} {listener}", {})[one.name] = one.value
        for name, values in ports.items():
            service, _, listener = name.partition(" ")
            port = values.get("port", "0")
            if service.removesuffix("-login") in protocols.split() and port.isdigit() and int(port):
                found[listener] = (int(port), values.get("ssl", "no") in ("yes", "required"))
        return found

    def _tool(self, name: str) -> str:
        folder = posixpath.dirname(self._settings.binary)
        return posixpath.join(folder, name) if folder else name


def _errors(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith(("doveconf: Fatal", "Fatal"))]
    return "; ".join(lines)[:600] or text[-300:]
