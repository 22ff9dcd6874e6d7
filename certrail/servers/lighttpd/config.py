"""Read a lighttpd configuration as lighttpd does: includes, variables, nested conditions.

Conditions that are the same share one context, wherever they are written; of
the contexts that hold for a client the last one counts
(https://redmine.lighttpd.net/projects/lighttpd/wiki/Docs_Configuration, Docs_SSL).
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from certrail.connectors import Host
from certrail.errors import InvalidRequest, NotFound
from certrail.servers.lighttpd.lexer import Token, tokens

_SOCKET, _HOST = '$SERVER["socket"]', '$HTTP["host"]'
_ELSE = ("else", "elif", "elsif", "elseif")


@dataclass(frozen=True, slots=True)
class Condition:
    """``$HTTP["host"] == "www"``, holding only if none of *unless* does."""

    what: str
    operator: str
    value: str
    unless: tuple[Condition, ...] = ()

    def holds(self, socket: str, name: str) -> bool:
        """Return whether it holds while a client of *socket* asks for *name* in its handshake."""
        if any(one.holds(socket, name) for one in self.unless):
            return False
        if not self.what:
            return True
        subject = {_SOCKET: socket, _HOST: name, '$HTTP["scheme"]': "https"}.get(self.what)
        if subject is None:
            # What is asked for comes after the handshake, where this cannot count.
            return False
        match self.operator:
            case "==" | "!=":
                found = subject == self.value
            case "=^":
                found = subject.startswith(self.value)
            case "=$":
                found = subject.endswith(self.value)
            case _:
                found = _searches(self.value, subject)
        return found != self.operator.startswith("!")


Context = tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """One value, and the bytes of the expression that it comes from.

    Attributes:
        value: None where it cannot be told from the files.
    """

    path: str
    value: str | None
    start: int
    end: int
    number: int

    @property
    def place(self) -> str:
        """``file:line`` for people."""
        return f"{self.path}:{self.number}"


@dataclass(eq=False)
class Configuration:
    """Settings by context, contexts in the order in which lighttpd applies them.

    Attributes:
        commands: places of ``include_shell``, whose output is not seen here.
    """

    root: str
    files: dict[str, bytes] = field(default_factory=dict)
    contexts: dict[Context, dict[str, Setting]] = field(default_factory=lambda: {(): {}})
    commands: list[str] = field(default_factory=list)

    def get(self, context: Context, name: str) -> str:
        """Return the value of *name* set in *context* itself, "" if none is known."""
        found = self.contexts.get(context, {}).get(name)
        return (found.value if found else "") or ""

    def written(self, context: Context, name: str) -> bytes:
        """Return the expression that *name* was last set to, as it stands there; b"" if none."""
        found = self.contexts.get(context, {}).get(name)
        return self.files[found.path][found.start : found.end] if found else b""

    @property
    def sockets(self) -> tuple[str, ...]:
        """Addresses where TLS is spoken."""
        everywhere = self.get((), "ssl.engine")
        found: dict[str, None] = {}
        for context in self.contexts:
            for one in context:
                if one.what == _SOCKET and one.operator == "==":
                    own = self.get(context, "ssl.engine") or everywhere
                    if own == "enable":
                        found[one.value] = None
        if everywhere == "enable":
            bind = self.get((), "server.bind")
            if not bind.startswith("/"):
                port = self.get((), "server.port") or "80"
                found[bind if re.search(r":\d+\Z", bind) else f"{bind}:{port}"] = None
        return tuple(found)

    def with_certificate(self) -> list[Context]:
        """Return the contexts that name a certificate."""
        return [one for one, values in self.contexts.items() if "ssl.pemfile" in values]

    def serving(self, socket: str, name: str) -> Context | None:
        """Return the context whose certificate a client gets, None if there is none."""
        found = [
            context
            for context in self.with_certificate()
            if all(one.holds(socket, name) for one in context)
        ]
        return found[-1] if found else None


def read_configuration(host: Host, path: str) -> Configuration:
    """Read *path* and what it includes.

    Raises:
        NotFound: it, or a file that it includes by name, is not there.
        InvalidRequest: it cannot be understood.
    """
    configuration = Configuration(path)
    _Reader(host, configuration).read(path, (), {}, ())
    return configuration


def parse(data: bytes, name: str) -> Configuration:
    """Read *data*, the output of ``lighttpd -p``, which includes nothing."""
    configuration = Configuration(name)
    configuration.files[name] = data
    _Reader(None, configuration).read(name, (), {}, ())
    return configuration


class _Reader:
    def __init__(self, host: Host | None, configuration: Configuration) -> None:
        self._host = host
        self._found = configuration

    def read(
        self, path: str, context: Context, variables: dict[str, str | None], trail: tuple[str, ...]
    ) -> None:
        if path in trail:
            raise InvalidRequest(
                f"{path} includes itself", remedy="Remove one of the two; nothing was changed."
            )
        if path not in self._found.files:
            assert self._host is not None
            self._found.files[path] = self._host.read_file(path)
        words = list(tokens(self._found.files[path], path))
        end = self._block(path, words, 0, context, variables, (*trail, path))
        if end != len(words):
            raise _misplaced(path, words[end])

    def _block(
        self,
        path: str,
        words: list[Token],
        at: int,
        context: Context,
        variables: dict[str, str | None],
        trail: tuple[str, ...],
    ) -> int:
        """Read statements until the bracket that ends the block; return where it stands."""
        before: tuple[Condition, ...] = ()
        while at < len(words) and words[at].raw != b"}":
            word = words[at]
            following = word.text in _ELSE and word.kind == "word"
            before = before if following else ()
            if following:
                at += 1
                if words[at : at + 1] and words[at].raw == b"if":
                    at += 1
            if at < len(words) and (following or words[at].kind == "condition"):
                one, at = self._condition(path, words, at, variables, before)
                before = (*before, Condition(one.what, one.operator, one.value))
                at = self._nested(path, words, at, (*context, one), variables, trail)
            elif word.raw in (b"include", b"include_shell"):
                value, end = self._expression(path, words, at + 1, variables)
                if word.raw == b"include":
                    self._include(path, word, value, context, variables, trail)
                else:
                    self._found.commands.append(f"{path}:{word.number}")
                at = end
            elif word.raw == b"config" and words[at + 1 : at + 2] and words[at + 1].raw == b"{":
                # `lighttpd -p` puts everything into one such block.
                at = self._nested(path, words, at + 1, context, variables, trail)
            else:
                at = self._assignment(path, words, at, context, variables)
        return at

    def _nested(
        self,
        path: str,
        words: list[Token],
        at: int,
        context: Context,
        variables: dict[str, str | None],
        trail: tuple[str, ...],
    ) -> int:
        if at >= len(words) or words[at].raw != b"{":
            raise _misplaced(path, words[min(at, len(words) - 1)])
        self._found.contexts.setdefault(context, {})
        end = self._block(path, words, at + 1, context, variables, trail)
        if end >= len(words):
            raise _misplaced(path, words[at])
        return end + 1

    def _condition(
        self,
        path: str,
        words: list[Token],
        at: int,
        variables: Mapping[str, str | None],
        before: tuple[Condition, ...],
    ) -> tuple[Condition, int]:
        if words[at].raw == b"{":
            return Condition("", "", "", before), at
        if at + 2 >= len(words) or words[at].kind != "condition":
            raise _misplaced(path, words[at])
        value, end = self._expression(path, words, at + 2, variables)
        what = re.sub(r"\s", "", words[at].text)
        return Condition(what, words[at + 1].text, value or "", before), end

    def _assignment(
        self,
        path: str,
        words: list[Token],
        at: int,
        context: Context,
        variables: dict[str, str | None],
    ) -> int:
        operator = words[at + 1].raw if at + 1 < len(words) else b""
        if words[at].kind != "word" or operator not in (b"=", b"+=", b":=") or at + 2 >= len(words):
            raise _misplaced(path, words[at])
        value, end = self._expression(path, words, at + 2, variables)
        name = words[at].text
        known = value if operator != b"+=" else None
        variables[_full(name)] = known
        self._found.contexts.setdefault(context, {})[name] = Setting(
            path, known, words[at + 2].start, words[end - 1].end, words[at].number
        )
        return end

    def _expression(
        self, path: str, words: list[Token], at: int, variables: Mapping[str, str | None]
    ) -> tuple[str | None, int]:
        """Return the value from *at*, None where it is not known, and where it ends."""
        parts: list[str | None] = []
        while True:
            if at >= len(words):
                raise _misplaced(path, words[-1])
            word = words[at]
            if word.raw == b"(":
                depth = 0
                while at < len(words):
                    depth += {b"(": 1, b")": -1}.get(words[at].raw, 0)
                    at += 1
                    if not depth:
                        break
                parts.append(None)
            elif word.kind in ("string", "word"):
                known = word.value
                parts.append(variables.get(_full(word.text)) if known is None else known)
                at += 1
            else:
                raise _misplaced(path, word)
            if at >= len(words) or words[at].raw != b"+":
                break
            at += 1
        known_parts = [one for one in parts if one is not None]
        return ("".join(known_parts) if len(known_parts) == len(parts) else None), at

    def _include(
        self,
        path: str,
        word: Token,
        value: str | None,
        context: Context,
        variables: dict[str, str | None],
        trail: tuple[str, ...],
    ) -> None:
        if value is None or self._host is None:
            raise InvalidRequest(
                f"{path}:{word.number}: it cannot be told which file is included",
                remedy="Write the path there without variables of the environment.",
            )
        wanted = posixpath.join(posixpath.dirname(self._found.root), value)
        several = bool(set("*?[") & set(wanted))
        for one in self._host.glob(wanted) if several else (wanted,):
            try:
                self.read(one, context, variables, trail)
            except NotFound as exc:
                raise NotFound(
                    f"{path}:{word.number} includes {one}, which is not there",
                    remedy="Correct the line; nothing was changed.",
                ) from exc


def _full(name: str) -> str:
    """Return the name of a variable with its prefix, which may be left out."""
    return name if "." in name else f"var.{name}"


def _searches(pattern: str, subject: str) -> bool:
    try:
        return re.search(pattern, subject) is not None
    except re.error:
        # PCRE knows more than Python; a name that is written out is found all the same.
        return fnmatch.fnmatchcase(subject, pattern)


def _misplaced(path: str, word: Token) -> InvalidRequest:
    return InvalidRequest(
        f"{path}:{word.number}: `{word.text[:40]}` is not expected there",
        remedy="Run `lighttpd -tt -f` on the file and correct it; nothing was changed.",
    )
