"""Tokens cover the file byte for byte and mean what nginx takes them for."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import crossplane
import pytest
from crossplane.lexer import _lex_file_object
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certrail.errors import InvalidRequest
from certrail.servers.nginx.lexer import Kind, quote, tokenize
from certrail.servers.nginx.tree import Directive, parse
from tests.unit.servers.layouts import DEBIAN, HARD, LUA, RED_HAT, write

WORDS = st.from_regex(r"[a-z0-9/._=:*~^$|()+?\[\],@!<>&%-]{1,12}", fullmatch=True)
QUOTED = st.builds(
    lambda quote, text: f"{quote}{text}{quote}",
    st.sampled_from(['"', "'"]),
    st.text(st.sampled_from("ab ;{}#\n\t$äß"), max_size=8),
)
# crossplane takes the space after a closing brace into the word, nginx does not: hence the tail.
VARIABLES = st.builds("${{{}}}/x".format, st.from_regex(r"[a-z_]{1,5}", fullmatch=True))
GAPS = st.text(st.sampled_from(" \t\n"), min_size=1, max_size=3) | st.builds(
    " # {}\n".format, st.text(st.sampled_from("ab ;{}\"'$"), max_size=8)
)
ARGUMENTS = st.lists(st.tuples(GAPS, WORDS | QUOTED | VARIABLES), max_size=4).map(
    lambda pairs: "".join(gap + word for gap, word in pairs)
)
NAMES = st.from_regex(r"[a-z_]{1,10}", fullmatch=True).filter(
    lambda name: not name.endswith("_by_lua_block")
)
SIMPLE = st.builds("{}{};".format, NAMES, ARGUMENTS)
CONFIGURATIONS = st.recursive(
    SIMPLE,
    lambda inner: st.builds(
        lambda name, arguments, parts, gap: (
            f"{name}{arguments}{gap}{{{gap}{gap.join(parts)}{gap}}}"
        ),
        NAMES,
        ARGUMENTS,
        st.lists(inner, max_size=3),
        GAPS,
    ),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CONFIGURATIONS)
def test_joined_tokens_are_the_file(text: str) -> None:
    """An edit replaces a byte range, so every byte must belong to exactly one token."""
    data = text.encode()

    tokens = list(tokenize(data))

    assert data == b"".join(data[token.start : token.end] for token in tokens)
    assert all(a.end == b.start for a, b in itertools.pairwise(tokens))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CONFIGURATIONS)
def test_words_are_those_of_an_independent_parser(text: str) -> None:
    """crossplane is nginx's own parser in Python; disagreement would be our mistake."""
    theirs = [
        (token, line, quoted)
        for token, line, quoted in _lex_file_object(io.StringIO(text + "\n"))
        if quoted or not token.startswith("#")
    ]

    data = text.encode()
    ours = [
        (
            token.text if token.kind is Kind.WORD else data[token.start : token.end].decode(),
            token.line,
            data[token.start : token.start + 1] in (b'"', b"'"),
        )
        for token in tokenize(data)
        if token.kind not in (Kind.SPACE, Kind.COMMENT)
    ]

    assert theirs == ours


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_quoted_word_is_read_back(text: str) -> None:
    """Paths of people contain spaces and worse."""
    data = b"name " + quote(text) + b";"

    [directive] = parse(data)

    assert (text,) == directive.arguments


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(b"a b#c;", ["a", "b#c"], id="hash inside a word"),
        pytest.param(b"a b}c;", ["a", "b}c"], id="brace inside a word"),
        pytest.param(b"a ${b}c;", ["a", "${b}c"], id="variable in braces"),
        pytest.param(b"a ${b;", ["a", "${b"], id="open variable"),
        pytest.param(b"a b\\;c;", ["a", "b\\;c"], id="escaped semicolon"),
        pytest.param(b"a b\\ c;", ["a", "b\\ c"], id="escaped space"),
        pytest.param(b'a "b\\"c\\\\";', ["a", 'b"c\\'], id="escapes in quotes"),
        pytest.param(b"a 'b\\tc';", ["a", "b\tc"], id="tab"),
        pytest.param(b'if ($a = "b") { }', ["if", "($a", "=", "b", ")"], id="bracket after quote"),
        pytest.param(b'a b"c"d;', ["a", 'b"c"d'], id="quote inside a word"),
        pytest.param(b'a "";', ["a", ""], id="empty"),
        pytest.param(b"a \xff\xfe;", ["a", "\udcff\udcfe"], id="not UTF-8"),
        pytest.param(b"a\r\n\tb\r\n;\r\n", ["a", "b"], id="CRLF"),
    ],
)
def test_nginx_rules(text: bytes, words: list[str]) -> None:
    """Each row is a rule of nginx's reader that a naive tokenizer gets wrong."""
    assert words == [token.text for token in tokenize(text) if token.kind is Kind.WORD]


@pytest.mark.parametrize(
    "text",
    [
        b'a "b', b"a 'b;", b"a {", b"}", b";", b"a", b'a "b"c;', b"a { b }", b"x_by_lua_block {",
        b"{ }", b"a b; }", b"a \\",
    ],
)  # fmt: skip
def test_what_nginx_cannot_read_is_refused_with_its_place(text: bytes) -> None:
    """Guessing at a broken file would mean writing a worse one."""
    with pytest.raises(InvalidRequest, match=r"x\.conf:3: "):
        parse(b"# one\n\n" + text, "x.conf")


@pytest.mark.parametrize("line_ending", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["debian", "red hat", "hard"])
def test_directives_are_those_of_an_independent_parser(
    tmp_path: Path, name: str, line_ending: str
) -> None:
    """Real files of distributions, and one with comments in all places."""
    texts = {
        "debian": [*DEBIAN.values()],
        "red hat": [*RED_HAT.values()],
        "hard": [HARD.replace("\\;", "").replace("\\'", "").replace("\\{", "").replace("\\}", "")],
    }[name]
    for number, text in enumerate(texts):
        data = text.replace("\n", line_ending).encode()
        path = write(tmp_path / str(number), {"nginx.conf": data})

        payload = crossplane.parse(str(path), single=True, check_ctx=False, check_args=False)

        assert not payload["errors"]
        assert _theirs(payload["config"][0]["parsed"]) == _ours(parse(data))


def _theirs(parsed: list[dict[str, Any]]) -> list[object]:
    # crossplane strips the brackets of an `if`.
    return [
        (one["directive"], _bare(one["args"]), one["line"], _theirs(one.get("block") or []))
        for one in parsed
        if one["directive"] != "#"
    ]


def _ours(directives: tuple[Directive, ...]) -> list[object]:
    return [
        (one.name, _bare(list(one.arguments)), one.line, _ours(one.children)) for one in directives
    ]


def _bare(arguments: object) -> list[str]:
    assert isinstance(arguments, list)
    return [text for text in (argument.strip("()") for argument in arguments) if text]


def test_lua_is_not_read_as_nginx() -> None:
    """Braces and quotes in Lua code follow Lua's rules."""
    [_, http] = parse(LUA)

    [init, server] = http.children
    assert list(init.children) == []
    assert [child.name for child in server.children][:4] == [
        "listen",
        "server_name",
        "access_by_lua_block",
        "ssl_certificate",
    ]
    assert b"".join(LUA[token.start : token.end] for token in tokenize(LUA)) == LUA
