"""Talk to the caddy program."""

from __future__ import annotations

import json
import re

from certrail.connectors import Host
from certrail.servers.caddy.config import Configuration, read_configuration
from certrail.servers.caddy.settings import CaddySettings
from certrail.servers.program import Program, last_lines
from certrail.servers.target import ProgramControl


class CaddyControl(ProgramControl):
    """One Caddy on one host."""

    def __init__(self, host: Host, settings: CaddySettings) -> None:
        self.program = Program(host, "Caddy")
        self._host = host
        self._settings = settings

    def read(self) -> Configuration:
        """Read the Caddyfile.

        Raises:
            NotFound: there is none.
            InvalidRequest: it cannot be understood.
        """
        return read_configuration(self._host, self._settings.config)

    def version(self) -> str:
        """Return name and version, ``Caddy 2.11.7``."""
        found = re.search(r"\d[\d.]*", self.program.run([self._settings.binary, "version"]).text)
        return f"Caddy {found[0]}" if found else "Caddy"

    def account(self) -> str:
        """Return the account that Caddy runs as, "" where that is not to be told or the own one."""
        found = self._host.run(["ps", "-C", "caddy", "-o", "euser:32="])
        accounts = set(found.stdout.decode(errors="replace").split())
        return next(iter(accounts - {"root"}), "") if len(accounts) == 1 else ""

    @property
    def test_command(self) -> list[str]:
        """What tests a configuration."""
        return self._command("validate")

    @property
    def reload_command(self) -> list[str]:
        """What reloads."""
        match self._settings.reload:
            case "caddy":
                return self._command("reload", "--force")
            case "systemd":
                return ["systemctl", "reload", "caddy"]
            case command:
                return list(command)

    def test(self) -> str:
        """Return "" if Caddy accepts its configuration, certificates and keys too."""
        return self.program.words(self.test_command, self._settings.longest_test, said=_errors)

    def reload(self) -> str:
        """Reload; without ``--force`` files whose names stay the same are not read again."""
        limit, argv = self._settings.longest_reload, self.reload_command
        return self.program.timed(lambda: self.program.words(argv, limit, said=_errors))

    def _command(self, what: str, *options: str) -> list[str]:
        file = ["--config", self._settings.config, "--adapter", "caddyfile"]
        return [self._settings.binary, what, *file, *options]


def _errors(text: str) -> str:
    """Return what Caddy complains about: the line with ``Error:``, else its last log entry."""
    plain = [line for line in text.splitlines() if line.startswith("Error")]
    if plain:
        return last_lines("\n".join(plain))
    for line in reversed(text.splitlines()):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") == "error":
            return last_lines(str(entry.get("error") or entry.get("msg")))
    return last_lines(text)
