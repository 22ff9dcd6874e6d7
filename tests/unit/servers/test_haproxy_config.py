"""HAProxy's configuration read by HAProxy's own rules, down to the byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.errors import InvalidRequest
from certrail.servers.haproxy import HaproxySettings, certificates
from certrail.servers.haproxy.config import binds, split
from certrail.servers.haproxy.control import words_of
from certrail.servers.splice import Splice, replacements, splice, take_back


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("bind :443 ssl crt /a.pem", ["bind", ":443", "ssl", "crt", "/a.pem"]),
        ("  bind\t:443   # comment crt /b.pem", ["bind", ":443"]),
        (r"crt /with\ blank.pem", ["crt", "/with blank.pem"]),
        (r"crt /with\#hash.pem", ["crt", "/with#hash.pem"]),
        ("crt '/single $quoted #.pem'", ["crt", "/single $quoted #.pem"]),
        ('crt "/double \\"quoted\\".pem"', ["crt", '/double "quoted".pem']),
        ('crt /half"and half".pem', ["crt", "/halfand half.pem"]),
        (r"a\x41b", ["aAb"]),
        ("one # two", ["one"]),
        ("one#two", ["one"]),
        ("", []),
        ("# nothing", []),
        ("bind :443\r", ["bind", ":443"]),
    ],
)
def test_words(line: str, words: list[str]) -> None:
    """A path read wrongly is a certificate overwritten wrongly."""
    assert [word.text for word in split(line.encode(), 0, "x:1")] == words


def test_only_double_quotes_have_variables() -> None:
    """Elsewhere a dollar sign is a dollar sign."""
    plain, double, single = split(b"$A \"$A\" '$A'", 0, "x:1")

    assert (plain.has_variable, double.has_variable, single.has_variable) == (False, True, False)


@pytest.mark.parametrize("line", ["crt '/open", 'crt "/open'])
def test_an_open_quote_is_told_with_its_line(line: str) -> None:
    """HAProxy refuses it as well."""
    with pytest.raises(InvalidRequest, match=r"h\.cfg:7"):
        split(line.encode(), 0, "h.cfg:7")


@given(st.binary(max_size=60).filter(lambda raw: b"\n" not in raw))
def test_words_lie_where_they_say(line: bytes) -> None:
    """Edits go by these offsets."""
    try:
        words = split(line, 100, "x:1")
    except InvalidRequest:
        return
    ends = 100
    for word in words:
        assert ends <= word.start < word.end <= 100 + len(line)
        ends = word.end


def test_bind_lines_of_frontends_and_listeners_only() -> None:
    """`bind` means something else in other sections."""
    text = b"""
global
    crt-base /etc/certs
peers p
    bind :1 ssl crt no.pem
frontend a
    bind 10.0.0.1:443,[::1]:443 ssl crt one.pem crt /two.pem alpn h2
listen b
    bind :8443 crt x.pem
    .if defined(X)
    bind :9443 ssl crt y.pem crt-list l.txt
    .endif
backend c
    server s 1.2.3.4:443 ssl crt client.pem
"""
    found = list(binds(text, "h.cfg"))

    assert [bind.place for bind in found] == ["h.cfg:7", "h.cfg:9", "h.cfg:11"]
    first, second, third = found
    assert first.addresses == ("10.0.0.1:443", "[::1]:443")
    assert [crt.path for crt in first.crts] == ["/etc/certs/one.pem", "/two.pem"]
    assert first.listens_on("443")
    assert first.listens_on("10.0.0.1:443")
    assert not first.listens_on("43")
    assert (first.tls, second.tls, third.tls) == (True, False, True)
    assert [(crt.kind, crt.word.text) for crt in third.crts] == [
        ("crt", "y.pem"),
        ("crt-list", "l.txt"),
    ]
    assert (first.conditional, third.conditional) == (False, True)
    start, end = first.crts[0].word.start, first.crts[0].word.end
    assert text[start:end] == b"one.pem"


LIST = b"""
# crt-list of the shop
 a.pem\t[alpn http/1.1 ]  *.Shop.test !old.shop.test\r
/etc/b.pem
/etc/c.pem [verify none] [] c.test
"""


def test_lines_of_a_list() -> None:
    """Settings in brackets are no names, and a name may be taken out."""
    first, second, third = certificates.entries(LIST, "/l.txt", "/etc/certs")

    assert (first.path, first.place) == ("/etc/certs/a.pem", "/l.txt:3")
    assert first.filters == ("*.shop.test", "!old.shop.test")
    assert LIST[first.word.start : first.word.end] == b"a.pem"
    assert (second.path, second.filters) == ("/etc/b.pem", ())
    assert (third.path, third.filters) == ("/etc/c.pem", ("c.test",))
    assert LIST[third.word.start : third.word.end] == b"/etc/c.pem"


_LINE = st.one_of(
    st.binary(max_size=12).map(lambda raw: b"#" + raw.replace(b"\n", b"")),
    st.sampled_from([b"", b"  ", b"/b.pem", b"\tb.pem [ssl-min-ver TLSv1.2]  b.test \r"]),
)


@given(st.lists(_LINE, max_size=4), st.lists(_LINE, max_size=4), st.sampled_from([b"", b"\n"]))
def test_a_list_with_anything_around_is_edited_once_and_back(
    before: list[bytes], after: list[bytes], final: bytes
) -> None:
    """Only the path changes, twice is once, and what is taken back is what was there."""
    data = b"\n".join([*before, b" /old.pem\t[alpn h2] www.test", *after]) + final
    (old,) = [crt for crt in certificates.entries(data, "/l") if crt.path == "/old.pem"]
    made = [Splice(old.word.start, old.word.end, b"/live/combined.pem")]

    edited = splice(data, made)

    assert edited == data.replace(b"/old.pem", b"/live/combined.pem")
    paths = [crt.path for crt in certificates.entries(edited, "/l")]
    assert paths.count("/live/combined.pem") == 1
    assert "/old.pem" not in paths
    assert take_back(edited, replacements(data, made), "/l") == data


@pytest.mark.parametrize("line", [b"a.pem [alpn h2", b"a.pem h2]", b"[x] a.pem"])
def test_a_line_of_a_list_that_does_not_fit(line: bytes) -> None:
    """HAProxy refuses it as well."""
    with pytest.raises(InvalidRequest, match=r"/l\.txt:2"):
        list(certificates.entries(b"b.pem\n" + line, "/l.txt"))


@pytest.mark.parametrize("path", ['"${DIR}/a.pem"', "@store/a.pem", "relative.pem"])
def test_a_path_that_cannot_be_told_is_none(path: str) -> None:
    """Guessing would overwrite somebody's file."""
    (bind,) = binds(f"frontend a\n bind :1 ssl crt {path}\n".encode(), "x")

    assert bind.crts[0].path == ""


def test_words_for_people_without_prefixes() -> None:
    """The message has room for one sentence."""
    text = """\
[NOTICE]   (12) : haproxy version is 2.6.12
[ALERT]    (12) : config : parsing [h.cfg:9] : unknown keyword 'bnd'
[ALERT]    (12) : config : Error(s) found in configuration file : h.cfg
[ALERT]    (12) : config : Fatal errors found in configuration.
"""
    assert words_of(text) == "parsing [h.cfg:9] : unknown keyword 'bnd'"


@pytest.mark.parametrize(
    "server",
    [
        {"config": "haproxy.cfg"},
        {"directory": "/with blank"},
        {"directory": "/with$variable"},
        {"binary": "-x"},
        {"key_owner": "a b"},
        {"unknown": 1},
        {"reload_timeout": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(server: dict[str, object]) -> None:
    """At `apply`, not in the night of the renewal."""
    with pytest.raises(InvalidRequest):
        HaproxySettings.parse({"kind": "haproxy", "site": "a.test", **server})


def test_a_port_may_be_a_number() -> None:
    """`listen: 443` is what people write."""
    assert HaproxySettings.parse({"listen": 443}).listen == "443"
