"""Machines laid out as SUSE has it, and as older and newer versions of the servers have it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from certrail.connectors import Host, InstallTarget
from certrail.errors import InvalidRequest
from certrail.model import Bundle
from certrail.servers.discovery import discover
from certrail.servers.nginx import NginxTarget
from certrail.servers.plan import Plan
from certrail.servers.registry import open_target, site_of
from certrail.servers.target import FileTarget, wanted_of
from tests.support.databases import NAME
from tests.support.laid_out import PEM, laid_out
from tests.support.nginx import TestCa

_SERVER = (
    f"    server_name {NAME};\n    ssl_certificate {PEM};\n    ssl_certificate_key {PEM};\n}}\n"
)
_POSTGRESQL = f"ssl = on\nssl_cert_file = '{PEM}'\nssl_key_file = '{PEM}'\nport = {{}}\n"
_VIRTUAL_HOST = f"""\
    ServerName {NAME}
    SSLEngine on
    SSLCertificateFile {PEM}
    SSLCertificateKeyFile {PEM}
    SSLCertificateChainFile {PEM}
</VirtualHost>
"""
SUSE = {
    # nginx before 1.15: a directive of its own says that all addresses speak TLS.
    "etc/nginx/nginx.conf": "events {}\nhttp {\n    include conf.d/*.conf;\n"
    "    include vhosts.d/*.conf;\n}\n",
    "etc/nginx/vhosts.d/www.conf": "server {\n    listen 443;\n    ssl on;\n" + _SERVER,
    # Apache 2.2.
    "etc/apache2/httpd.conf": "ServerRoot /srv/www\nInclude /etc/apache2/listen.conf\n"
    "Include /etc/apache2/conf.d/*.conf\nInclude /etc/apache2/vhosts.d/*.conf\n",
    "etc/apache2/listen.conf": "Listen 443\n<IfDefine !NOSSL>\nNameVirtualHost *:443\n"
    "</IfDefine>\n",
    "etc/apache2/conf.d/empty.conf": "",
    "etc/apache2/vhosts.d/www.conf": f"<VirtualHost *:443>\n{_VIRTUAL_HOST}",
    "etc/haproxy/haproxy.cfg": "global\n    crt-base /etc/pki/tls/private\nfrontend www\n"
    "    bind :443 ssl crt-list /etc/haproxy/list\n",
    "etc/haproxy/list": f"www.pem [alpn h2] {NAME}\n",
    "etc/postfix/main.cf": f"myhostname = {NAME}\nsmtpd_tls_chain_files = {PEM}\n"
    "smtpd_tls_security_level = may\n",
    "etc/postfix/master.cf": "smtp      inet  n       -       n       -       -       smtpd\n",
    # Dovecot 2.4.
    "etc/dovecot/dovecot.conf": "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n"
    "!include conf.d/*.conf\n",
    "etc/dovecot/conf.d/ssl.conf": f"ssl = required\nssl_server_cert_file = {PEM}\n"
    f"ssl_server_key_file = {PEM}\n",
    # lighttpd before 1.4.53 had no ssl.privkey.
    "etc/lighttpd/lighttpd.conf": 'server.modules += ( "mod_openssl" )\n'
    'server.document-root = "/srv/www"\ninclude "/etc/lighttpd/vhosts.d/*.conf"\n',
    "etc/lighttpd/vhosts.d/www.conf": '$SERVER["socket"] == ":6443" {\n'
    f'  ssl.engine = "enable"\n  ssl.pemfile = "{PEM}"\n  ssl.ca-file = "{PEM}"\n}}\n',
    # Packages of mariadb.org.
    "etc/my.cnf": "[client-server]\n!includedir /etc/my.cnf.d\n",
    "etc/my.cnf.d/server.cnf": f"[server]\n[mysqld]\nssl_cert={PEM}\nssl_key={PEM}\n",
    # Two versions of PostgreSQL, packages of postgresql.org.
    "var/lib/pgsql/15/data/postgresql.conf": _POSTGRESQL.format(5432),
    "var/lib/pgsql/16/data/postgresql.conf": _POSTGRESQL.format(5433),
    # Tomcat 8.5: the files on SSLHostConfig itself.
    "etc/tomcat/server.xml": '<Server port="8005">\n<Service name="Catalina">\n'
    '<Connector port="8443" SSLEnabled="true">\n'
    f'<SSLHostConfig certificateFile="{PEM}" certificateKeyFile="{PEM}" '
    f'certificateChainFile="{PEM}"/>\n</Connector>\n</Service>\n</Server>\n',
}
DEBIAN = {
    # nginx 1.25.1 and later.
    "etc/nginx/nginx.conf": "events {}\nhttp {\n    include conf.d/*.conf;\n"
    "    include sites-enabled/*;\n}\n",
    "etc/nginx/conf.d/http2.conf": "http2 on;\n",
    "etc/nginx/sites-enabled/www": "server {\n    listen 443 ssl;\n    listen 443 quic;\n"
    "    http2 on;\n" + _SERVER,
    # As Debian had it with Apache 2.2: names of files without an ending, an empty httpd.conf.
    "etc/apache2/apache2.conf": "Include mods-enabled/*.load\nInclude httpd.conf\n"
    "Include ports.conf\nInclude conf.d/\nInclude sites-enabled/\n",
    "etc/apache2/httpd.conf": "",
    "etc/apache2/mods-enabled/ssl.load": "LoadModule ssl_module /usr/lib/apache2/mod_ssl.so\n",
    "etc/apache2/ports.conf": "NameVirtualHost *:80\nListen 80\n<IfModule mod_ssl.c>\n"
    "    NameVirtualHost *:443\n    Listen 443\n</IfModule>\n",
    "etc/apache2/conf.d/security": "ServerTokens OS\n",
    "etc/apache2/sites-enabled/000-www": "<IfModule mod_ssl.c>\n<VirtualHost *:443>\n"
    f"{_VIRTUAL_HOST}</IfModule>\n",
    "etc/haproxy/haproxy.cfg": "listen www :443\n    mode http\nfrontend tls\n"
    f"    bind :8443 ssl crt {PEM} crt /etc/haproxy/certs no-sslv3\n",
    "etc/haproxy/certs/none.key": "not a certificate\n",
    "etc/dovecot/dovecot.conf": f"protocols = imap\nssl_cert = <{PEM}\nssl_key = <{PEM}\n",
    "etc/postfix/main.cf": f"myhostname = {NAME}\nsmtpd_use_tls = yes\n"
    f"smtpd_tls_cert_file = {PEM}\nsmtpd_tls_key_file = $smtpd_tls_cert_file\n",
    "etc/postfix/master.cf": "smtp inet n - - - - smtpd\n",
    # lighttpd 1.4.53 and later.
    "etc/lighttpd/lighttpd.conf": 'server.modules = ( "mod_openssl" )\n'
    'server.document-root = "/var/www"\ninclude "/etc/lighttpd/conf-enabled/*.conf"\n',
    "etc/lighttpd/conf-enabled/10-ssl.conf": '$SERVER["socket"] == "0.0.0.0:6443" {\n'
    f'  ssl.engine = "enable"\n  ssl.pemfile = "{PEM}"\n  ssl.privkey = "{PEM}"\n}}\n',
    # MariaDB 10.1 and MySQL before it: everything in one file.
    "etc/mysql/my.cnf": f"[mysqld]\nssl-cert={PEM}\nssl-key={PEM}\n"
    "!includedir /etc/mysql/conf.d/\n",
    "etc/mysql/conf.d/dump.cnf": "[mysqldump]\nquick\n",
    "etc/mysql/mariadb.conf.d/50-server.cnf": "",
    "etc/postgresql/13/main/postgresql.conf": _POSTGRESQL.format(5432),
    "etc/postgresql/15/other/postgresql.conf": _POSTGRESQL.format(5433)
    + "include_dir = 'conf.d'\n",
    "etc/postgresql/15/other/conf.d/tls.conf": f"ssl_cert_file = '{PEM}'\n",
    "etc/tomcat9/server.xml": '<Server port="8005">\n<Service name="Catalina">\n'
    '<Connector port="8443" SSLEnabled="true"\n'
    '  keystoreFile="conf/www.jks" keystorePass="changeit"/>\n</Service>\n</Server>\n',
}


class Case(NamedTuple):
    """A server, and the files that a certificate changes."""

    layout: str
    kind: str
    files: set[str]
    config: str = ""


CASES = (
    Case("suse", "nginx", {"/etc/nginx/vhosts.d/www.conf"}),
    Case("suse", "apache", {"/etc/apache2/vhosts.d/www.conf"}),
    Case("suse", "haproxy", {"/etc/haproxy/list"}),
    Case("suse", "postfix", {"/etc/postfix/main.cf"}),
    Case("suse", "dovecot", {"/etc/dovecot/conf.d/ssl.conf"}),
    Case("suse", "lighttpd", {"/etc/lighttpd/vhosts.d/www.conf"}),
    Case("suse", "mariadb", {"/etc/my.cnf.d/server.cnf"}),
    Case("suse", "postgresql", {"/var/lib/pgsql/15/data/postgresql.conf"}, "/pgsql/15/"),
    Case("suse", "postgresql", {"/var/lib/pgsql/16/data/postgresql.conf"}, "/pgsql/16/"),
    Case("suse", "tomcat", {"/etc/tomcat/server.xml"}),
    Case("debian", "nginx", {"/etc/nginx/sites-enabled/www"}),
    Case("debian", "apache", {"/etc/apache2/sites-enabled/000-www"}),
    Case("debian", "haproxy", {"/etc/haproxy/haproxy.cfg"}),
    Case("debian", "postfix", {"/etc/postfix/main.cf"}),
    Case("debian", "dovecot", {"/etc/dovecot/dovecot.conf"}),
    Case("debian", "lighttpd", {"/etc/lighttpd/conf-enabled/10-ssl.conf"}),
    Case("debian", "mariadb", {"/etc/mysql/my.cnf"}),
    Case("debian", "postgresql", {"/etc/postgresql/13/main/postgresql.conf"}, "/13/main/"),
    Case(
        "debian",
        "postgresql",
        {
            "/etc/postgresql/15/other/postgresql.conf",
            "/etc/postgresql/15/other/conf.d/tls.conf",
        },
        "/15/other/",
    ),
)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Host]]:
    """Both machines, as root sees them."""
    folder = tmp_path_factory.mktemp
    with (
        laid_out(SUSE, folder("suse"), "suse") as suse,
        laid_out(DEBIAN, folder("debian"), "debian") as debian,
    ):
        yield {"suse": suse, "debian": debian}


def plan(target: InstallTarget, bundle: Bundle) -> Plan:
    """Return what installing *bundle* would change; the programs of this machine are not asked."""
    site = site_of({"site": NAME})
    if isinstance(target, NginxTarget):
        return target.plan(site, bundle)
    assert isinstance(target, FileTarget)
    return target.survey(site, wanted_of(bundle)).plan


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join((*case[:2], case[3])))
def test_it_is_found_and_the_right_file_would_change(case: Case, hosts: dict[str, Host]) -> None:
    """The site is offered with what it has, and the lines that count are those that change."""
    host = hosts[case.layout]
    (found,) = [
        one
        for one in discover(host)
        if one.kind == case.kind and case.config in str(one.settings.get("config", ""))
    ]
    target = open_target(host, found.settings)

    sites = [one for one in target.sites() if NAME in one.names]
    changed = plan(target, TestCa().bundle(NAME))

    assert [one for one in sites if one.tls and one.fingerprint]
    assert changed.after.keys() == case.files
    for path, after in changed.after.items():
        before = changed.before[path].decode().splitlines(keepends=True)
        pairs = list(zip(before, after.decode().splitlines(keepends=True), strict=True))
        assert all("certrail/" in new for old, new in pairs if old != new)
        assert any(old != new for old, new in pairs)


def test_a_connector_of_an_old_tomcat_says_what_to_write(hosts: dict[str, Host]) -> None:
    """What is not edited is refused with the lines that a person would change."""
    (found,) = [one for one in discover(hosts["debian"]) if one.kind == "tomcat"]
    target = open_target(hosts["debian"], found.settings)
    assert found.settings["config"] == "/etc/tomcat9/server.xml"

    with pytest.raises(InvalidRequest, match=r"/etc/tomcat9/server\.xml:3") as caught:
        list(target.sites())

    assert '<Certificate certificateKeystoreFile="conf/www.jks"' in caught.value.remedy
