"""Decide which ``crt`` of which ``bind`` line a certificate belongs to.

HAProxy chooses by server name among the certificates of the ``bind`` line the
connection came in on: an exact name before a wildcard, and the first
certificate of the line when no name fits.
"""

from __future__ import annotations

from dataclasses import dataclass

from certrail.errors import InvalidRequest
from certrail.model import Fingerprint, key_text
from certrail.names import matches
from certrail.servers.haproxy.config import Bind, Configuration, CrtUse
from certrail.servers.splice import Splice


@dataclass(frozen=True, slots=True)
class Selection:
    """What serves a name now, and where.

    Attributes:
        binds: the lines concerned.
        crts: the words that name the certificate; empty where it has none of its own.
        path: the file they name, "" with no crts.
    """

    binds: tuple[Bind, ...]
    crts: tuple[CrtUse, ...] = ()
    path: str = ""

    @property
    def place(self) -> str:
        """``file:line`` of the lines, for people."""
        return ", ".join(bind.place for bind in self.binds)


def select(
    configuration: Configuration, name: str, listen: str, *, live: str, key: str = ""
) -> Selection:
    """Find what serves *name*.

    Args:
        configuration: as read.
        name: server name.
        listen: address or port of the line, "" for any.
        live: the path that is ours for this site; it is preferred.
        key: kind of the new key (``ECDSA``), to tell a pair of certificates apart.

    Raises:
        InvalidRequest: nothing or several things could be meant; says which lines.
    """
    lines = [
        bind for bind in configuration.binds if bind.tls and (not listen or bind.listens_on(listen))
    ]
    if not lines:
        raise InvalidRequest(
            f"{configuration.path} has no `bind` line with `ssl`"
            + (f" on {listen}" if listen else ""),
            remedy="Add one with any certificate (`bind :443 ssl crt FILE`), so that HAProxy "
            "starts; Certrail then changes it.",
        )
    covering = [
        (bind, crt)
        for bind in lines
        for crt in bind.crts
        if crt.path == live or any(matches(one, name) for one in configuration.names(crt))
    ]
    paths = list(dict.fromkeys(crt.path for _, crt in covering))
    chosen = _one_of(configuration, paths, covering, live, key, name)
    if chosen:
        meant = [(bind, crt) for bind, crt in covering if crt.path == chosen]
        binds = tuple(dict.fromkeys(bind for bind, _ in meant))
        return Selection(binds, tuple(crt for _, crt in meant), chosen)
    _must_be_plain(configuration, lines, name, live)
    if len(lines) > 1:
        raise InvalidRequest(
            f"no certificate covers {name}, and several `bind` lines could get one: "
            + ", ".join(bind.place for bind in lines),
            remedy="Set `listen` of the endpoint's server to the address or port of one of them.",
        )
    return Selection((lines[0],))


def serving(configuration: Configuration, selection: Selection) -> Fingerprint | None:
    """Return what clients get there now: the name's own certificate, else the line's first."""
    crts = selection.crts or selection.binds[0].crts
    return configuration.fingerprint(crts[0]) if crts else None


def plan_edit(
    configuration: Configuration, selection: Selection, name: str, live: str, names: set[str]
) -> tuple[Splice, ...]:
    """Return the change that makes the lines name *live*; empty if they do.

    A certificate that serves other names as well is not replaced: ours is put
    beside it where HAProxy then prefers it for *name*.

    Raises:
        InvalidRequest: names would be lost, or a line cannot be changed safely.
    """
    if selection.path == live:
        return ()
    for bind in selection.binds:
        if bind.conditional:
            raise InvalidRequest(
                f"{bind.place} stands inside .if, and may not be what runs",
                remedy=f"Write `crt {live}` into the line that does.",
            )
    if not selection.crts:
        return (_added(selection.binds[0], live),)
    others = {one for crt in selection.crts for one in configuration.names(crt)}
    lost = sorted(one for one in others if not any(matches(new, one) for new in names))
    if not lost:
        return tuple(Splice(c.word.start, c.word.end, live.encode()) for c in selection.crts)
    if name not in others and name in names:
        return tuple(_added(bind, live) for bind in selection.binds)
    raise InvalidRequest(
        f"{selection.path} also serves {', '.join(lost)}, which the new certificate lacks",
        remedy=f"Add these names to the endpoint, or give them a certificate of their own in "
        f"{selection.place} first.",
    )


def _added(bind: Bind, live: str) -> Splice:
    # Behind the others, so that the line's default certificate stays what it is.
    at = bind.crts[-1].word.end if bind.crts else bind.end
    return Splice(at, at, f" crt {live}".encode())


def _one_of(
    configuration: Configuration,
    paths: list[str],
    covering: list[tuple[Bind, CrtUse]],
    live: str,
    key: str,
    name: str,
) -> str:
    if len(paths) < 2 or live in paths:
        return live if live in paths else "".join(paths)
    # HAProxy prefers an exact name to a wildcard, so that is what serves.
    exact = [
        p for p in paths if any(name in configuration.names(c) for _, c in covering if c.path == p)
    ]
    paths = exact or paths
    same_key = [
        path
        for path in paths
        if any(
            crt.path == path
            and (leaf := configuration.leaf(crt)) is not None
            and key_text(leaf).split(" ")[0] == key
            for _, crt in covering
        )
    ]
    for few in (same_key, paths):
        if len(few) == 1:
            return few[0]
    raise InvalidRequest(
        f"several certificates serve {name}: "
        + ", ".join(f"{crt.path} ({bind.place})" for bind, crt in covering if crt.path in paths),
        remedy="Set `listen` of the endpoint's server, or remove the ones that are not wanted.",
    )


def _must_be_plain(configuration: Configuration, lines: list[Bind], name: str, live: str) -> None:
    """Refuse lines whose certificates cannot be seen: one of them may serve the name already."""
    for bind in lines:
        hidden = [word.text for word in bind.lists]
        hidden += [c.word.text for c in bind.crts if not c.path or configuration.is_directory(c)]
        if hidden:
            raise InvalidRequest(
                f"{bind.place} takes its certificates from {', '.join(hidden)} (a directory, a "
                f"list or a variable), where {name} may be served already",
                remedy=f"Write `crt {live}` before it in that line.",
            )
