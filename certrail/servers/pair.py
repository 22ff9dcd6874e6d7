"""Servers that have one certificate: a handful of settings that name its files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from certrail.connectors import Host
from certrail.errors import InvalidRequest
from certrail.model import Site, fingerprint, subject_names
from certrail.servers.leaves import leaf_at
from certrail.servers.splice import Splice
from certrail.servers.target import FileTarget, ProgramControl, Survey, Wanted
from certrail.servers.versions import Versions


@dataclass(frozen=True, slots=True)
class Value:
    """A value as it stands in a file: bytes *start* to *end* of *path*, *text* what they mean."""

    path: str
    start: int
    end: int
    number: int
    text: str

    @property
    def place(self) -> str:
        """``file:line`` for people."""
        return f"{self.path}:{self.number}"


@dataclass(frozen=True, slots=True)
class Line:
    """A setting that is wanted.

    Attributes:
        text: the whole line, where the setting is missing.
        new: what takes the place of a present value.
        meaning: the value of *new*; a present value that means the same is left alone.
        present: the setting as it is.
    """

    text: str
    new: str
    meaning: str
    present: Value | None


@dataclass(frozen=True, slots=True)
class Found:
    """What is configured.

    Attributes:
        files: every file read, by path.
        certificate: file of the present certificate, "" if TLS is off.
        off: why clients get no TLS now, "" if they do.
        place: of the setting, for people.
        gap: file and offset where missing lines belong.
    """

    files: Mapping[str, bytes]
    certificate: str
    off: str
    place: str
    gap: tuple[str, int]


class PairTarget(FileTarget):
    """A server with one certificate for everybody."""

    starttls: str = ""
    """How clients ask for TLS."""

    @abstractmethod
    def find(self) -> Found:
        """Read the configuration.

        Raises:
            InvalidRequest: it cannot be read, or the certificate is set where no edit counts.
        """

    @abstractmethod
    def lines(self, versions: Versions) -> Sequence[Line]:
        """Return the settings that name the live version; those that switch TLS on come first."""

    @abstractmethod
    def listens(self) -> tuple[str, ...]:
        """Return the addresses, as ``address:port``."""

    @property
    def switched(self) -> bool:
        """Whether TLS may be switched on."""
        return bool(getattr(self.settings, "enable_tls", False))

    def sites(self) -> Iterator[Site]:
        found = self.find()
        leaf = leaf_at(self.host, found.certificate)
        names = subject_names(leaf) if leaf else ()
        if leaf is None or not names:
            return
        yield Site(
            id=f"{names[0]}@*",
            names=tuple(names),
            listens=self.listens(),
            tls=not found.off,
            fingerprint=fingerprint(leaf),
            settings={"site": names[0], "listen": ""},
            starttls=self.starttls,
        )

    def survey(self, site: Site, wanted: Wanted | None) -> Survey:
        found = self.find()
        directory = self.directory_of(site)
        leaf = None if found.off else leaf_at(self.host, found.certificate)
        configured = (fingerprint(leaf),) if leaf else ()
        if wanted is None:
            return Survey(found.place, directory, configured)
        lines = self.lines(self.versions(directory))
        changed = [one for one in lines if one.present is None or one.present.text != one.meaning]
        if found.off and not self.switched:
            shown = " and ".join(f"`{one.text}`" for one in changed)
            raise InvalidRequest(
                f"{found.place}: {found.off}",
                remedy=f"Set `enable_tls: true` for the endpoint's server, or write {shown}.",
            )
        made: dict[str, tuple[Splice, ...]] = {}
        for one in changed:
            if (value := one.present) is not None:
                splice = Splice(value.start, value.end, _raw(one.new))
                made[value.path] = (*made.get(value.path, ()), splice)
        missing = [one.text for one in changed if one.present is None]
        if missing:
            path, at = found.gap
            splice = Splice(at, at, added(found.files[path], at, missing))
            made[path] = (*made.get(path, ()), splice)
        return Survey(
            found.place, directory, configured, {path: found.files[path] for path in made}, made
        )


class DatabaseControl(ProgramControl):
    """The programs of a database server whose data belong to its account."""

    _host: Host

    @property
    @abstractmethod
    def config(self) -> str:
        """The main file."""

    @abstractmethod
    def data(self) -> str:
        """Return the data directory."""

    def owner(self) -> str:
        """Return who owns the data directory, "" if that cannot be told."""
        info = self._host.info(self.data())
        return info.owner if info is not None else ""


class DatabaseTarget(PairTarget):
    """A database server: its own account reads the key, and its test looks at no certificate."""

    blind = True
    control: DatabaseControl

    @property
    def base(self) -> str:
        return self.beside(self.control.config)

    def account(self) -> str:
        # PostgreSQL refuses a key of anybody else but root; MariaDB reads it as this account.
        return self.control.owner()


def listen(address: str, port: str) -> str:
    """Return ``address:port``, with ``*`` for every address."""
    if address in ("", "*", "0.0.0.0", "::", "::0"):  # noqa: S104 - nothing is bound
        return f"*:{port}"
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def added(data: bytes, at: int, lines: Sequence[str]) -> bytes:
    """Return *lines* as they are put into *data* at *at*, with its line ends."""
    eol = b"\r\n" if b"\r\n" in data else b"\n"
    before = data[:at]
    lead = b"" if not before or before.endswith(b"\n") else eol
    return lead + b"".join(_raw(line) + eol for line in lines)


def _raw(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
