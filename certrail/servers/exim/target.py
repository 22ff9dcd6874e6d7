"""Install certificates on Exim."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from certrail.connectors import Host
from certrail.errors import InvalidRequest, NotFound
from certrail.servers.exim.config import Configuration
from certrail.servers.exim.control import EximControl
from certrail.servers.exim.settings import EximSettings
from certrail.servers.pair import Found, Line, PairTarget, listen
from certrail.servers.versions import Form, Versions
from certrail.words import counted

_CERTIFICATE, _KEY, _ADVERTISE = "tls_certificate", "tls_privatekey", "tls_advertise_hosts"
_PORTS = {"smtp": "25", "submission": "587", "submissions": "465", "smtps": "465", "ssmtp": "465"}


class EximTarget(PairTarget):
    """One Exim on one host.

    Exim reads its files for each connection, also before a reload, so key and
    chain are one file: the switch of a link changes both.
    """

    server = "Exim"
    form = Form.KEY_FIRST
    test_command = "exim -bV"
    blind = True
    starttls = "smtp"
    settings: EximSettings
    control: EximControl

    def __init__(self, host: Host, settings: EximSettings) -> None:
        super().__init__(host, settings, EximControl(host, settings))

    @property
    def base(self) -> str:
        beside = posixpath.dirname(self.control.sources()[-1])
        # Every file of conf.d becomes part of the configuration.
        beside = "/etc/exim4" if self.control.is_generated else beside
        return self.settings.directory or posixpath.join(beside, "certrail")

    def account(self) -> str:
        found = self.control.value("exim_user")
        return "" if found == "root" else found

    def check(self) -> str:
        count = len(self._read().files)
        return (
            f"{self.control.version()} on {self.host.name}, {self.control.config}: "
            f"{counted(count, 'file')}"
        )

    def listens(self) -> tuple[str, ...]:
        ports = _words(self.control.value("daemon_smtp_ports")) or ["25"]
        at_once = _words(self.control.value("tls_on_connect_ports"))
        addresses = _addresses(self.control.value("local_interfaces")) or [""]
        plain = [port for port in ports if port not in at_once] or ports
        return tuple(
            listen(address, _PORTS.get(port, port)) for port in plain for address in addresses
        )

    def find(self) -> Found:
        configuration = self._read()
        text = configuration.text(_CERTIFICATE)
        value = configuration.source(_CERTIFICATE)
        why = ""
        if not text:
            why = "no `tls_certificate` is set"
        elif configuration.text(_ADVERTISE) == "" and _ADVERTISE in configuration.options:
            why = "`tls_advertise_hosts` is empty"
        return Found(
            configuration.files,
            text if text.startswith("/") else "",
            why,
            value.place if value and value.path else configuration.end[0],
            configuration.end,
        )

    def lines(self, versions: Versions) -> Sequence[Line]:
        configuration = self._read()
        live = versions.live_combined
        if self.control.is_generated and not configuration.text(_CERTIFICATE):
            raise InvalidRequest(
                "TLS is off in the configuration of Debian's package",
                remedy="Write `MAIN_TLS_ENABLE = yes` into /etc/exim4/exim4.conf.localmacros (or "
                "/etc/exim4/conf.d/main/000_localmacros, if the configuration is split), then "
                "retry.",
            )
        lines: list[Line] = []
        for name in (_CERTIFICATE, _KEY):
            source = configuration.source(name)
            if source is not None and source in [one.present for one in lines]:
                # One macro says both.
                continue
            if source is None and name == _KEY:
                # The key is looked for in the file of the certificate.
                continue
            if source is not None and (not source.path or self._is_list(configuration, name)):
                place = source.place if source.path else configuration.end[0]
                raise InvalidRequest(
                    f"{place}: `{name}` is decided for each connection, or names several files",
                    remedy=f"Write `{name} = {live}` there, then retry.",
                )
            lines.append(Line(f"{name} = {live}", live, live, source))
        if _ADVERTISE in configuration.options and not configuration.text(_ADVERTISE):
            present = configuration.source(_ADVERTISE)
            lines.append(Line(f"{_ADVERTISE} = *", "*", "*", present))
        return lines

    def _is_list(self, configuration: Configuration, name: str) -> bool:
        """Return whether the value is more than one path, or another one in Exim's own eyes."""
        text = configuration.text(name)
        said = self.control.value(name)
        differs = not self.control.is_generated and said != text
        return bool(re.search(r"[$:\s]", text)) or differs

    def _read(self) -> Configuration:
        try:
            return self.control.read()
        except NotFound as exc:
            exc.remedy = "Set `config` of the endpoint's server to the path of the configuration."
            raise


def _words(text: str) -> list[str]:
    return [one for one in re.split(r"\s*:\s*|\s+", text.strip()) if one]


def _addresses(text: str) -> list[str]:
    """Return the addresses of ``local_interfaces``: a list whose separator may be named first."""
    named = re.match(r"\s*<(\S)\s*", text)
    if named:
        return [one.strip() for one in text[named.end() :].split(named[1]) if one.strip()]
    parts = [one.strip() for one in text.replace("::", "\0").split(":")]
    return [one.replace("\0", ":") for one in parts if one]
