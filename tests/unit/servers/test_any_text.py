"""Configurations with anything around the lines that count: edited once, and back to the byte."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certrail.remote.local import LocalHost
from certrail.servers.registry import open_target, site_of
from certrail.servers.splice import replacements, take_back
from certrail.servers.target import FileTarget, Wanted
from tests.support.databases import NAME, write_pem
from tests.support.nginx import TestCa

HAPROXY = """\
global
    maxconn 200
frontend www
    bind [::1]:8443,127.0.0.1:8443 v4v6 ssl crt @dir@/old.pem alpn h2  # from last year
    bind :8444 ssl crt "@dir@/old.pem"
    default_backend app
backend app
    server one 127.0.0.1:1
"""
CADDY = """\
(common) {
\ttls @dir@/old.pem "@dir@/old.pem" {
\t\tprotocols tls1.2
\t}
}
www.example.test, [::1]:8443 {
\timport common
\trespond "hello"
}
"""
LIGHTTPD = """\
server.modules = ( "mod_openssl" )
$SERVER["socket"] == "[::]:443" {
  ssl.engine = "enable"
  ssl.pemfile = "@dir@/old.pem"
}
ssl.privkey = "@dir@/old.pem"
"""
POSTGRESQL = """\
listen_addresses = '::'
ssl = on
ssl_cert_file = '@dir@/old.pem'
ssl_key_file '@dir@/old.pem'
"""
MARIADB = """\
[client]
ssl-cert = /none
[mysqld]
bind-address = ::
ssl-cert = @dir@/old.pem
ssl_key=@dir@/old.pem
"""
CASES = {
    "haproxy": ("haproxy.cfg", HAPROXY),
    "caddy": ("Caddyfile", CADDY),
    "lighttpd": ("lighttpd.conf", LIGHTTPD),
    "postgresql": ("postgresql.conf", POSTGRESQL),
    "mariadb": ("my.cnf", MARIADB),
}
# A backslash before the end of a line means something to most of them.
_COMMENT = st.binary(max_size=20).map(lambda raw: b"# " + raw.translate(None, b"\0\r\n\\"))
_BETWEEN = st.lists(st.one_of(_COMMENT, st.sampled_from([b"", b"  ", b"\t"])), max_size=2)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="certrail-test-") as name:
        write_pem(Path(name, "old.pem"), TestCa().bundle(NAME), "root")
        yield Path(name)


@pytest.mark.parametrize("kind", CASES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_only_what_names_the_certificate_changes(
    kind: str, folder: Path, data: st.DataObject
) -> None:
    """Comments of any bytes, blank lines, both kinds of line ends, a missing last one."""
    name, text = CASES[kind]
    path = folder / name
    lines: list[bytes] = []
    for line in text.replace("@dir@", str(folder)).encode().splitlines():
        lines += [*data.draw(_BETWEEN), line]
    eol = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    before = eol.join(lines) + data.draw(st.sampled_from([b"", eol]))
    path.write_bytes(before)
    shutil.rmtree(folder / "certrail", ignore_errors=True)
    target = open_target(LocalHost("here"), {"kind": kind, "config": str(path)})
    assert isinstance(target, FileTarget)
    site, wanted = site_of({"site": NAME}), Wanted("ECDSA", (NAME,))

    survey = target.survey(site, wanted)
    plan = survey.plan

    after = plan.after[str(path)]
    changed = [line for line in after.split(b"\n") if line not in before.split(b"\n")]
    assert changed
    assert all(b"/certrail/" in line for line in changed)
    kept = [line for line in lines if b"old.pem" not in line]
    assert [line for line in after.split(eol) if line in kept] == [
        line for line in before.split(eol) if line in kept
    ]
    made = replacements(before, survey.splices[str(path)])
    assert take_back(after, made, str(path)) == before
    path.write_bytes(after)
    assert not target.survey(site, wanted).plan.after
