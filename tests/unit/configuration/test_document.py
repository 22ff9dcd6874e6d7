"""A configuration file is checked whole, and every complaint has its line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from certrail.cli._document import Wanted, check, check_references
from certrail.cli._prefect_blocks import BlockType, block_types
from certrail.cli._yaml import read
from certrail.configuration.profile import ProfileConfig
from certrail.errors import InvalidRequest

GOOD = """\
connectors:
  - name: le
    type: ca-acme
    directory_url: https://127.0.0.1:14000/dir
  - name: ns
    type: dns-rfc2136
    server: 127.0.0.1
    key_name: k.
    key_secret: c2VjcmV0
  - {name: web01, type: host-ssh, host: h, username: root, private_key_file: ./id, host_key: x}
profiles:
  - name: public-web
    workflow: web-server
    ca: le
    validation: {method: dns-01, dns: ns}
endpoints:
  - location: WWW.example.test:443
    names: [www.example.test]
    profile: public-web
    target: web01
    server: {kind: nginx, site: www.example.test}
"""

Check = Callable[..., Wanted]


@pytest.fixture(scope="module")
def types() -> Mapping[str, BlockType]:
    """Every type of connector."""
    return block_types()


@pytest.fixture
def load(types: Mapping[str, BlockType], tmp_path: Path) -> Check:
    """Read and check a file's text."""

    def load(text: str, **present: Any) -> Wanted:
        document = read(text, "f.yaml", {})
        wanted = check(document, types, tmp_path)
        check_references(
            document,
            wanted,
            connectors=present.get("connectors", {}),
            profiles=present.get("profiles", {}),
            types=types,
        )
        return wanted

    return load


def test_a_good_file_becomes_objects(load: Check, tmp_path: Path) -> None:
    """Names are lower case, paths absolute."""
    wanted = load(GOOD)

    assert [connector.name for connector in wanted.connectors] == ["le", "ns", "web01"]
    assert wanted.connectors[2].block.private_key_file == str(tmp_path / "id")
    assert wanted.endpoints[0].location == "www.example.test:443"
    assert "c2VjcmV0" not in repr(wanted)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("ca: le\n", "ca: lee\n", "f.yaml:14: profiles[0].ca: there is no connector 'lee'"),
        (
            "ca: le\n",
            "ca: ns\n",
            "f.yaml:14: profiles[0].ca: ns is a DNS provider, but a certificate authority",
        ),
        (
            "dns: ns}",
            "dns: le}",
            "f.yaml:15: profiles[0].validation.dns: le is a certificate authority",
        ),
        (
            "dns: ns}",
            "dns: nss}",
            "f.yaml:15: profiles[0].validation.dns: there is no connector 'nss'",
        ),
        ("dns: ns}", "dsn: ns}", "f.yaml:15: profiles[0].validation.dsn: unknown field 'dsn'"),
        (
            "method: dns-01, dns: ns",
            "method: dns-01",
            "f.yaml:15: profiles[0].validation: dns-01 needs `dns`",
        ),
        ("    ca: le\n", "", "f.yaml:12: profiles[0]: `ca` is missing"),
        (
            "workflow: web-server",
            "workflow: web",
            "f.yaml:13: profiles[0].workflow: Input should be",
        ),
        (
            "profile: public-web",
            "profile: public",
            "f.yaml:19: endpoints[0].profile: there is no profile 'public'",
        ),
        (
            "target: web01",
            "target: le",
            "f.yaml:20: endpoints[0].target: le is a certificate authority",
        ),
        ("target: web01", "target: web02", "did you mean 'web01'?"),
        (
            "kind: nginx",
            "kind: iis",
            "f.yaml:21: endpoints[0].server: unknown kind of server 'iis'",
        ),
        ("kind: nginx, site: www.example.test", "kind: nginx", "f.yaml:21: endpoints[0].server: "),
        ("kind: nginx,", "kind: nginx, sit: x,", "f.yaml:21: endpoints[0].server: "),
        ("WWW.example.test:443", "www.example.test", "f.yaml:17: endpoints[0].location: "),
        (
            "names: [www.example.test]",
            "names: [w w]",
            "f.yaml:18: endpoints[0].names: not a DNS name",
        ),
        (
            "type: ca-acme",
            "type: ca-acm",
            "unknown type of connector 'ca-acm'; did you mean 'ca-acme'?",
        ),
        (
            "directory_url:",
            "directoryurl:",
            "unknown ca-acme field 'directoryurl'; did you mean 'directory_url'?",
        ),
        ("directory_url: https:", "directory_url: ftp:", "f.yaml:4: connectors[0].directory_url: "),
        ("    key_name: k.\n", "", "f.yaml:5: connectors[1]: `key_name` is missing"),
        (
            "name: ns\n",
            "name: le\n",
            "f.yaml:5: connectors[1].name: le is in connectors[0] already",
        ),
        ("name: le\n", "name: Le_1\n", "f.yaml:2: connectors[0].name: "),
        (
            "profiles:",
            "profile:",
            "f.yaml:11: profile: unknown field 'profile'; did you mean 'profiles'?",
        ),
        ("key_secret: c2VjcmV0", "key_secret: 5", "f.yaml:9: connectors[1].key_secret: "),
    ],
)
def test_one_mistake_is_told_with_line_and_field(
    before: str, after: str, told: str, load: Check
) -> None:
    """Nothing is applied of a file with a mistake, so it must be found at once."""
    assert before in GOOD
    with pytest.raises(InvalidRequest) as caught:
        load(GOOD.replace(before, after, 1))

    assert told in str(caught.value)


def test_all_mistakes_are_told_at_once(load: Check) -> None:
    """Nobody wants to run into them one by one."""
    text = GOOD.replace("workflow: web-server", "workflow: x").replace("names: [", "nams: [")

    with pytest.raises(InvalidRequest) as caught:
        load(text)

    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["13", "18"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n", "a mapping with connectors, profiles, endpoints, notifications is expected"),
        ("connectors: x\n", "f.yaml:1: connectors: a list is expected"),
        ("connectors: [x]\n", "f.yaml:1: connectors[0]: a mapping is expected"),
        ("connectors: [{type: ca-acme}]\n", "`name` is missing"),
        (
            "endpoints:\n  - location: a.test:1\n  - location: A.test:1\n",
            "f.yaml:3: endpoints[1].location",
        ),
    ],
)
def test_other_shapes_are_refused(text: str, told: str, load: Check) -> None:
    """Whatever the file is, the answer is a line and a field."""
    with pytest.raises(InvalidRequest) as caught:
        load(text)

    assert told in str(caught.value)


def test_names_may_be_those_of_the_inventory(load: Check) -> None:
    """A file may hold endpoints alone; connectors and profiles were applied before."""
    profile = ProfileConfig.model_validate({"name": "p", "workflow": "web-server", "ca": "le"})
    server = "{kind: nginx, site: a.test}"
    endpoint = f"endpoints: [{{location: a.test:443, profile: p, target: h, server: {server}}}]"

    wanted = load(
        endpoint, connectors={"le": "ca-acme", "h": "host-local"}, profiles={"p": profile}
    )

    assert wanted.endpoints[0].target == "h"


def test_a_connector_does_not_change_its_type(load: Check) -> None:
    """Requests that run hold the connector by type and name."""
    with pytest.raises(InvalidRequest, match="is a ca-acme already"):
        load("connectors: [{name: h, type: host-local}]", connectors={"h": "ca-acme"})


def pem(*, days: int) -> str:
    """Return a self-signed certificate that ends in *days*."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a root")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(7)
    builder = builder.not_valid_before(now - timedelta(days=400))
    builder = builder.not_valid_after(now + timedelta(days=days))
    signed = builder.sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def test_trust_is_read_beside_the_file(load: Check, tmp_path: Path) -> None:
    """A worker on another machine cannot read our paths, so the text is stored."""
    (tmp_path / "roots.pem").write_text(f"# our root\n{pem(days=9)}")

    wanted = load(GOOD.replace("    ca: le\n", "    ca: le\n    trust: ./roots.pem\n"))
    bundle = load(GOOD.replace("/dir\n", "/dir\n    ca_bundle: roots.pem\n"))

    assert (wanted.profiles[0].trust_pem or "").startswith("-----BEGIN CERTIFICATE-----")
    assert bundle.connectors[0].block.ca_bundle.startswith("-----BEGIN CERTIFICATE-----")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot read"),
        ("nothing", "holds no certificate in PEM"),
        ("-----BEGIN EC PRIVATE KEY-----", "holds a private key"),
        ("expired", "expired on"),
    ],
)
def test_trust_that_cannot_work_is_refused(
    content: str | None, told: str, load: Check, tmp_path: Path
) -> None:
    """An expired root would make every test fail after everything was installed."""
    if content is not None:
        (tmp_path / "roots.pem").write_text(pem(days=-1) if content == "expired" else content)

    with pytest.raises(InvalidRequest, match=told) as caught:
        load(GOOD.replace("    ca: le\n", "    ca: le\n    trust: ./roots.pem\n"))

    assert "f.yaml:15: profiles[0].trust: " in str(caught.value)
