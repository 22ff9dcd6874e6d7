"""A machine whose servers are laid out as Red Hat's packages lay them out, behind a real sshd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from certrail.connectors import Host
from certrail.servers.discovery import discover
from certrail.servers.nginx import NginxTarget
from certrail.servers.registry import open_target, site_of
from certrail.servers.target import FileTarget, wanted_of
from tests.support.databases import NAME
from tests.support.laid_out import PEM, laid_out
from tests.support.nginx import TestCa
from tests.unit.servers.test_apache_layouts import RED_HAT

_PLAIN = f"ssl_certificate {PEM};\n        ssl_certificate_key {PEM};\n"
FILES = {
    "etc/nginx/nginx.conf": """\
user nginx;
events { worker_connections 1024; }
include /usr/share/nginx/modules/*.conf;
http {
    include /etc/nginx/mime.types;
    include /etc/nginx/conf.d/*.conf;
    server {
        listen 80;
        listen [::]:80;
        server_name _;
        include /etc/nginx/default.d/*.conf;
    }
}
""",
    "etc/nginx/mime.types": "types {\n    text/html html;\n}\n",
    "etc/nginx/conf.d/www.conf": "server {\n    listen 443 ssl http2;\n    listen [::]:443 ssl;\n"
    f"    server_name {NAME};\n        {_PLAIN}}}\n",
    "etc/haproxy/haproxy.cfg": "global\n    log 127.0.0.1 local2\n    chroot /var/lib/haproxy\n"
    "    stats socket /var/lib/haproxy/stats\n    ssl-default-bind-ciphers PROFILE=SYSTEM\n"
    f"frontend main\n    bind *:5443 ssl crt {PEM}\n",
    "etc/postfix/main.cf": "compatibility_level = 2\ncommand_directory = /usr/sbin\n"
    f"daemon_directory = /usr/libexec/postfix\nmyhostname = {NAME}\n"
    f"smtpd_tls_cert_file = {PEM}\nsmtpd_tls_key_file = {PEM}\nsmtpd_tls_security_level = may\n",
    "etc/postfix/master.cf": "smtp      inet  n       -       n       -       -       smtpd\n",
    "etc/dovecot/dovecot.conf": "!include conf.d/*.conf\n!include_try local.conf\n",
    "etc/dovecot/conf.d/10-ssl.conf": "##\n## SSL settings\n##\nssl = required\n"
    f"ssl_cert = <{PEM}\nssl_key = <{PEM}\nssl_cipher_list = PROFILE=SYSTEM\n",
    "etc/lighttpd/lighttpd.conf": 'var.conf_dir = "/etc/lighttpd"\n'
    'include conf_dir + "/conf.d/mod.template"\n'
    'include "/etc/lighttpd/vhosts.d/*.conf"\nserver.document-root = "/var/www/lighttpd"\n',
    "etc/lighttpd/conf.d/mod.template": 'server.modules += ( "mod_openssl" )\n',
    "etc/lighttpd/vhosts.d/www.conf": '$SERVER["socket"] == "0.0.0.0:6443" {\n'
    f'  ssl.engine = "enable"\n  ssl.pemfile = "{PEM}"\n}}\n',
    "etc/exim/exim.conf": f"primary_hostname = {NAME}\ntls_certificate = {PEM}\nbegin acl\n",
    "etc/caddy/Caddyfile": "import Caddyfile.d/*.caddyfile\n",
    "etc/caddy/Caddyfile.d/www.caddyfile": f"{NAME}:7443 {{\n\ttls {PEM} {PEM}\n}}\n",
    "etc/my.cnf": "[client-server]\n\n!includedir /etc/my.cnf.d\n",
    "etc/my.cnf.d/mariadb-server.cnf": "[server]\n[mysqld]\ndatadir=/var/lib/mysql\n"
    f"socket=/var/lib/mysql/mysql.sock\nssl-cert={PEM}\nssl-key={PEM}\n[galera]\n",
    "etc/my.cnf.d/client.cnf": "[client]\n",
    "var/lib/pgsql/data/postgresql.conf": "max_connections = 100\nssl = on\n"
    f"ssl_cert_file = '{PEM}'\nssl_key_file = '{PEM}'\nport = 5432\n",
    "etc/tomcat/server.xml": '<Server port="8005">\n<Service name="Catalina">\n'
    '<Connector port="8443" SSLEnabled="true">\n<SSLHostConfig>\n'
    f'<Certificate certificateFile="{PEM}" type="EC" />\n'
    "</SSLHostConfig>\n</Connector>\n</Service>\n</Server>\n",
    **{
        f"etc/httpd/{name}": text.replace("@dir@", "/etc/httpd").replace(
            "/etc/pki/tls/certs/localhost.crt", PEM
        )
        for name, text in RED_HAT.items()
    },
}
CHANGED = {
    "nginx": "/etc/nginx/conf.d/www.conf",
    "haproxy": "/etc/haproxy/haproxy.cfg",
    "postfix": "/etc/postfix/main.cf",
    "dovecot": "/etc/dovecot/conf.d/10-ssl.conf",
    "lighttpd": "/etc/lighttpd/vhosts.d/www.conf",
    "caddy": "/etc/caddy/Caddyfile.d/www.caddyfile",
    "mariadb": "/etc/my.cnf.d/mariadb-server.cnf",
    "postgresql": "/var/lib/pgsql/data/postgresql.conf",
    "tomcat": "/etc/tomcat/server.xml",
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The machine, as root sees it."""
    with laid_out(FILES, tmp_path_factory.mktemp("sshd"), "rhel9") as opened:
        yield opened


def test_every_server_is_found(host: Host) -> None:
    """Where the packages put their configuration, without a process that tells."""
    found = [one for one in discover(host) if not one.running]

    assert {one.kind for one in found} == {*CHANGED, "exim", "apache"}
    configs = {one.kind: one.settings.get("config") for one in found}
    assert configs["postgresql"] == "/var/lib/pgsql/data/postgresql.conf"
    assert configs["tomcat"] == "/etc/tomcat/server.xml"


@pytest.mark.parametrize("kind", CHANGED)
def test_it_is_read_and_the_right_file_would_change(kind: str, host: Host) -> None:
    """The site is offered with what it has, and the lines that count are those that change."""
    (found,) = [one for one in discover(host) if one.kind == kind]
    target = open_target(host, found.settings)
    sites = list(target.sites())
    assert [one for one in sites if NAME in one.names and one.tls and one.fingerprint]

    site, bundle = site_of({"site": NAME}), TestCa().bundle(NAME)
    if isinstance(target, FileTarget):
        # Debian's programs would not accept what only Red Hat's OpenSSL knows (PROFILE=SYSTEM).
        plan = target.survey(site, wanted_of(bundle)).plan
    else:
        assert isinstance(target, NginxTarget)
        plan = target.plan(site, bundle)

    assert set(plan.after) == {CHANGED[kind]}
    assert "certrail/" in plan.diff()
