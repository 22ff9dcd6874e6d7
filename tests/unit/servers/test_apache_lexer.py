"""Splitting an Apache configuration: nothing is lost, words are those the server reads."""

from __future__ import annotations

import random

import pytest

from certrail.servers.apache.lexer import Kind, lines, quote
from certrail.servers.apache.listen import address_key, matches


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"ServerName www.example.test\n", ["ServerName", "www.example.test"]),
        (b'SSLCertificateFile "/etc/my certs/a.pem"\n', None),
        (b"  ServerAlias a.test \\\n    b.test\n", ["ServerAlias", "a.test", "b.test"]),
        (b"  ServerAlias a.test \\\r\n b.test\r\n", ["ServerAlias", "a.test", "b.test"]),
        (b"ServerAlias a.te\\\nst\n", ["ServerAlias", "a.test"]),
        (b"Header set X 'it''s'\n", ["Header", "set", "X", "it", "s"]),
        (b'Define quoted "a \\"b\\" c"', ["Define", "quoted", 'a "b" c']),
        (b"RewriteRule ^\\.well-known - [L]\n", ["RewriteRule", "^\\.well-known", "-", "[L]"]),
        (b"ServerName \xff\xfe.test\n", ["ServerName", "\udcff\udcfe.test"]),
    ],
)
def test_words_are_those_the_server_reads(text: bytes, words: list[str] | None) -> None:
    """A word read wrongly is a path that names another file."""
    (line,) = lines(text)

    found = [word.text for word in line.words]

    assert found == (words or ["SSLCertificateFile", "/etc/my certs/a.pem"])
    assert line.kind is Kind.DIRECTIVE


def test_a_comment_goes_on_over_a_backslash() -> None:
    """The line below such a comment does nothing, and must not be edited."""
    found = list(lines(b"# off: \\\nSSLEngine on\nSSLEngine off\n"))

    assert [line.kind for line in found] == [Kind.OTHER, Kind.DIRECTIVE]
    assert found[1].number == 3


def test_sections_have_a_name_and_arguments() -> None:
    """The closing bracket belongs to neither."""
    found = list(lines(b'<VirtualHost *:443 "[::1]:443" >\n</virtualhost>\n<If "%{X} > 1">'))

    assert [(line.kind, line.name) for line in found] == [
        (Kind.OPEN, "virtualhost"),
        (Kind.CLOSE, "virtualhost"),
        (Kind.OPEN, "if"),
    ]
    assert found[0].arguments == ("*:443", "[::1]:443")
    assert found[2].arguments == ("%{X} > 1",)


def test_lines_cover_every_byte() -> None:
    """What is not in a line would be lost when the file is written."""
    parts = [b"a", b" ", b"\\", b"\n", b"\r\n", b'"', b"'", b"#", b"<", b">", b"/", b"\xff", b"\t"]
    picked = random.Random(7)
    for _ in range(3000):
        data = b"".join(picked.choices(parts, k=picked.randrange(30)))
        found = list(lines(data))

        assert b"".join(data[line.start : line.end] for line in found) == data
        for line in found:
            for word in line.words:
                assert line.start <= word.start < word.end <= line.end


@pytest.mark.parametrize("path", ["/etc/a.pem", "/etc/my certs/a.pem", '/odd"name\\/a.pem'])
def test_a_quoted_path_is_read_back(path: str) -> None:
    """What we write must be what the server reads."""
    (line,) = lines(b"SSLCertificateFile " + quote(path) + b"\n")

    assert line.arguments == (path,)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("*:443", "*:443"),
        ("_default_:443", "*:443"),
        ("*", "*:*"),
        ("10.0.0.1", "10.0.0.1:*"),
        ("[0:0::1]:443", "[::1]:443"),
        ("[::1]", "[::1]:*"),
        ("WWW.example.test:8443", "www.example.test:8443"),
    ],
)
def test_an_address_has_one_form(text: str, key: str) -> None:
    """Two spellings of one address are one group of virtual hosts."""
    assert address_key(text) == key


@pytest.mark.parametrize(
    ("key", "wanted", "same"),
    [
        ("*:443", "443", True),
        ("10.0.0.1:443", "443", True),
        ("10.0.0.1:443", "10.0.0.1:443", True),
        ("*:443", "10.0.0.1:443", False),
        ("*:80", "443", False),
        ("*:*", "443", True),
    ],
)
def test_listen_means_an_address(key: str, wanted: str, same: bool) -> None:
    """`listen: 443` and `listen: 10.0.0.1:443` are what people write."""
    assert matches(key, wanted) is same
