"""Which server block answers for a site: chosen as nginx chooses, refused where it is a guess.

Order of precedence: https://nginx.org/en/docs/http/server_names.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from certrail.errors import InvalidRequest
from certrail.names import Name
from certrail.servers.nginx.config import Configuration, ServerBlock
from certrail.servers.nginx.listen import Listen, parse_wanted

_EXACT, _LEADING, _TRAILING, _REGEX = range(4)


@dataclass(frozen=True, slots=True)
class _Hit:
    """A server name that covers the wanted one; less *rank* wins, then more *covers*."""

    rank: int
    covers: str
    block: ServerBlock


@dataclass(slots=True)
class _Names:
    """Server names of one listening address."""

    literal: dict[str, list[ServerBlock]] = field(default_factory=dict)
    patterns: list[tuple[str, ServerBlock]] = field(default_factory=list)

    @classmethod
    def of(cls, group: Sequence[ServerBlock]) -> _Names:
        names = cls()
        for block in group:
            for name in block.names or ("",):
                names.literal.setdefault(name, []).append(block)
                if name.startswith("."):
                    names.literal.setdefault(name[1:], []).append(block)
                if not _is_host(name):
                    names.patterns.append((name, block))
        return names

    def answering(self, name: str) -> _Hit | None:
        """Return what answers for *name*, None where the default server does."""
        hits = [_Hit(_EXACT, name, block) for block in self.literal.get(name, ())]
        if not hits and _is_host(name):
            hits = [hit for pattern, block in self.patterns for hit in _cover(pattern, name, block)]
        if not hits:
            return None
        best = min(hits, key=lambda hit: (hit.rank, -len(hit.covers)))
        if best.rank == _REGEX or not name:
            return best
        # nginx keeps the first of two equal names and only warns about the second.
        rivals = _distinct(
            hit.block for hit in hits if (hit.rank, hit.covers) == (best.rank, best.covers)
        )
        if len(rivals) > 1:
            places = " and ".join(block.place for block in rivals)
            raise InvalidRequest(
                f"server_name {best.covers.lstrip('.')} stands in {places} for the same address; "
                "nginx ignores all but the first",
                remedy=f"Remove the name from the server_name of {rivals[-1].place}.",
            )
        return best


class Matcher:
    """Finds server blocks by name; make one and ask often."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._names = {key: _Names.of(group) for key, group in configuration.groups.items()}

    def match(self, site: str, listen: str = "") -> ServerBlock:
        """Return the server block for server name *site* (and address *listen*, where given).

        *site* may also be a ``server_name`` exactly as written: ``*.example.test``,
        ``_``, ``~^regex$``. Without *listen*, blocks on TLS addresses win over
        others. A default server is taken only if it has no name of its own.

        Raises:
            InvalidRequest: none matches, or more than one could be meant; the
                message names file and line of each.
        """
        wanted = parse_wanted(listen) if listen else None
        keys = self._keys(wanted)
        if not keys:
            raise InvalidRequest(
                f"no server block of {self._configuration.reader.root} listens on {listen}",
                remedy="Correct `listen`, or add the listen directive to the server block meant.",
            )
        name = _folded(site)
        named = {key: hit for key in keys if (hit := self._names[key].answering(name))}
        tls = [hit for key, hit in named.items() if key in self._configuration.tls_keys]
        hits = tls or list(named.values())
        # A block that has the very name is meant rather than one that covers it elsewhere.
        candidates = _distinct(
            hit.block for hit in hits if hit.rank == min(other.rank for other in hits)
        )
        if not candidates:
            candidates = self._defaults(keys)
        if not candidates or (len(candidates) > 1 and not named and wanted is None):
            raise InvalidRequest(
                f"no server block has server_name {site}" + (f" on {listen}" if listen else ""),
                remedy=f"Add `server_name {site};` to the server block that is meant"
                f"{_known(self._configuration)}.",
            )
        if len(candidates) > 1:
            choices = ", ".join(
                f"{block.place} (listen {', '.join(listen.key for listen in block.listens)})"
                for block in candidates
            )
            raise InvalidRequest(
                f"{len(candidates)} server blocks could be meant by {site}: {choices}",
                remedy="Set `listen` of the endpoint's server to one of these addresses.",
            )
        return candidates[0]

    def named(self, site: str, listen: str) -> ServerBlock | None:
        """Return the block that has *site* among its names on *listen*, None if none has.

        Raises:
            InvalidRequest: more than one could be meant.
        """
        keys = self._keys(parse_wanted(listen))
        name = _folded(site)
        claimed = any(self._names[key].answering(name) for key in keys)
        return self.match(site, listen) if claimed else None

    def _keys(self, wanted: Listen | None) -> list[str]:
        if wanted is None:
            return list(self._names)
        if wanted.key in self._names:
            return [wanted.key]
        if wanted.address:
            # No block has this very address: connections to it land on the wildcard one.
            wildcard = f"{'[::]' if wanted.is_ipv6 else '*'}:{wanted.port}"
            return [wildcard] if wildcard in self._names else []
        return [key for key in self._names if key.endswith(f":{wanted.port}")]

    def _defaults(self, keys: list[str]) -> list[ServerBlock]:
        """Return the default servers that may be taken for a name nobody claims.

        nginx would hand the connection to any default server, but one with
        names of its own belongs to another site, whose certificate stays.
        """
        first = {key: self._configuration.default_of(key) for key in keys}
        tls = [block for key, block in first.items() if key in self._configuration.tls_keys]
        chosen = _distinct(tls or first.values())
        return chosen if all(block.is_nameless for block in chosen) else []


def _cover(pattern: str, name: str, block: ServerBlock) -> list[_Hit]:
    if pattern.startswith("~"):
        return [_Hit(_REGEX, "", block)] if _regex_matches(pattern[1:], name, block) else []
    if pattern.startswith((".", "*.")):
        suffix = pattern.removeprefix("*")
        return [_Hit(_LEADING, suffix, block)] if name.endswith(suffix) else []
    if pattern.endswith(".*") and name.startswith(pattern[:-1]):
        return [_Hit(_TRAILING, pattern, block)]
    return []


def _is_host(name: str) -> bool:
    return not name.startswith(("*", ".", "~", "_")) and name != "" and not name.endswith("*")


def _regex_matches(pattern: str, name: str, block: ServerBlock) -> bool:
    # PCRE and `re` differ in how groups are named; names are lower case, so case never matters.
    translated = re.sub(r"\(\?<(?![=!])|\(\?'(\w+)'", _group_name, pattern)
    try:
        return re.search(translated, name, re.IGNORECASE) is not None
    except re.error as exc:
        raise InvalidRequest(
            f"{block.place}: cannot tell whether server_name ~{pattern} matches {name}: {exc}",
            remedy=f"Add `{name}` to the server_name of the server block that is meant.",
        ) from exc


def _group_name(found: re.Match[str]) -> str:
    return f"(?P<{found[1]}>" if found[1] else "(?P<"


def _distinct(blocks: Iterable[ServerBlock]) -> list[ServerBlock]:
    return list(dict.fromkeys(blocks))


def _folded(site: str) -> str:
    if site.startswith("~"):
        return site
    if site in ("", "_") or site.startswith((".", "*")) or site.endswith("*"):
        return site.lower().rstrip(".")
    try:
        return Name.parse(site).text
    except InvalidRequest:
        return site.lower().rstrip(".")


def _known(configuration: Configuration) -> str:
    names = sorted(
        {name for block in configuration.blocks for name in block.names if name not in ("", "_")}
    )
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"; it has {shown}" if names else ""
