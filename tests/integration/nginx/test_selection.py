"""nginx itself says which server block answers; our choice has to be the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from certrail.errors import InvalidRequest
from certrail.remote.local import LocalHost
from certrail.servers.change import Change
from certrail.servers.nginx.config import read_configuration
from certrail.servers.nginx.edit import plan_edit
from certrail.servers.nginx.match import Matcher
from certrail.servers.registry import open_target, site_of
from tests.support.handshake import tls_connection
from tests.support.nginx import Nginx

_NAMES = [
    "_",
    "www.example.test example.test",
    "*.example.test",
    "*.deep.example.test",
    "mail.*",
    r"~^(?<user>[a-z]+)\.people\.test$",
    r'"~^a\d{1,3}\.people\.test$" ~^.*\.people\.test$',
    ".dotted.test",
    r"~^x.*\.example\.test$",
    "WWW.Upper.test",
    r"~Other\.case\.test",
]
SERVERS = "".join(
    f"""
    server {{
        listen 127.0.0.1:@port@ ssl{" default_server" if number == 0 else ""};
        server_name {names};
        ssl_certificate @dir@/old.pem; ssl_certificate_key @dir@/old.key;
        return 200 "block {number}\\n";
    }}"""
    for number, names in enumerate(_NAMES)
)
ASKED = [
    "www.example.test",
    "example.test",
    "any.example.test",
    "a.b.example.test",
    "deep.example.test",
    "x.deep.example.test",
    "mail.example.test",
    "mail.other.test",
    "joe.people.test",
    "a12.people.test",
    "joe-2.people.test",
    "dotted.test",
    "x.y.dotted.test",
    "xyz.example.test",
    "www.upper.test",
    "an.other.case.test",
    "nobody.knows",
]


def test_our_choice_is_that_of_nginx(tmp_path: Path) -> None:
    """Seventeen names against eleven blocks of all kinds."""
    with Nginx.started(tmp_path, servers=SERVERS) as nginx:
        matcher = Matcher(read_configuration(LocalHost("here"), str(nginx.config)))
        for name in ASKED:
            with tls_connection(nginx.port, name) as connection:
                connection.sendall(f"GET / HTTP/1.0\r\nHost: {name}\r\n\r\n".encode())
                reply = b""
                while part := connection.recv(4096):
                    reply += part

            block = matcher.match(name)

            texts = [one.arguments[1] for one in block.directives if one.name == "return"]
            assert reply.decode().endswith(texts[0]), name


STYLES = {
    "one line": "server{listen 127.0.0.1:@port@ ssl;server_name www.example.test;@old@}",
    "CRLF": (
        "server {\r\n\tlisten 127.0.0.1:@port@ ssl;\r\n\tserver_name www.example.test;\r\n@old@}"
    ),
    "comments": (
        "server # x {\n { listen # y\n 127.0.0.1:@port@ # z;\n ssl; server_name\n # }\n"
        "www.example.test # last\n ; @old@ # end\n }"
    ),
    "not UTF-8": (
        "# caf\udce9 \udcff\nserver { listen 127.0.0.1:@port@ ssl; server_name www.example.test; "
        "add_header X \"\udce9;\" ; @old@ }"
    ),
    "maps and ifs": (
        "map $host $m { default 'a;b}'; ~^(?<s>.+)\\.test$ \"${s}\"; }\n"
        "server { listen 127.0.0.1:@port@ ssl; server_name www.example.test; @old@\n"
        '  if ($host = "b") { return 301 https://$host$request_uri; }\n'
        '  location ~ "^/a{1,2}$" { return 200 "}"; } }'
    ),
    "included": "include sites/*.conf;",
}  # fmt: skip
OLD = "ssl_certificate @dir@/old.pem; ssl_certificate_key @dir@/old.key;"


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("own", [True, False], ids=["replaced", "inherited"])
def test_edits_are_accepted_served_and_taken_back(tmp_path: Path, style: str, own: bool) -> None:
    """What we call a good edit is one for nginx too, and undo is byte for byte."""
    files = {
        "sites/a.conf": "include sites/b.inc;",
        "sites/b.inc": STYLES["one line"].replace("@old@", OLD if own else ""),
    }
    servers = STYLES[style].replace("@old@", OLD if own else "")
    if not own:
        servers = f"{OLD}\n{servers}"
    with Nginx.started(tmp_path, servers=servers, files=files) as nginx:
        server = {**nginx.server, "site": "www.example.test"}
        target = open_target(LocalHost("here"), server)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*.[ci][on][nc]*")}
        bundle = nginx.ca.bundle("www.example.test")

        staged = target.stage(site_of(server), bundle, nginx.old.chain.fingerprint)
        target.activate(staged)

        assert nginx.accepts_configuration()
        assert bundle.chain.fingerprint == nginx.served("www.example.test")
        target.restore(staged)
        target.discard(staged)
        assert nginx.old.chain.fingerprint == nginx.served("www.example.test")
        assert before == {path: path.read_bytes() for path in before}


def test_the_distributions_own_configuration(tmp_path: Path) -> None:
    """The file that Debian ships, as it is on this machine, gets TLS in one line each."""
    text = Path("/etc/nginx/sites-available/default").read_text()
    block = re.sub(r"listen (\[::\]:)?80", r"listen 127.0.0.1:@plain@", text, count=1)
    block = block.replace("\tlisten [::]:80 default_server;\n", "")
    block = block.replace("server_name _;", "server_name www.example.test;")
    with Nginx.started(tmp_path, servers=block) as nginx:
        listen = f"127.0.0.1:{nginx.port}"
        server = {**nginx.server, "site": "www.example.test", "enable_tls": True, "listen": listen}
        target = open_target(LocalHost("here"), server)
        before = nginx.config.read_text()
        bundle = nginx.ca.bundle("www.example.test")

        target.activate(target.stage(site_of(server), bundle, None))

        assert bundle.chain.fingerprint == nginx.served("www.example.test")
        added = set(nginx.config.read_text().splitlines()) - set(before.splitlines())
        live = f"{tmp_path}/certrail/www.example.test_127.0.0.1_{nginx.port}"
        assert f"\tlisten {listen} ssl;" in added
        assert len(added) == 3
        assert any(line.startswith(f"\tssl_certificate {live}-") for line in added)


def test_ipv6_listeners_get_a_sibling(tmp_path: Path) -> None:
    """nginx has to accept what is written for IPv6."""
    plain = """
    server { listen 127.0.0.1:@plain@; listen [::1]:@plain@; server_name www.example.test;
        return 200 x; }
    """
    with Nginx.started(tmp_path, servers=plain) as nginx:
        configuration = read_configuration(LocalHost("here"), str(nginx.config))
        block = Matcher(configuration).match("www.example.test")
        wanted = Change(f"{tmp_path}/old.pem", f"{tmp_path}/old.key", "ECDSA", enable_tls=True)

        [(path, content)] = plan_edit(configuration, block, wanted).changed(configuration).items()

        Path(path).write_bytes(content)
        assert [line.strip() for line in content.splitlines() if b":443" in line] == [
            b"listen 127.0.0.1:443 ssl;",
            b"listen [::1]:443 ssl;",
        ]
        assert nginx.accepts_configuration()


def test_a_key_of_somebody_else_is_never_uploaded(tmp_path: Path) -> None:
    """Checked here, since not every server would notice."""
    with Nginx.started(tmp_path) as nginx:
        server = {**nginx.server, "site": "www.example.test"}
        one, two = nginx.ca.bundle("www.example.test"), nginx.ca.bundle("www.example.test")
        target = open_target(LocalHost("here"), server)

        with pytest.raises(InvalidRequest, match="do not belong together"):
            target.stage(site_of(server), type(one)(one.chain, two.key), None)

        assert not (tmp_path / "certrail").exists()
