"""Pebble and its challenge responder, as Debian packages them.

    with challenge_server(folder) as answers, pebble(folder, answers=answers) as ca:
        ca.directory_url, ca.ca_bundle      # what an ACME client needs
        answers.set_txt("_acme-challenge.a.test", value)

Pebble keeps everything in memory and makes a new root at every start, so
:meth:`Pebble.restart` is "the CA lost all accounts, orders and its root".
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support.process import accepts, binary, free_port, running

EAB_KEYS: Mapping[str, str] = {
    "kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W",
    "kid-2": "b10lLJs8l1GPIzsLP0s6pMt8O0XVGnfTaCeROxQM0BIt2XrJMDHJZBM5NuQmQJQH",
}
"""Key ids and HMAC keys (base64url) for ``pebble(eab_keys=EAB_KEYS)``."""


ALONE = "/list-orderz/"
"""Calls that Pebble 2.4 must get while it has no others, or it stops for good: who lists orders
waits for one of them, whoever asks for its authorization for who is adding an order, and that one
for the end of the list."""


@dataclass(frozen=True)
class ChallengeServer:
    """A running ``pebble-challtestsrv``: a DNS server and an http-01 server told what to answer.

    Attributes:
        dns: ``127.0.0.1:port`` of the DNS server, for ``pebble(dns=...)`` or Caddy's ``resolvers``.
        http_port: where http-01 is answered.
        tls_port: where tls-alpn-01 is answered.
        management_url: its control interface, without a trailing slash.
    """

    dns: str
    http_port: int
    tls_port: int
    management_url: str

    def set_txt(self, fqdn: str, value: str) -> None:
        """Add a TXT value; other values at the name stay."""
        self._post("set-txt", host=_absolute(fqdn), value=value)

    def clear_txt(self, fqdn: str) -> None:
        """Remove every TXT value at the name."""
        self._post("clear-txt", host=_absolute(fqdn))

    def set_cname(self, fqdn: str, target: str) -> None:
        """Make *fqdn* an alias, as for delegated challenge zones."""
        self._post("set-cname", host=_absolute(fqdn), target=_absolute(target))

    def set_a(self, fqdn: str, addresses: Sequence[str]) -> None:
        """Answer A queries for *fqdn* with *addresses* (every other name is at 127.0.0.1)."""
        self._post("add-a", host=_absolute(fqdn), addresses=list(addresses))

    def set_servfail(self, fqdn: str) -> None:
        """Answer every query for *fqdn* with SERVFAIL."""
        self._post("set-servfail", host=_absolute(fqdn))

    def clear_servfail(self, fqdn: str) -> None:
        """Undo :meth:`set_servfail`."""
        self._post("clear-servfail", host=_absolute(fqdn))

    def set_http01(self, token: str, content: str) -> None:
        """Serve *content* as the http-01 proof for *token*, whatever the host name."""
        self._post("add-http01", token=token, content=content)

    def clear_http01(self, token: str) -> None:
        """Stop serving the proof for *token*."""
        self._post("del-http01", token=token)

    def _post(self, action: str, **fields: Any) -> None:
        body = json.dumps(fields).encode()
        with urllib.request.urlopen(f"{self.management_url}/{action}", body, timeout=10) as reply:
            reply.read()


@contextmanager
def challenge_server(folder: Path) -> Iterator[ChallengeServer]:
    """Run ``pebble-challtestsrv`` on free ports; its log goes to *folder*."""
    dns, http, tls, management = free_port(), free_port(), free_port(), free_port()
    argv = [
        binary("pebble-challtestsrv", "pebble"),
        *("-dns01", f"127.0.0.1:{dns}"),
        *("-http01", f"127.0.0.1:{http}"),
        *("-https01", ""),
        *("-tlsalpn01", f"127.0.0.1:{tls}"),
        *("-management", f"127.0.0.1:{management}"),
        *("-defaultIPv6", ""),  # else it answers ::1 for AAAA, where nothing listens
    ]
    with running(
        argv,
        log=folder / "challtestsrv.log",
        ready=lambda: all(accepts(port) for port in (dns, http, management)),
    ):
        yield ChallengeServer(
            dns=f"127.0.0.1:{dns}",
            http_port=http,
            tls_port=tls,
            management_url=f"http://127.0.0.1:{management}",
        )


@dataclass
class Pebble:
    """A running Pebble.

    Attributes:
        directory_url: of the ACME directory, https.
        ca_bundle: PEM file that the directory's own TLS certificate chains to.
        management_url: its control interface, https, same trust, no trailing slash.
        log: its log file; grows across restarts.
    """

    directory_url: str
    ca_bundle: Path
    management_url: str
    log: Path
    _argv: Sequence[str]
    _env: Mapping[str, str]
    _port: int
    _context: ssl.SSLContext
    _process: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Start it; every start is a new CA with a new root and no accounts."""
        self._process.enter_context(
            running(self._argv, log=self.log, port=self._port, env=self._env)
        )

    def stop(self) -> None:
        """Stop it; the ports stay known for :meth:`start`."""
        self._process.close()

    def restart(self) -> None:
        """Stop and start on the same ports: accounts, orders, nonces and root are gone."""
        self.stop()
        self.start()

    def roots(self) -> list[str]:
        """Return the roots in PEM: the default chain's first, then those of alternate chains."""
        found: list[str] = []
        while (pem := self._get(f"roots/{len(found)}")) is not None:
            found.append(pem)
        return found

    def expired_root(self) -> str:
        """Return the root of :meth:`roots` as it would be had it expired a day ago, in PEM."""
        pem, key_pem = self._get("roots/0"), self._get("root-keys/0")
        assert pem is not None
        assert key_pem is not None
        root = x509.load_pem_x509_certificate(pem.encode())
        key = serialization.load_pem_private_key(key_pem.encode(), None)
        assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(root.issuer, root.subject, root.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=400))
            .not_valid_after(now - timedelta(days=1))
        )
        for one in root.extensions:
            builder = builder.add_extension(one.value, one.critical)
        signed = builder.sign(key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()

    def root_names(self) -> list[str]:
        """Return the common name of every root, in the order of :meth:`roots`."""
        name = x509.NameOID.COMMON_NAME
        return [
            str(certificate.subject.get_attributes_for_oid(name)[0].value)
            for pem in self.roots()
            for certificate in x509.load_pem_x509_certificates(pem.encode())
        ]

    def write_roots(self, path: Path) -> Path:
        """Write all roots into *path*, a trust file for clients of issued certificates."""
        path.write_text("".join(self.roots()))
        return path

    def certificate_status(self, serial: int) -> tuple[str, int | None]:
        """Return ``("Valid", None)`` or ``("Revoked", reason)`` of an issued certificate."""
        # Pebble finds a serial only in the form in which Go prints big integers.
        text = self._get(f"cert-status-by-serial/{serial:x}")
        assert text is not None, f"Pebble issued no certificate {serial:x}"
        state = json.loads(text)
        return str(state["Status"]), state.get("Reason")

    def order_count(self) -> int:
        """Return how many orders were ever made (all starts together)."""
        return self._logged("Added order ")

    def account_count(self) -> int:
        """Return how many accounts were ever made (all starts together)."""
        return self._logged("accounts in memory")

    def certificate_count(self) -> int:
        """Return how many certificates were ever issued (all starts together)."""
        return self._logged("Issued certificate serial ")

    def _logged(self, words: str) -> int:
        return self.log.read_text(errors="replace").count(words)

    def _get(self, path: str) -> str | None:
        url = f"{self.management_url}/{path}"
        try:
            with urllib.request.urlopen(url, timeout=10, context=self._context) as reply:
                return str(reply.read().decode())
        except urllib.error.HTTPError as exc:
            with exc:
                if exc.code == 404:
                    return None
            raise


@contextmanager
def pebble(
    folder: Path,
    *,
    answers: ChallengeServer | None = None,
    dns: str | None = None,
    http_port: int | None = None,
    tls_port: int | None = None,
    nonce_reject: int = 5,
    authz_reuse: int = 50,
    eab_keys: Mapping[str, str] | None = None,
    validity_seconds: int | None = None,
    always_valid: bool = False,
    va_sleep: int = 0,
    strict: bool = True,
    alternate_roots: int = 0,
    chain_length: int = 1,
    blocklist: Sequence[str] = (),
    extra_env: Mapping[str, str] | None = None,
) -> Iterator[Pebble]:
    """Run Pebble on free ports with a TLS certificate of its own; files go to *folder*.

    Args:
        folder: where configuration, certificate and log are written.
        answers: a challenge server; gives *dns*, *http_port* and *tls_port* unless those are set.
        dns: ``host:port`` of the DNS server to ask (default: the system's).
        http_port: where http-01 validation connects to (a real nginx in some tests).
        tls_port: where tls-alpn-01 validation connects to.
        nonce_reject: percent of good nonces refused; Pebble's own default is 5.
        authz_reuse: percent of valid authorizations used again; Pebble's default is 50.
        eab_keys: key id to HMAC key (see ``EAB_KEYS``); external account binding is then required.
        validity_seconds: lifetime of certificates (default five years).
        always_valid: believe every challenge without looking.
        va_sleep: at most this many seconds are slept at random before a validation; 0 is none.
        strict: Pebble's ``-strict``.
        alternate_roots: how many alternate chains are offered.
        chain_length: number of intermediates.
        blocklist: domains refused with rejectedIdentifier.
        extra_env: more environment variables.
    """
    if answers is not None:
        dns, http_port = dns or answers.dns, http_port or answers.http_port
        tls_port = tls_port or answers.tls_port
    port, management = free_port(), free_port()
    certificate, key, bundle = _own_certificate(folder)
    config: dict[str, Any] = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(certificate),
        "privateKey": str(key),
        "httpPort": http_port or free_port(),
        "tlsPort": tls_port or free_port(),
        "ocspResponderURL": "",
        "externalAccountBindingRequired": eab_keys is not None,
        "externalAccountMACKeys": dict(eab_keys or {}),
        "domainBlocklist": list(blocklist),
    }
    if validity_seconds is not None:
        config["certificateValidityPeriod"] = validity_seconds
    path = folder / "pebble.json"
    path.write_text(json.dumps({"pebble": config}))
    argv = [binary("pebble", "pebble"), "-config", str(path)]
    argv += ["-dnsserver", dns] if dns else []
    argv += ["-strict"] if strict else []
    env = {
        "PEBBLE_WFE_NONCEREJECT": str(nonce_reject),
        "PEBBLE_AUTHZREUSE": str(authz_reuse),
        "PEBBLE_ALTERNATE_ROOTS": str(alternate_roots),
        "PEBBLE_CHAIN_LENGTH": str(chain_length),
        **({"PEBBLE_VA_SLEEPTIME": str(va_sleep)} if va_sleep else {"PEBBLE_VA_NOSLEEP": "1"}),
        **({"PEBBLE_VA_ALWAYS_VALID": "1"} if always_valid else {}),
        **(extra_env or {}),
    }
    ca = Pebble(
        directory_url=f"https://127.0.0.1:{port}/dir",
        ca_bundle=bundle,
        management_url=f"https://127.0.0.1:{management}",
        log=folder / "pebble.log",
        _argv=argv,
        _env=env,
        _port=port,
        _context=ssl.create_default_context(cafile=str(bundle)),
    )
    try:
        ca.start()
        yield ca
    finally:
        ca.stop()


def _own_certificate(folder: Path) -> tuple[Path, Path, Path]:
    """Make a TLS certificate for 127.0.0.1 and localhost; return certificate, key and trust."""
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1", "localhost")
    certificate, key = folder / "pebble-tls.pem", folder / "pebble-tls.key"
    bundle = folder / "pebble-tls-ca.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in own.cert_chain_pems))
    key.write_bytes(own.private_key_pem.bytes())
    authority.cert_pem.write_to_path(str(bundle))
    return certificate, key, bundle


def _absolute(fqdn: str) -> str:
    return fqdn.rstrip(".") + "."
