"""Which certificates the ``bind`` lines of a host come to: files, lists and folders of them.

A list (configuration manual, "crt-list") has one certificate on each line, with settings in
brackets and with names in place of those in it; of a folder all files count, in the order
of their names.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from cryptography import x509

from certrail.connectors import Host
from certrail.errors import InvalidRequest, NotFound, PermissionRefused, UnexpectedReply
from certrail.model import Chain, Fingerprint, fingerprint, subject_names
from certrail.names import matches
from certrail.servers.bulk import read_many
from certrail.servers.haproxy.config import Bind, CrtUse, Word, binds, full_name
from certrail.servers.remembered import Remembered

_NO_CERTIFICATES = (".issuer", ".key", ".ocsp", ".sctl")
"""How files of a folder end that belong to a certificate and are none."""
_WORD = re.compile(rb"[^ \t\r\n\v\f\[\]]+")
_SETTINGS = re.compile(rb"\[[^\]]*\]")


@dataclass(eq=False)
class Configuration:
    """One configuration file and the lists it names, read once.

    Attributes:
        files: content of the configuration and of the lists, by path.
        binds: its lines, with lists and folders taken apart.
        hidden: words of ``bind`` lines whose certificates cannot be seen.
    """

    host: Host
    path: str
    files: dict[str, bytes]
    binds: tuple[Bind, ...] = ()
    hidden: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _leaves: dict[str, x509.Certificate | None] = field(default_factory=dict)
    _names: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = field(default_factory=dict)

    def leaf(self, crt: CrtUse) -> x509.Certificate | None:
        """Return the first certificate of a file, None if it cannot be told."""
        self.read_leaves([crt])
        return self._leaves[crt.path]

    def read_leaves(self, crts: Iterable[CrtUse]) -> None:
        """Read the certificates of *crts* together, for :meth:`leaf`."""
        wanted = {crt.path for crt in crts} - self._leaves.keys()
        texts = read_many(self.host, sorted(wanted - {""}))
        for path in wanted:
            self._leaves[path] = _leaf(texts[path], path) if path in texts else None

    def fingerprint(self, crt: CrtUse) -> Fingerprint | None:
        """Return the fingerprint of :meth:`leaf`."""
        leaf = self.leaf(crt)
        return fingerprint(leaf) if leaf else None

    def names(self, crt: CrtUse) -> tuple[str, ...]:
        """Return the names that HAProxy chooses this certificate for."""
        key = crt.path, crt.filters
        if key not in self._names:
            self._names[key] = self._read_names(crt)
        return self._names[key]

    def _read_names(self, crt: CrtUse) -> tuple[str, ...]:
        given = tuple(name for name in crt.filters if not name.startswith("!"))
        if not given and (leaf := self.leaf(crt)):
            given = subject_names(leaf)
        without = {name[1:] for name in crt.filters if name.startswith("!")}
        return tuple(name for name in given if name not in without)

    def covers(self, crt: CrtUse, name: str) -> bool:
        """Return whether HAProxy chooses this certificate for *name*."""
        without = (one[1:] for one in crt.filters if one.startswith("!"))
        if any(matches(one, name) for one in without):
            return False
        return any(matches(one, name) for one in self.names(crt))


def _read_leaf(data: bytes, _: str) -> x509.Certificate | None:
    try:
        return Chain.from_pem(data.decode(errors="replace")).leaf
    except UnexpectedReply:
        return None


_leaf = Remembered(_read_leaf, most=1 << 22)


def read_configuration(host: Host, path: str) -> Configuration:
    """Read the configuration at *path*, and the lists and folders that it names.

    Raises:
        NotFound: there is none.
        InvalidRequest: a line cannot be read; says which.
    """
    data = host.read_file(path)
    found = Configuration(host, path, {path: data})
    found.binds = tuple(_taken_apart(found, bind) for bind in binds(data, path))
    return found


def _taken_apart(configuration: Configuration, bind: Bind) -> Bind:
    crts: list[CrtUse] = []
    hidden: list[str] = []
    for crt in bind.crts:
        try:
            if crt.kind == "crt-list":
                crts.extend(_listed(configuration, crt, bind.base))
            elif crt.path and _is_folder(configuration.host, crt.path):
                crts.extend(_in_folder(configuration.host, crt))
            else:
                crts.append(crt)
                hidden += [] if crt.path else [crt.word.text]
        except (NotFound, PermissionRefused):
            hidden.append(crt.word.text)
    if hidden:
        configuration.hidden[bind.place] = tuple(hidden)
    return replace(bind, crts=tuple(crts))


def _is_folder(host: Host, path: str) -> bool:
    try:
        info = host.info(host.real_path(path))
    except NotFound:
        return False
    return info is not None and info.kind == "directory"


def _in_folder(host: Host, crt: CrtUse) -> Iterator[CrtUse]:
    for name in sorted(host.list_directory(crt.path)):
        if not name.startswith(".") and not name.endswith(_NO_CERTIFICATES):
            yield replace(crt, path=posixpath.join(crt.path, name), kind="folder")


def _listed(configuration: Configuration, crt: CrtUse, base: str) -> Iterator[CrtUse]:
    if not crt.path:
        raise NotFound(f"{crt.word.text} is relative to where HAProxy was started")
    files = configuration.files
    if crt.path not in files:
        files[crt.path] = configuration.host.read_file(crt.path)
    yield from entries(files[crt.path], crt.path, base)


def entries(data: bytes, path: str, base: str = "") -> Iterator[CrtUse]:
    """Yield the certificates of a list.

    Raises:
        InvalidRequest: a line cannot be read; says which.
    """
    start = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        first = _WORD.search(line)
        if first is not None and not line.startswith(b"#"):
            rest = _SETTINGS.sub(b" ", line[first.end() :])
            if b"[" in rest or b"]" in rest or line[: first.start()].strip():
                raise InvalidRequest(
                    f"{path}:{number}: brackets do not fit",
                    remedy="Run `haproxy -c` on the host and correct it; nothing was changed.",
                )
            text = first[0].decode("utf-8", "surrogateescape")
            word = Word(text, start + first.start(), start + first.end())
            filters = tuple(
                one.decode("utf-8", "surrogateescape").lower() for one in _WORD.findall(rest)
            )
            place = f"{path}:{number}"
            yield CrtUse(word, full_name(word, base), "listed", path, place, filters)
        start += len(line) + 1
