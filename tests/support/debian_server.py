"""A Debian server with nginx, Apache, HAProxy and Postfix, each where its package puts it.

It lives in a mount and process namespace of its own: /etc/nginx and the other
folders are copies that nobody else sees, and only its own processes are there.
The network is shared, so the services listen on free ports of 127.0.0.1.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from certrail.model import Bundle
from tests.support.nginx import TestCa, store
from tests.support.process import accepts, binary, free_port, wait_for
from tests.support.sshd import Sshd, sshd
from tests.support.starttls_servers import home

NAMES = {
    "nginx": "scan-web.example.test",
    "apache": "scan-apache.example.test",
    "haproxy": "scan-proxy.example.test",
    "postfix": "scan-mail.example.test",
}
_OTHERS = (
    "/etc/caddy",
    "/etc/exim4",
    "/etc/lighttpd",
    "/etc/mysql",
    "/etc/postgresql",
    "/etc/tomcat10",
)
"""Servers that are on the machine of the tests, but not on this one."""
_FOLDERS = (
    "/etc/certrail",
    "/etc/nginx",
    "/etc/apache2",
    "/etc/haproxy",
    "/etc/postfix",
    "/etc/dovecot",
    *_OTHERS,
    "/run",
    "/var/log",
    "/var/lib/nginx",
    "/var/lib/postfix",
    "/var/spool/postfix",
)
_EMPTY = (
    *_OTHERS,
    "/etc/certrail",
    "/run",
    "/var/log",
    "/var/lib/nginx",
    "/var/lib/postfix",
    "/var/spool/postfix",
)
# Everything ends with this shell's child, which is the first process of the namespace.
_ENTRY = """\
set -e
root=$1; shift
for folder in {folders}; do mkdir -p "$folder"; mount --bind "$root$folder" "$folder"; done
mkdir -p /run/sshd /run/lock /run/apache2 /run/haproxy /var/log/nginx /var/log/apache2
nginx
apache2ctl -k start
haproxy -W -D -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid
postfix start
exec "$@"
"""
_NGINX = """\
# managed by the web team
server {{
    listen 127.0.0.1:{port} ssl;
    server_name scan-web.example.test;
    include snippets/own.conf;
    root /var/www/html;
}}
"""
_SNIPPET = """\
ssl_certificate /etc/nginx/old.pem;   # from last year
ssl_certificate_key /etc/nginx/old.key;
"""
_APACHE = """\
Define site scan-apache.example.test
<IfModule mod_ssl.c>
\t<VirtualHost 127.0.0.1:{port}>
\t\tServerName ${{site}}
\t\tErrorLog ${{APACHE_LOG_DIR}}/error.log
\t\tSSLEngine on
\t\tSSLCertificateFile\t/etc/apache2/old.pem
\t\tSSLCertificateKeyFile\t/etc/apache2/old.key
\t</VirtualHost>
</IfModule>
"""
_HAPROXY = """
frontend www
\tbind 127.0.0.1:{port} ssl crt /etc/haproxy/old.pem
\thttp-request return status 200 content-type text/plain string ok
"""
_POSTFIX = """
myhostname = scan-mail.example.test
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
maillog_file = /var/log/mail.log
smtpd_tls_cert_file=/etc/postfix/old.pem
smtpd_tls_key_file=/etc/postfix/old.key
smtpd_tls_security_level=may
"""


@dataclass
class DebianServer:
    """The server, running.

    Attributes:
        root: the files that are its own; ``root / "etc/nginx"`` is its /etc/nginx.
        ports: of the services by name.
    """

    root: Path
    ssh: Sshd
    ports: dict[str, int]
    old: dict[str, Bundle]

    def files(self) -> dict[str, bytes]:
        """Return the configuration files, without what is kept beside them."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in (self.root / "etc").rglob("*")
            if path.is_file() and not path.is_symlink() and "certrail" not in path.parts
        }

    def attributes(self) -> dict[str, tuple[int, int, int, str]]:
        """Return kind and permission bits, owner, group and target of everything below /etc."""
        found = {}
        for path in sorted((self.root / "etc").rglob("*")):
            if "certrail" not in path.parts:
                info = path.lstat()
                target = os.readlink(path) if path.is_symlink() else ""
                name = str(path.relative_to(self.root))
                found[name] = (info.st_mode, info.st_uid, info.st_gid, target)
        return found


@contextmanager
def debian_server() -> Iterator[DebianServer]:
    """Start it; needs root."""
    # nginx's and Postfix's processes drop to other accounts and have to reach their files.
    with home() as folder, _in(folder) as server:
        yield server


@contextmanager
def _in(folder: Path) -> Iterator[DebianServer]:
    ca = TestCa()
    root = folder / "root"
    ports = {name: free_port() for name in ("nginx", "apache", "haproxy", "postfix")}
    for name in _FOLDERS:
        target = root / name.lstrip("/")
        if name in _EMPTY:
            target.mkdir(parents=True)
        else:
            shutil.copytree(name, target, symlinks=True)
    shutil.chown(root / "var/lib/postfix", "postfix")
    old = {kind: ca.bundle(name) for kind, name in NAMES.items()}
    for kind, name in (("nginx", "nginx"), ("apache", "apache2"), ("postfix", "postfix")):
        store(root / "etc" / name / "old", old[kind])
    _write_nginx(root / "etc/nginx", ports["nginx"])
    _write_apache(root / "etc/apache2", ports["apache"])
    key = old["haproxy"].key
    assert key is not None
    (root / "etc/haproxy/old.pem").write_text(old["haproxy"].chain.text + key.reveal().decode())
    with (root / "etc/haproxy/haproxy.cfg").open("a") as file:
        file.write(_HAPROXY.format(port=ports["haproxy"]))
    _write_postfix(root / "etc/postfix", ports["postfix"])
    entry = folder / "entry.sh"
    entry.write_text(_ENTRY.format(folders=" ".join(_FOLDERS)))
    namespace = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    binary("unshare", "util-linux")
    with sshd(folder / "ssh", inside=[*namespace, "sh", str(entry), str(root)]) as ssh:
        for name, port in ports.items():
            wait_for(lambda port=port: accepts(port), f"{name} runs", within=60)  # type: ignore[misc]
        yield DebianServer(root, ssh, ports, old)


def _write_nginx(folder: Path, port: int) -> None:
    shutil.rmtree(folder / "sites-enabled")
    (folder / "sites-enabled").mkdir()
    (folder / "sites-available" / "web").write_text(_NGINX.format(port=port))
    (folder / "sites-enabled" / "web").symlink_to("/etc/nginx/sites-available/web")
    (folder / "snippets" / "own.conf").write_text(_SNIPPET)


def _write_apache(folder: Path, port: int) -> None:
    (folder / "ports.conf").write_text(
        f"<IfModule ssl_module>\n\tListen 127.0.0.1:{port}\n</IfModule>\n"
    )
    for link in (folder / "sites-enabled").iterdir():
        link.unlink()
    (folder / "sites-available" / "web.conf").write_text(_APACHE.format(port=port))
    (folder / "sites-enabled" / "web.conf").symlink_to("../sites-available/web.conf")
    for name in ("ssl.load", "ssl.conf", "socache_shmcb.load"):
        link = folder / "mods-enabled" / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"../mods-available/{name}")


def _write_postfix(folder: Path, port: int) -> None:
    # A name that stands twice is a warning, and postlogd, asked to log one of itself, waits
    # for itself when there are more than its socket holds.
    ours = {line.partition("=")[0].strip() for line in _POSTFIX.splitlines() if line}
    kept = [
        line
        for line in (folder / "main.cf").read_text().splitlines()
        if line.partition("=")[0].strip() not in ours
    ]
    (folder / "main.cf").write_text("\n".join(kept) + _POSTFIX)
    lines = []
    for line in (folder / "master.cf").read_text().splitlines():
        if line.startswith("smtp ") and "inet" in line:
            line = f"127.0.0.1:{port} inet n - n - - smtpd"
        # Not in a jail: its files would have to be copied there.
        words = line.split()
        if len(words) >= 8 and not line.startswith(("#", " ")) and words[4] == "y":
            line = " ".join([*words[:4], "n", *words[5:]])
        lines.append(line)
    (folder / "master.cf").write_text("\n".join(lines) + "\n")
