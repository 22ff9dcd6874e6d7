"""What reads bytes of others, each as a function of bytes, with seeds to begin from.

A target may return or raise :class:`~certrail.errors.CertrailError`; anything
else that leaves it would be a traceback to somebody.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from prefect.blocks.core import Block
from pydantic import BaseModel

import blocks._keyvault
import blocks._kubernetes
import blocks.ca.certcentral.api
import blocks.ca.digicert_one
import blocks.ca.vault
import blocks.delivery.vault_kv
import blocks.dns.powerdns
from certrail.acme.ari import read_renewal_info
from certrail.acme.connection import Connection
from certrail.acme.directory import Directory
from certrail.acme.links import links
from certrail.acme.listing import unfinished
from certrail.acme.order import read_authorization, read_order
from certrail.acme.origin import Origins
from certrail.acme.reply import Reply
from certrail.audit_chain import Anchor
from certrail.ca.answer import chain_of, error_code, refusal
from certrail.cli import _csv_import, _yaml
from certrail.cli._document import check
from certrail.cli._pem import trust_from_text
from certrail.connectors import CommandResult
from certrail.dns.query import Server, canonical
from certrail.errors import CertrailError, InvalidRequest
from certrail.jobs.threshold import Threshold
from certrail.keys.generate import generate
from certrail.keys.seal import Keyring
from certrail.model import (
    UNREADABLE,
    Bundle,
    Chain,
    Csr,
    KeyAlgorithm,
    Order,
    OrderKey,
    OrderStatus,
    SubjectSpec,
)
from certrail.names import Name, matches
from certrail.notify.sandbox import check_template
from certrail.private_key import PrivateKeyPem
from certrail.remote.http import json_of
from certrail.remote.http_errors import reason_of, retry_after
from certrail.remote.local import LocalHost
from certrail.remote.posix_host import PosixHost
from certrail.servers.apache import config as apache
from certrail.servers.apache.tree import Reader as ApacheReader
from certrail.servers.caddy import config as caddy
from certrail.servers.discovery import discover
from certrail.servers.dovecot import config as dovecot
from certrail.servers.exim import config as exim
from certrail.servers.haproxy import certificates as haproxy
from certrail.servers.lighttpd import config as lighttpd
from certrail.servers.mariadb import config as mariadb
from certrail.servers.nginx import config as nginx
from certrail.servers.nginx.listen import parse_wanted
from certrail.servers.nginx.match import Matcher
from certrail.servers.nginx.tree import parse
from certrail.servers.postfix import config as postfix
from certrail.servers.postgresql import config as postgresql
from certrail.servers.registry import open_target
from certrail.servers.tomcat import config as tomcat
from certrail.store.filters import parse as parse_filter
from certrail.store.inventory_query import ALIASES, FIELDS
from certrail.tls.addresses import Address, expand
from certrail.tls.channel import Channel, Deadline
from certrail.tls.findings import Stopped
from certrail.tls.handshake import Presented
from certrail.tls.scan import examine
from certrail.tls.starttls import StartTls, negotiate
from certrail.tls.trust import TrustAnchors
from certrail.x509.csr import build_csr, read_csr
from certrail.x509.export import Format, Part, export, load
from tests.support.tls_servers import Authority, pem
from tests.unit.servers.layouts import DEBIAN, HARD

HERE = LocalHost("here")
CA_URL = "https://ca.example.test/directory"
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Target:
    """Something that reads bytes of others.

    Attributes:
        name: for reports.
        run: reads them.
        seeds: well-formed ones, to change something in.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def attempt(target: Target, data: bytes) -> None:
    """Let *target* read *data*; a clear refusal is as good as a success."""
    with warnings.catch_warnings(), suppress(CertrailError):
        # Of certificates that the library reads for now; what it refuses comes as an exception.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        target.run(data)


@lru_cache(maxsize=1)
def _folder() -> Path:
    holder = tempfile.TemporaryDirectory(prefix="ct-fuzz-")
    _kept.append(holder)
    return Path(holder.name)


_kept: list[object] = []


def _file(name: str, data: bytes) -> str:
    path = _folder() / name
    path.write_bytes(data)
    return str(path)


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode(errors="replace"))


# -- configuration of servers -------------------------------------------------------------------


def _nginx(data: bytes) -> None:
    parse(data)
    found = nginx.read_configuration(HERE, _file("nginx.conf", data))
    found.groups  # noqa: B018 - computed on demand
    with suppress(InvalidRequest):
        Matcher(found).match("www.example.test")


def _apache(data: bytes) -> None:
    found = apache.interpret(ApacheReader(HERE, _file("httpd.conf", data)).read(), HERE)
    found.match("www.example.test")


def _postfix(data: bytes) -> None:
    for value in postfix.main_settings(data, "main.cf").values():
        list(value.parts())
    for service in postfix.services(data, "master.cf"):
        service.is_meant("465")


def _dovecot(data: bytes) -> None:
    found = dovecot.read_configuration(HERE, _file("dovecot.conf", data))
    found.names.lines("/a", "/b")
    found.scope("www.example.test", "imap")


def _haproxy(data: bytes) -> None:
    for bind in haproxy.read_configuration(HERE, _file("haproxy.cfg", data)).binds:
        bind.listens_on("*:443")
    for crt in haproxy.entries(data, "list", "/etc/haproxy"):
        assert crt.word.start < crt.word.end


def _lighttpd(data: bytes) -> None:
    lighttpd.read_configuration(HERE, _file("lighttpd.conf", data)).with_certificate()
    lighttpd.parse(data, "lighttpd -p")


def _exim(data: bytes) -> None:
    path = _file("exim.conf", data)
    found = exim.read_configuration(HERE, [path], {"_HAVE_TLS": ""})
    found.source("tls_certificate")
    found.text("tls_certificate")


def _caddy(data: bytes) -> None:
    found = caddy.read_configuration(HERE, _file("Caddyfile", data))
    for site in found.serving("www.example.test", "443"):
        if site.tls is not None:
            found.users(site.tls)


def _postgresql(data: bytes) -> None:
    found = postgresql.read_configuration(HERE, _file("postgresql.conf", data))
    found.file("ssl_cert_file", "server.crt")


def _mariadb(data: bytes) -> None:
    found = mariadb.read_configuration(HERE, _file("my.cnf", data))
    found.ssl_off  # noqa: B018 - computed on demand


def _tomcat(data: bytes) -> None:
    found = tomcat.Configuration.read("/x/conf/server.xml", data, "")
    list(found.old_connectors())
    for host in found.serving("www.example.test", ""):
        for certificate in host.certificates:
            found.file(certificate.attributes.get(tomcat.CERTIFICATE))


# -- answers of CAs and other services ----------------------------------------------------------


def _reply(data: bytes, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(CA_URL, 200, headers or {}, data, "ca")


class _Checks:
    """As much of a connection as reading an authorization needs: where links may lead."""

    check = staticmethod(Origins(CA_URL).check)


def _acme_order(data: bytes) -> None:
    blank = Order(OrderKey("k"), CA_URL, OrderStatus.PENDING, data={})
    read_order(_reply(data), blank)


def _acme_authorization(data: bytes) -> None:
    connection = cast(Connection, _Checks())
    read_authorization(_reply(data), ["*.a.test", "a.test"], "thumb", connection)


def _acme_other(data: bytes) -> None:
    reply = _reply(data)
    str(reply.problem)
    str(reply.problem.error("new order"))
    with suppress(CertrailError):
        unfinished(lambda url, what: reply, CA_URL, ["a.test"])
    with suppress(CertrailError):
        Directory.parse(reply.json())
    read_renewal_info(reply.json(), timedelta(hours=6))


def _acme_headers(data: bytes) -> None:
    text = data.decode("latin-1")
    reply = _reply(b"{}", {"Retry-After": text, "Date": text, "Link": text, "Location": text})
    reply.retry_after  # noqa: B018 - computed on demand
    links(text, "alternate")
    reply.links("up")
    Origins(CA_URL).check(reply.location())


def _models(*modules: ModuleType) -> Iterator[type[BaseModel]]:
    for module in modules:
        for value in vars(module).values():
            made = isinstance(value, type) and value.__module__ == module.__name__
            if made and issubclass(value, BaseModel) and not issubclass(value, Block):
                yield value


_REPLIES = tuple(
    dict.fromkeys(
        _models(
            blocks._keyvault,
            blocks._kubernetes,
            blocks.ca.certcentral.api,
            blocks.ca.digicert_one,
            blocks.ca.vault,
            blocks.delivery.vault_kv,
            blocks.dns.powerdns,
        )
    )
)


def _vendor(data: bytes) -> None:
    request = httpx.Request("GET", "https://vendor.example.test/api")
    reply = httpx.Response(400, content=data, request=request)
    error_code(reply)
    reason_of(reply, ["s3cret"])
    str(refusal(reply, "sign", "vendor", remedy="", secret="s3cret"))
    kinds: tuple[type[Any], ...] = (dict, *_REPLIES)
    for kind in kinds:
        with suppress(CertrailError):
            json_of(reply, kind)


def _vendor_headers(data: bytes) -> None:
    request = httpx.Request("GET", "https://vendor.example.test/api")
    reply = httpx.Response(429, headers={b"Retry-After": data}, request=request)
    assert timedelta(0) <= retry_after(reply) <= timedelta(days=1)


# -- what hosts and servers say ------------------------------------------------------------------


class _Telling(PosixHost):
    """A host whose every command says the same."""

    def __init__(self, said: bytes) -> None:
        super().__init__("told")
        self._said = said

    def execute(
        self, argv: Sequence[str], *, stdin: bytes, timeout: timedelta, limit: int
    ) -> CommandResult:
        # The scripts of files begin with a mark, which their output does too.
        found = re.search(r"echo (certrail-[0-9a-f]{16});", " ".join(argv))
        mark = f"{found[1]}\n".encode() if found else b""
        code = len(self._said) % 5
        return CommandResult(0 if code > 1 else code, mark + self._said, self._said, 0.0)


def _commands(data: bytes) -> None:
    host = _Telling(data)
    for call in (
        host.check,
        lambda: host.info("/a/b"),
        lambda: host.list_directory("/a"),
        lambda: host.real_path("/a"),
        lambda: host.read_file("/a"),
        lambda: host.write_file("/a/b", b"x"),
        lambda: discover(host),
    ):
        with suppress(CertrailError):
            call()
    for kind in ("nginx", "apache", "haproxy", "postfix", "dovecot", "lighttpd", "exim"):
        with suppress(CertrailError):
            open_target(host, {"kind": kind, "site": "www.example.test"}).check()


def _dialogs(data: bytes) -> None:
    """All that a server says, however it is asked: greeting, answers, and too much."""
    for protocol in StartTls:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            said = threading.Thread(target=_say, args=(listener, data), daemon=True)
            said.start()
            address = Address("127.0.0.1", listener.getsockname()[1])
            with suppress(Stopped, OSError), Channel(address, Deadline(20)) as channel:
                negotiate(channel, protocol)
            said.join(20)
            assert not said.is_alive()


def _say(listener: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(20)
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass


# -- certificates -------------------------------------------------------------------------------

_ROOT = Authority.root()
_INTERMEDIATE = _ROOT.intermediate()
_ISSUED = _INTERMEDIATE.issue("www.example.test", "*.example.test")
_CSR = build_csr(SubjectSpec(names=("www.example.test",)), generate(KeyAlgorithm.ECDSA_P256))
_ANCHORS = TrustAnchors([_ROOT.certificate], "the test's root")


def _served(data: bytes) -> None:
    _pem(_armored("CERTIFICATE", data))
    _pem(_armored("CERTIFICATE REQUEST", data))
    try:
        leaf = x509.load_der_x509_certificate(data)
    except UNREADABLE:
        return
    chain = (leaf, _INTERMEDIATE.certificate)
    seen = Presented(Address("192.0.2.1", 443), certificates=chain)
    for name in ("www.example.test", "192.0.2.1", None):
        examine(seen, name, StartTls.NONE, _ANCHORS, None, NOW).to_json()
    below = Presented(Address("192.0.2.1", 443), certificates=(_ISSUED.leaf, leaf))
    examine(below, None, StartTls.NONE, _ANCHORS, None, NOW).to_json()


def _armored(label: str, der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label.encode(), body, label.encode())


def _pem(data: bytes) -> None:
    text = data.decode(errors="replace")
    with suppress(CertrailError):
        trust_from_text(text)
    with suppress(CertrailError):
        read_csr(Csr(text))
    with suppress(CertrailError):
        chain_of([text], "ca").must_answer(_CSR, ("www.example.test",))


def _delivered(data: bytes) -> None:
    for form in Format:
        contents = dict.fromkeys(form.parts, data)
        with suppress(CertrailError):
            load({**contents, Part.KEY: data}, form, password="changeit")


# -- what people write --------------------------------------------------------------------------


def _csv(data: bytes) -> None:
    path = Path(_file("import.csv", data))
    rows = _csv_import._rows(path)
    _csv_import._check_names(path, rows, profiles={"p"}, connectors={"c"})
    _csv_import._endpoints(path, rows, {})


def _document(text: str) -> None:
    document = _yaml.read(text, "certrail.yaml", {"HOME": "/root"})
    check(document, {}, _folder())


def _names(text: str) -> None:
    for read in (Name.parse, Address.parse, Server.parse, canonical, Threshold.parse, Anchor.parse):
        with suppress(CertrailError):
            read(text)
    with suppress(CertrailError):
        parse_wanted(text)
    with suppress(CertrailError):
        list(expand(text))
    matches(text, "www.example.test")


def _template(text: str) -> None:
    # The settings that hold a template tell a refusal as pydantic wants it.
    with suppress(ValueError):
        check_template(text, "subject")


def _json_seed(value: Any) -> bytes:
    return json.dumps(value).encode()


_ORDER = {
    "status": "pending",
    "expires": "2026-12-01T00:00:00Z",
    "identifiers": [{"type": "dns", "value": "a.test"}],
    "authorizations": ["https://ca.example.test/authz/1"],
    "finalize": "https://ca.example.test/finalize/1",
    "error": {"type": "urn:ietf:params:acme:error:dns", "detail": "no", "subproblems": [{}]},
}
_AUTHORIZATION = {
    "identifier": {"type": "dns", "value": "a.test"},
    "status": "pending",
    "expires": "2026-12-01T00:00:00Z",
    "challenges": [
        {"type": "dns-01", "url": "https://ca.example.test/chall/1", "token": "DGyRejmCefe7v4N"}
    ],
}
_ODD = {**_AUTHORIZATION, "challenges": [{"type": {}}, {"type": ["dns-01"]}, 1]}
_DIRECTORY = {
    "newNonce": "https://ca.example.test/nonce",
    "newAccount": "https://ca.example.test/account",
    "newOrder": "https://ca.example.test/order",
    "meta": {"profiles": {"classic": "usual"}, "externalAccountRequired": True},
    "suggestedWindow": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"},
    "orders": "https://ca.example.test/orders",
}
_DEEP = b"[" * 20_000
_VENDOR = (
    _json_seed({"errors": [{"code": "invalid", "message": "no"}], "error": {"code": 4}}),
    _json_seed({"data": {"certificate": "x", "ca_chain": ["y"], "serial_number": "1"}}),
    _json_seed({"id": 1, "status": "issued", "certificate": {"id": 2, "dns_names": ["a.test"]}}),
    _json_seed([{"name": "a.test.", "rrsets": [{"name": "x", "records": [{"content": "y"}]}]}]),
    _DEEP,
)
_POSTFIX = (
    b"smtpd_tls_chain_files = /k.pem,\n  /c.pem\n",
    b"smtps inet n - y - - smtpd\n  -o smtpd_tls_wrappermode=yes\n  -o { a = b }\n",
)
_DOVECOT = b"""ssl_cert = </etc/c.pem
ssl_key = </etc/k.pem
protocol imap {
  local_name a.test {
    ssl_cert = </a
  }
}
!include_try conf.d/*.conf
"""
_EXIM = b"""HOST = www.example.test
A = A.B
.ifdef HOST
tls_certificate = \\
  /etc/HOST.pem
.elifndef _HAVE_TLS
hide tls_privatekey = "x"
.endif
.include_if_exists /none
begin acl
"""
_CADDY = b"""{
	https_port 8443
}
(common) {
	tls /c.pem "/k y.pem" {
		curves x25519
	}
}
import *.caddy
www.example.test, https://*.test:443/x {
	import common
	respond <<END
		{ `
		END 200
}
"""
_POSTGRESQL = b"""ssl = on # yes
ssl_cert_file 'a''b\\'c'
include_if_exists = 'none'
"""
_MARIADB = b"""[client-server]
[mysqld]
ssl-cert = "/c # d.pem" # x
loose_ssl_key=/k
skip-ssl
"""
_TOMCAT = b"""<?xml version='1.0' encoding="utf-8"?>
<!DOCTYPE Server [ <!-- > --> ]>
<Server><!-- <Connector/> --><Connector port='443' SSLEnabled="true"><![CDATA[<x>]]>
<SSLHostConfig hostName="a&#x26;&amp;b"><Certificate certificateFile="${catalina.base}/c"
  type='EC'/></SSLHostConfig><SSLHostConfig certificateKeystoreFile="k" /></Connector></Server>
"""
_HAPROXY = b"""global
  crt-base /etc/ssl
frontend f
  bind :443,[::]:443 ssl crt 'a b.pem' crt-list l alpn h2\\ x
.if defined(X)
  bind "$ADDR" ssl crt "${DIR}/x.pem"
.endif
"""
_APACHE = b"""ServerRoot "/etc/httpd"
Define dir /x
<IfModule ssl_module>
Listen 443
<VirtualHost *:443 [::1]:443>
  ServerName www.example.test
  ServerAlias *.example.test
  SSLEngine on
  SSLCertificateFile ${dir}/c.pem
  SSLCertificateKeyFile "/k.pem"
  Include nothing*.conf
</VirtualHost>
</IfModule>
"""
_LIGHTTPD = b"""server.modules += ( "mod_openssl" )
var.dir = "/etc/" + "ssl"
$SERVER["socket"] == ":443" {
  ssl.engine = "enable"
  ssl.pemfile = "/etc/x.pem"
  $HTTP["host"] =~ "^www" { ssl.pemfile = var.dir + "/y.pem" }
}
"""
_YAML = b"""profiles:
- {name: p, workflow: web-server, ca: c, renew: {windows: [{days: [mon], start: "22:00"}]}}
endpoints:
- &a {location: "a.test:443", names: [a.test], profile: p, tags: [x], trust: "${HOME}"}
- <<: *a
"""
_COMMANDS = (
    b"81a4 0 0 12:root:root\n/etc/x",
    b"root\nLinux 6.1\n",
    b"/a/b\0/a/c\0",
    b"nginx\x01/usr/sbin/nginx\x01/\x01nginx: master process\x01-c\x01/etc/nginx/nginx.conf\n",
    b"nginx version: nginx/1.22.1\nTLS SNI support enabled\n--conf-path=/etc/nginx/nginx.conf",
    b'Server version: Apache/2.4.57\n -D HTTPD_ROOT="/etc/apache2"\nVirtualHost configuration:\n',
    b"mail_version = 3.7.11\nconfig_directory = /etc/postfix\n",
    b"HAProxy version 2.6.12\n",
)
_DIALOGS = (
    b"220-a\r\n220 ready\r\n250-x\r\n250 STARTTLS\r\n220 go ahead\r\n",
    b"* OK [CAPABILITY STARTTLS] ready\r\na1 OK begin\r\n",
    b"+OK ready\r\n+OK begin\r\n",
    b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00",
    b"S",
    b"\x4a\x00\x00\x00\x0a8.0.36\x00" + bytes(13) + b"\xff\xff" + bytes(48),
)
_CSV = b"location,names,profile,target,tags,server.kind\na.test:443,a.test b.test,p,c,x,nginx\n"
_DER = tuple(one.public_bytes(Encoding.DER) for one in (*_ISSUED.chain, _ROOT.certificate))
_NO_VERSION = _DER[0].replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x23", 1)
_PEM = pem(*_ISSUED.chain).encode()
_BUNDLE = Bundle(Chain.of(list(_ISSUED.chain)), PrivateKeyPem(_ISSUED.key_pem().encode()))
_STORES = tuple(
    content
    for form in (Format.JKS, Format.PKCS12)
    for part, content in export(_BUNDLE, form, password="changeit").items()
    if part is Part.STORE
)


TARGETS = (
    Target("nginx", _nginx, tuple(text.encode() for text in (*DEBIAN.values(), HARD))),
    Target("apache", _apache, (_APACHE,)),
    Target("postfix", _postfix, _POSTFIX),
    Target("dovecot", _dovecot, (_DOVECOT,)),
    Target("haproxy", _haproxy, (_HAPROXY, b"\x88\x92 x\n")),
    Target("lighttpd", _lighttpd, (_LIGHTTPD,)),
    Target("exim", _exim, (_EXIM,)),
    Target("caddy", _caddy, (_CADDY,)),
    Target("postgresql", _postgresql, (_POSTGRESQL,)),
    Target("mariadb", _mariadb, (_MARIADB,)),
    Target("tomcat", _tomcat, (_TOMCAT,)),
    Target("acme order", _acme_order, (_json_seed(_ORDER), _DEEP)),
    Target(
        "acme authorization",
        _acme_authorization,
        (_json_seed(_AUTHORIZATION), _json_seed(_ODD), _DEEP),
    ),
    Target("acme other", _acme_other, (_json_seed(_DIRECTORY), _json_seed(_ORDER), _DEEP)),
    Target(
        "acme headers",
        _acme_headers,
        (b"120", b"Fri, 31 Dec 1999 23:59:59 GMT", b'<../x>;rel="alternate", <y>; rel=up'),
    ),
    Target("vendor replies", _vendor, _VENDOR),
    Target("vendor headers", _vendor_headers, (b"120", b"Fri, 31 Dec 1999 23:59:59 GMT")),
    Target("commands", _commands, _COMMANDS),
    Target("starttls dialogs", _dialogs, _DIALOGS),
    Target("served certificate", _served, (*_DER, _NO_VERSION)),
    Target("pem", _pem, (_PEM,)),
    Target("delivered", _delivered, (_PEM + _ISSUED.key_pem().encode(), *_STORES)),
    Target("csv", _csv, (_CSV,)),
    Target("yaml", _text(_document), (_YAML, b"a: &a [*a]\n", b"a: !!python/object:x {}\n")),
    Target(
        "filter",
        _text(lambda text: parse_filter(text, FIELDS, ALIASES)),
        (b"days_left<30 tag=web issuer~'Let''s'", b'not_after>=2026-01-01 names!="a b"'),
    ),
    Target(
        "names",
        _text(_names),
        (b"*.b\xc3\xbccher.example:443", b"[2001:db8::1]:53", b"192.0.2.0/24:443", b"12.5%"),
    ),
    Target(
        "template",
        _text(_template),
        (b"{{ location }} {% for a in b %}{{ a|upper }}{% endfor %}", b"{{ ''.__class__ }}"),
    ),
    Target(
        "keys",
        _text(Keyring.from_text),
        (b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", b"\x82\n"),
    ),
)
