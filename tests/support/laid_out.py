"""A machine whose /etc and /var/lib are those of a test, behind a real sshd.

What the machine itself has of servers is not there; accounts and libraries are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from certrail.connectors import Host
from tests.support.databases import NAME, write_pem
from tests.support.nginx import TestCa
from tests.support.process import binary
from tests.support.sshd import Account, over_ssh, sshd
from tests.support.starttls_servers import home

PEM = "/etc/pki/tls/private/www.pem"
"""A certificate for ``NAME`` with its key."""
_ENTER = """\
root=$1; shift
cp -a /etc/passwd /etc/group /etc/shadow /etc/shells /etc/nsswitch.conf \\
  /etc/ld.so.cache /etc/alternatives /etc/ssl /etc/ssh /etc/pam.d "$root/etc/" 2>/dev/null
echo nginx:x:990:990::/:/usr/sbin/nologin >>"$root/etc/passwd"
echo nginx:x:990: >>"$root/etc/group"
mount --bind "$root/etc" /etc
mount -t tmpfs tmpfs /var/lib
cp -a "$root/var/lib/." /var/lib/
exec "$@"
"""


@contextmanager
def laid_out(files: Mapping[str, str], folder: Path, name: str) -> Iterator[Host]:
    """Start a machine called *name* that has *files*, as root sees it; *folder* is for sshd."""
    unshare = [binary("unshare", "util-linux"), "--mount"]
    with home() as root:
        for path, text in files.items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        pem = root / PEM.removeprefix("/")
        pem.parent.mkdir(parents=True)
        write_pem(pem, TestCa().bundle(NAME), "root")
        script = root / "enter.sh"
        script.write_text(_ENTER)
        inside = [*unshare, "sh", str(script), str(root)]
        user = Account("root", "", Path("/root"))
        with sshd(folder, inside=inside) as server, over_ssh(server, user, name) as opened:
            yield opened
