"""The server block chosen for a site is the one nginx would use, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from certrail.errors import InvalidRequest
from certrail.servers.nginx.listen import parse_listen, parse_wanted
from certrail.servers.nginx.match import Matcher
from tests.unit.servers.layouts import DEBIAN, HARD, LUA, RED_HAT, http, read

NAMED = """
server { listen 443 ssl default_server; server_name _; return 1; }
server { listen 443 ssl; server_name www.example.test example.test; return 2; }
server { listen 443 ssl; server_name *.example.test; return 3; }
server { listen 443 ssl; server_name *.deep.example.test; return 4; }
server { listen 443 ssl; server_name mail.*; return 5; }
server { listen 443 ssl; server_name ~^(?<user>[a-z]+)\\.people\\.test$; return 6; }
server { listen 443 ssl;
server_name "~^a\\d{1,3}\\.people\\.test$" ~^.*\\.people\\.test$; return 7; }
server { listen 443 ssl; server_name .dotted.test; return 8; }
server { listen 80; server_name www.example.test; return 9; }
server { listen 10.0.0.1:8443 ssl; server_name admin.example.test; return 10; }
server { listen 8443 ssl; server_name admin.example.test; return 11; }
server { listen [::1]:9443 ssl; server_name six.example.test; return 12; }
server { listen unix:/run/n.sock ssl; server_name sock.example.test; return 13; }
"""


def chosen(directory: Path, servers: str, site: str, listen: str = "") -> str:
    block = Matcher(read(directory, servers)).match(site, listen)
    return next(one.arguments[0] for one in block.directives if one.name == "return")


@pytest.mark.parametrize(
    ("site", "listen", "expected"),
    [
        pytest.param("www.example.test", "", "2", id="exact; TLS before plain"),
        pytest.param("WWW.Example.Test.", "", "2", id="case and final dot"),
        pytest.param("www.example.test", "80", "9", id="plain where asked for"),
        pytest.param("www.example.test", "*:80", "9", id="the same, spelled out"),
        pytest.param("www.example.test", "192.0.2.1:443", "2", id="address falls to wildcard"),
        pytest.param("other.example.test", "", "3", id="leading wildcard"),
        pytest.param("a.b.example.test", "", "3", id="wildcard covers several labels"),
        pytest.param("x.deep.example.test", "", "4", id="longest wildcard"),
        pytest.param("*.example.test", "", "3", id="the wildcard itself"),
        pytest.param("mail.anything.test", "", "5", id="trailing wildcard"),
        pytest.param("mail.example.test", "", "3", id="leading before trailing"),
        pytest.param("joe.people.test", "", "6", id="first regex"),
        pytest.param("a12.people.test", "", "7", id="second regex, quoted braces"),
        pytest.param("dotted.test", "", "8", id="dot stands for the name"),
        pytest.param("x.dotted.test", "", "8", id="and all below it"),
        pytest.param("admin.example.test", "10.0.0.1:8443", "10", id="address chooses"),
        pytest.param("admin.example.test", "10.0.0.2:8443", "11", id="other address"),
        pytest.param("six.example.test", "[0::1]:9443", "12", id="IPv6 in another spelling"),
        pytest.param("sock.example.test", "unix:/run/n.sock", "13", id="unix socket"),
        pytest.param("_", "443", "1", id="default server by its name"),
    ],
)
def test_precedence(tmp_path: Path, site: str, listen: str, expected: str) -> None:
    """A certificate on the wrong server block is an outage of two sites."""
    assert expected == chosen(tmp_path, NAMED, site, listen)


@pytest.mark.parametrize(
    ("servers", "site", "listen", "words"),
    [
        pytest.param(
            NAMED, "admin.example.test", "", r"nginx\.conf:14 .*nginx\.conf:15", id="two addresses"
        ),
        pytest.param(
            NAMED, "admin.example.test", "8443", "2 server blocks", id="port on two addresses"
        ),
        pytest.param(
            "server { listen 443 ssl; server_name a.test; }\n"
            "server { listen 443 ssl; server_name b.test A.test; }",
            "a.test",
            "",
            r"nginx\.conf:3 and .*nginx\.conf:4",
            id="name twice on one address",
        ),
        pytest.param(
            "server { listen 443 ssl; server_name a.test; }",
            "b.test",
            "",
            "no server block has server_name b.test",
            id="default server belongs to another site",
        ),
        pytest.param(
            "server { listen 443 ssl; server_name a.test; }",
            "b.test",
            "443",
            "no server block has server_name b.test on 443",
            id="even where the address is given",
        ),
        pytest.param(NAMED, "a.test", "444", "listens on 444", id="nobody listens there"),
        pytest.param(
            "server { listen 443 ssl; server_name ~^(?R)$; }",
            "b.test",
            "",
            "cannot tell whether",
            id="regex that only PCRE knows",
        ),
    ],
)
def test_what_would_be_a_guess_is_refused(
    tmp_path: Path, servers: str, site: str, listen: str, words: str
) -> None:
    """A refusal names the lines; a guess changes somebody else's site."""
    with pytest.raises(InvalidRequest, match=words) as caught:
        chosen(tmp_path, servers, site, listen)

    assert caught.value.remedy


def test_a_lone_nameless_server_is_taken(tmp_path: Path) -> None:
    """Many machines serve one site and never say its name."""
    configuration = read(tmp_path, RED_HAT)

    block = Matcher(configuration).match("www.example.test")

    assert str(tmp_path / "nginx.conf") + ":36" == block.place
    assert block.pairs[0].certificate.arguments[0] == "/etc/pki/nginx/server.crt"


def test_debian_layout(tmp_path: Path) -> None:
    """Includes of globs, and a certificate in an included snippet."""
    configuration = read(tmp_path, DEBIAN)

    block = Matcher(configuration).match("shop.example.test")

    assert f"{tmp_path}/sites-enabled/shop:1" == block.place
    assert f"{tmp_path}/snippets/shop-tls.conf:1" == block.pairs[0].certificate.place
    assert [listen.key for listen in block.listens] == ["*:443", "[::]:443"]
    assert len(configuration.blocks) == 3


def test_comments_between_words_do_not_hide_anything(tmp_path: Path) -> None:
    """People write comments wherever nginx lets them."""
    configuration = read(tmp_path, {"nginx.conf": HARD})

    block = Matcher(configuration).match("c.example.test")

    assert block.names == ("b.example.test", "c.example.test")
    assert (
        block.pairs[0].certificate.arguments[0],
        block.pairs[0].key.arguments[0],
    ) == ("/b b.pem", "/b\\ b.key")


def test_server_blocks_in_lua_strings_do_not_count(tmp_path: Path) -> None:
    """Text in code is not configuration."""
    configuration = read(tmp_path, {"nginx.conf": LUA})

    assert len(configuration.blocks) == 1


def test_one_ssl_flag_is_enough_for_an_address(tmp_path: Path) -> None:
    """nginx joins the listen parameters of all blocks on an address."""
    configuration = read(
        tmp_path,
        "server { listen 443 ssl; server_name a.test; }\n"
        "server { listen 443; server_name b.test; }",
    )

    assert configuration.serves_tls(configuration.blocks[1])


def test_a_certificate_of_the_http_level_is_inherited(tmp_path: Path) -> None:
    """Only a block with directives of its own hides it."""
    configuration = read(
        tmp_path,
        "ssl_certificate /h.pem; ssl_certificate_key /h.key;\n"
        "server { listen 443 ssl; server_name a.test; }\n"
        "server { listen 443 ssl; server_name b.test; ssl_certificate /b.pem; "
        "ssl_certificate_key /b.key; }",
    )

    assert [
        (block.pairs[0].certificate.arguments[0], block.pairs[0].inherited)
        for block in configuration.blocks
    ] == [("/h.pem", True), ("/b.pem", False)]


def test_a_loop_of_includes_is_refused(tmp_path: Path) -> None:
    """nginx itself would open files until it runs out of them."""
    files = {
        "nginx.conf": "events {}\nhttp { include a.conf; }",
        "a.conf": "server { include b.conf; }",
        "b.conf": "include a.conf;",
    }

    with pytest.raises(InvalidRequest, match=r"b\.conf:1 includes .*a\.conf"):
        read(tmp_path, files)


def test_hundreds_of_sites_are_each_found_by_name(tmp_path: Path) -> None:
    """Inventory asks for every block; shared hosting has many."""
    files = {"nginx.conf": "events {}\nhttp { include sites/*.conf; }"} | {
        f"sites/{number:03}.conf": (
            f"server {{ listen 443 ssl; server_name s{number}.test *.s{number}.test; }}\n"
        )
        for number in range(400)
    }
    configuration = read(tmp_path, files)
    matcher = Matcher(configuration)

    found = [matcher.match(block.names[0]) for block in configuration.blocks]

    assert found == list(configuration.blocks)
    assert len(found) == 400


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("443", "*:443"),
        ("0.0.0.0:443", "*:443"),
        ("*:443", "*:443"),
        ("127.0.0.1", "127.0.0.1:80"),
        ("LOCALHOST:8000", "localhost:8000"),
        ("[::]:443", "[::]:443"),
        ("[0:0::1]", "[::1]:80"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
    ],
)
def test_addresses_have_one_spelling(text: str, key: str) -> None:
    """Two spellings of one address are one listener."""
    [listen] = parse_listen((text, "ssl", "default_server"))

    assert key == listen.key
    assert listen.tls
    assert listen.default


def test_a_range_of_ports_is_several_addresses() -> None:
    """nginx 1.15.10 and later."""
    assert [one.key for one in parse_listen(("8000-8002",))] == ["*:8000", "*:8001", "*:8002"]


@pytest.mark.parametrize("text", ["0", "70000", "[::1", "[zz]:1", "1.2.3.4:x", "8000-8002"])
def test_a_bad_address_is_refused(text: str) -> None:
    """A typo must not mean "anywhere"."""
    with pytest.raises(InvalidRequest):
        parse_wanted(text)


def test_the_text_of_a_configuration_is_complete() -> None:
    """The other tests rely on the first server block standing on line 3."""
    assert "server" in http("server {}").splitlines()[2]
