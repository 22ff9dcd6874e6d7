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
from certrail.servers.haproxy.certificates import Configuration
from certrail.servers.haproxy.config import Bind, CrtUse
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
        listed = [crt.place for crt in self.crts if crt.place]
        return ", ".join(dict.fromkeys(listed or [bind.place for bind in self.binds]))


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
    pairs = [(bind, crt) for bind in lines for crt in bind.crts]
    covering = [(bind, crt) for bind, crt in pairs if crt.path == live]
    if not covering:
        # Where ours is named, nobody else's files have to be read.
        configuration.read_leaves(crt for _, crt in pairs)
        covering = [(bind, crt) for bind, crt in pairs if configuration.covers(crt, name)]
    covering = _without_hidden_behind(covering)
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
) -> dict[str, tuple[Splice, ...]]:
    """Return the change of each file that makes the lines name *live*; empty if they do.

    A certificate that serves other names as well is not replaced: ours is put
    beside it where HAProxy then prefers it for *name*.

    Raises:
        InvalidRequest: names would be lost, or a line cannot be changed safely.
    """
    if selection.path == live:
        return {}
    for bind in selection.binds:
        if bind.conditional:
            raise InvalidRequest(
                f"{bind.place} stands inside .if, and may not be what runs",
                remedy=f"Write `crt {live}` into the line that does.",
            )
    if not selection.crts:
        return {configuration.path: (_added(selection.binds[0], live),)}
    others = {one for crt in selection.crts for one in configuration.names(crt)}
    lost = sorted(one for one in others if not any(matches(new, one) for new in names))
    if lost and name not in others and name in names:
        return {configuration.path: tuple(_added(bind, live) for bind in selection.binds)}
    folders = [crt.word.text for crt in selection.crts if crt.kind == "folder"]
    if folders:
        raise InvalidRequest(
            f"{selection.place} takes {selection.path} from a folder, all files of which are "
            "loaded: which one is meant cannot be said in that line",
            remedy=f"Write `crt {selection.path} crt {folders[0]}` there instead of "
            f"`crt {folders[0]}`; Certrail then changes the first of the two.",
        )
    if lost:
        raise InvalidRequest(
            f"{selection.path} also serves {', '.join(lost)}, which the new certificate lacks",
            remedy="Add these names to the endpoint, or give them a certificate of their own in "
            f"{selection.place} first.",
        )
    changes: dict[str, dict[int, Splice]] = {}
    for crt in selection.crts:
        word = crt.word
        made = changes.setdefault(crt.source or configuration.path, {})
        # A list that several lines name is changed once.
        made[word.start] = Splice(word.start, word.end, live.encode())
    return {path: tuple(made.values()) for path, made in changes.items()}


def _added(bind: Bind, live: str) -> Splice:
    # Behind the others, so that the line's default certificate stays what it is.
    own = [crt.word.end for crt in bind.crts if not crt.source]
    at = own[-1] if own and len(own) == len(bind.crts) else bind.end
    return Splice(at, at, f" crt {live}".encode())


def _without_hidden_behind(covering: list[tuple[Bind, CrtUse]]) -> list[tuple[Bind, CrtUse]]:
    """Leave out files of a folder that a file named before it goes ahead of, on the same line."""
    named: set[Bind] = set()
    kept = []
    for bind, crt in covering:
        if crt.kind != "folder":
            named.add(bind)
        elif bind in named:
            continue
        kept.append((bind, crt))
    return kept


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
        if hidden := configuration.hidden.get(bind.place):
            raise InvalidRequest(
                f"{bind.place} takes certificates from {', '.join(hidden)}, which cannot be read "
                f"from here, and {name} may be served there already",
                remedy="Write the absolute path of the file in its place; Certrail then reads it.",
            )
