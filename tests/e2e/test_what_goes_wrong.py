"""Each way a request can fail: a failed step that says why, nothing half done, the old pair live.

Every case is a configuration file as a user would write it, applied and run through
the command line against real servers.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives import serialization

from tests.support.dns_servers import PowerDns, powerdns
from tests.support.nginx import Nginx, TestCa
from tests.support.pebble import EAB_KEYS, Pebble, pebble
from tests.support.sshd import write_key
from tests.support.stack import Stack
from tests.support.world import SITE, World, world

NAMES = [
    "refused-name.example.test",
    "host-down.example.test",
    "host-key.example.test",
    "password.example.test",
    "propagation.example.test",
    "wrong-dns.example.test",
    "disk.example.test",
    "trust.example.test",
    "account.example.test",
    "no-validation.example.test",
    "expired-root.example.test",
    "wildcard.example.test",
]


@dataclass
class Trouble:
    """The world with things in it that do not work.

    Attributes:
        other_dns: authoritative for the same zone, but nobody's secondary.
        strict_ca: wants external account binding.
        broken: an nginx whose configuration was broken after its start.
        small: a folder on a file system without room.
    """

    world: World
    other_dns: PowerDns
    strict_ca: Pebble
    broken: Nginx
    small: Path
    folder: Path


@dataclass(frozen=True)
class Case:
    """What is changed, and what is to be seen then.

    Attributes:
        name: the site; the endpoint is ``<name>:443``.
        change: edits the configuration.
        step: title of the step that fails.
        cause: words of the cause.
        retryable: whether the step says that a retry helps.
        order_lives: whether the order can still yield a certificate afterwards.
        mended: whether the second configuration is without the trouble.
        wildcard: whether the certificate is for everything below the name, too.
        later: what happens in the database at *url* once the configuration is applied.
    """

    name: str
    change: Callable[[Trouble, dict[str, Any]], None]
    step: str
    cause: str
    retryable: bool
    order_lives: bool = True
    mended: bool = True
    wildcard: bool = False
    later: Callable[[Trouble, str], None] = lambda trouble, url: None


def host_down(trouble: Trouble, parts: dict[str, Any]) -> None:
    # Pinned by text, since the known hosts file knows the real port only.
    del parts["target"]["known_hosts_file"]
    parts["target"] |= {"port": 1, "host_key": trouble.world.ssh.host_key}


def host_key(trouble: Trouble, parts: dict[str, Any]) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    other = write_key(trouble.folder / "other_host", ed25519.Ed25519PrivateKey.generate())
    known = trouble.folder / "other_known_hosts"
    known.write_text(f"[127.0.0.1]:{trouble.world.ssh.port} {other}\n")
    parts["target"]["known_hosts_file"] = str(known)


def password(trouble: Trouble, parts: dict[str, Any]) -> None:
    del parts["target"]["private_key_file"]
    parts["target"]["password"] = "not the password"


def propagation(trouble: Trouble, parts: dict[str, Any]) -> None:
    parts["dns"]["nameservers"] = [trouble.other_dns.endpoint]
    parts["dns"]["propagation_timeout"] = 1


def wrong_dns(trouble: Trouble, parts: dict[str, Any]) -> None:
    parts["dns"]["url"] = trouble.other_dns.url
    parts["dns"]["api_key"] = trouble.other_dns.api_key
    parts["dns"]["nameservers"] = [trouble.other_dns.endpoint]


def disk(trouble: Trouble, parts: dict[str, Any]) -> None:
    parts["endpoint"]["server"]["directory"] = str(trouble.small / "certrail")


def trust(trouble: Trouble, parts: dict[str, Any]) -> None:
    stranger = trouble.folder / "stranger.pem"
    stranger.write_bytes(TestCa().root.public_bytes(serialization.Encoding.PEM))
    parts["profile"]["trust"] = str(stranger)


def account(trouble: Trouble, parts: dict[str, Any]) -> None:
    parts["ca"]["directory_url"] = trouble.strict_ca.directory_url
    parts["ca"]["ca_bundle"] = str(trouble.strict_ca.ca_bundle)


def no_validation(trouble: Trouble, parts: dict[str, Any]) -> None:
    del parts["profile"]["validation"]


def http_proof(trouble: Trouble, parts: dict[str, Any]) -> None:
    parts["profile"]["validation"] = {"method": "http-01", "webroot": str(trouble.folder)}


def root_expires(trouble: Trouble, url: str) -> None:
    """Let the profile's root be one that was good when it was applied, and is not any more."""
    root = trouble.world.ca.expired_root()
    with psycopg.connect(url) as connection:
        changed = connection.execute(
            "update profiles set settings = jsonb_set(settings, '{trust_pem}', to_jsonb(%s::text))"
            " where name = 'expired-root'",
            [root],
        )
        assert changed.rowcount == 1


def nothing(trouble: Trouble, parts: dict[str, Any]) -> None:
    return


CASES = [
    Case(NAMES[0], nothing, "Domain validated", "refused-name", False, mended=False),
    Case(NAMES[1], host_down, "Certificate installed", "127.0.0.1", retryable=True),
    Case(NAMES[2], host_key, "Certificate installed", "host key", retryable=False),
    Case(NAMES[3], password, "Certificate installed", "password", retryable=False),
    Case(NAMES[4], propagation, "Domain validated", "is not visible on", retryable=True),
    Case(NAMES[5], wrong_dns, "Domain validated", "refused the proof", False, order_lives=False),
    Case(NAMES[6], disk, "Certificate installed", "No space left", retryable=True),
    Case(NAMES[7], trust, "Testing installation", "put back", retryable=True),
    Case(NAMES[8], account, "ACME account created", "external", retryable=False),
    Case(NAMES[9], no_validation, "Domain validated", "no `validation`", retryable=False),
    Case(NAMES[10], nothing, "Testing installation", "expired on", True, later=root_expires),
    Case(NAMES[11], http_proof, "Domain validated", "does not offer http-01", False, wildcard=True),
]


@pytest.fixture(scope="module")
def trouble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trouble]:
    folder = tmp_path_factory.mktemp("trouble")
    with ExitStack() as stack:
        outside = stack.enter_context(
            world(folder / "world", NAMES, blocklist=["refused-name.example.test"])
        )
        for part in ("dns", "ca", "nginx", "files", "small"):
            (folder / part).mkdir()
        broken = stack.enter_context(
            Nginx.started(folder / "nginx", servers=SITE.format(name="broken.example.test"))
        )
        broken.config.write_text(broken.config.read_text().replace("events {", "evnts {", 1))
        small = folder / "small"
        mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "certrail-test", str(small)]
        subprocess.run(mount, check=True)
        stack.callback(subprocess.run, ["umount", str(small)], check=True)
        yield Trouble(
            world=outside,
            other_dns=stack.enter_context(powerdns(folder / "dns")),
            strict_ca=stack.enter_context(pebble(folder / "ca", eab_keys=EAB_KEYS)),
            broken=broken,
            small=small,
            folder=folder / "files",
        )


def parts_of(trouble: Trouble, case: Case, *, mended: bool) -> dict[str, list[Any]]:
    """Return the case's connectors, profile and endpoint, all of its own."""
    short = case.name.split(".")[0]
    ca, dns, target = trouble.world.connectors()
    parts: dict[str, Any] = {
        "ca": ca,
        "dns": dns,
        "target": target,
        "profile": trouble.world.profile(),
        "endpoint": trouble.world.endpoint(case.name),
    }
    for part in ("ca", "dns", "target"):
        parts[part]["name"] = f"{short}-{part}"
    parts["profile"] |= {
        "name": short,
        "ca": f"{short}-ca",
        "validation": {"method": "dns-01", "dns": f"{short}-dns", "timeout_seconds": 20},
    }
    parts["endpoint"] |= {"profile": short, "target": f"{short}-target"}
    if case.wildcard:
        parts["endpoint"]["names"] = [case.name, f"*.{case.name}"]
    if not mended:
        case.change(trouble, parts)
    return {
        "connectors": [parts["ca"], parts["dns"], parts["target"]],
        "profiles": [parts["profile"]],
        "endpoints": [parts["endpoint"]],
    }


def apply_all(installation: Stack, trouble: Trouble, *, mended: bool) -> None:
    whole: dict[str, list[Any]] = {"connectors": [], "profiles": [], "endpoints": []}
    for case in CASES:
        for kind, items in parts_of(trouble, case, mended=mended).items():
            whole[kind] += items
    name = "mended.yaml" if mended else "broken-parts.yaml"
    done = installation.cli("apply", "-f", str(trouble.world.write(name, whole)))
    assert done.returncode == 0, done.stderr
    for case in () if mended else CASES:
        case.later(trouble, installation.database_url)


def shown(installation: Stack, name: str) -> dict[str, Any]:
    done = installation.cli("request", "show", f"{name}:443", "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def for_each_case(act: Callable[[Case], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Do something for all cases at once; what fails must not hold up the others."""
    with ThreadPoolExecutor(len(CASES)) as pool:
        return dict(zip((case.name for case in CASES), pool.map(act, CASES), strict=True))


def left_behind(trouble: Trouble, name: str) -> dict[str, Any]:
    """Return what is to be seen outside: what serves, and what an attempt left in DNS."""
    servers = (trouble.world.dns, trouble.other_dns)
    return {
        "served": trouble.world.nginx.served(name),
        "records": [r for s in servers for r in s.records(f"_acme-challenge.{name}", "TXT")],
    }


def files_left(trouble: Trouble) -> list[Path]:
    """Return the files that attempts left; only once all are over, since they run together."""
    places = [p for p in trouble.world.nginx.directory.rglob("*") if ".certrail" in p.name]
    staged = trouble.world.nginx.directory.rglob("*example.test*")
    return [*places, *staged, *trouble.small.rglob("*")]


@pytest.fixture(scope="module")
def failed(installation: Stack, trouble: Trouble) -> dict[str, dict[str, Any]]:
    """What each case showed after its first run."""
    apply_all(installation, trouble, mended=False)

    def go(case: Case) -> dict[str, Any]:
        done = installation.cli("request", "start", f"{case.name}:443", "--wait")
        return {
            "exit": done.returncode,
            "said": done.stdout + done.stderr,
            "request": shown(installation, case.name),
            **left_behind(trouble, case.name),
        }

    seen = for_each_case(go)
    left = files_left(trouble)
    return {name: {**one, "files": left} for name, one in seen.items()}


@pytest.fixture(scope="module")
def retried(
    installation: Stack, trouble: Trouble, failed: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What each case showed after its cause was mended and it was retried."""
    apply_all(installation, trouble, mended=True)

    def go(case: Case) -> dict[str, Any]:
        request_id = failed[case.name]["request"]["request_id"]
        done = installation.cli("request", "retry", request_id, "--wait")
        return {
            "exit": done.returncode,
            "said": done.stdout + done.stderr,
            "request": shown(installation, case.name),
            **left_behind(trouble, case.name),
        }

    return for_each_case(go)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.split(".")[0])
def test_a_failed_step_says_why_and_changes_nothing(
    trouble: Trouble, failed: dict[str, dict[str, Any]], case: Case
) -> None:
    """Cause, remedy and retryable are what an operator acts on at night."""
    seen = failed[case.name]

    assert seen["exit"] == 1, seen["said"]
    assert seen["request"]["status"] == "automation-failed"
    steps = seen["request"]["steps"]
    (step,) = [step for step in steps if step["status"] == "failed"]
    assert case.step == step["title"]
    assert case.cause in step["cause"]
    assert step["remedy"]
    assert step["retryable"] is case.retryable
    assert {later["status"] for later in steps[step["number"] :]} <= {"pending"}
    assert seen["served"] == trouble.world.nginx.old.chain.fingerprint
    assert seen["records"] == []
    assert seen["files"] == []


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.mended], ids=lambda case: case.name.split(".")[0]
)
def test_a_retry_after_mending_goes_on_where_it_failed(
    installation: Stack,
    failed: dict[str, dict[str, Any]],
    retried: dict[str, dict[str, Any]],
    case: Case,
) -> None:
    """Nothing is ordered again unless the order itself had died."""
    before, after = failed[case.name]["request"], retried[case.name]["request"]

    assert retried[case.name]["exit"] == 0, retried[case.name]["said"]
    assert after["request_id"] == before["request_id"]
    assert after["status"] == "automation-successful"
    assert retried[case.name]["served"] == after["certificate"]["fingerprint"]
    assert retried[case.name]["records"] == []
    if before["certificate"]:
        assert after["certificate"]["fingerprint"] == before["certificate"]["fingerprint"]
    with psycopg.connect(installation.database_url) as connection:
        row = connection.execute(
            'select count(*) from orders where request_id = %s and "order" is not null',
            [after["request_id"]],
        ).fetchone()
    assert row == (1 if case.order_lives else 2,)


def test_a_configuration_that_was_broken_before_is_left_alone(
    installation: Stack, trouble: Trouble
) -> None:
    """Whoever broke it must find it as they left it, and the old certificate serving."""
    name = "broken.example.test"
    configuration = trouble.world.configuration(endpoints=[])
    configuration["endpoints"] = [
        trouble.world.endpoint(
            name,
            address=f"127.0.0.1:{trouble.broken.port}",
            server={**trouble.broken.server, "site": name},
        )
    ]
    file = trouble.world.write("broken.yaml", configuration)
    assert installation.cli("apply", "-f", str(file)).returncode == 0
    before = trouble.broken.config.read_bytes()

    done = installation.cli("request", "start", f"{name}:443", "--wait")

    assert done.returncode == 1
    request = shown(installation, name)
    step = request["steps"][3]
    assert step["status"] == "failed"
    assert "evnts" in step["cause"]
    assert trouble.broken.config.read_bytes() == before
    assert trouble.broken.served(name) == trouble.broken.old.chain.fingerprint


def test_a_call_for_an_unknown_endpoint_is_wrong(installation: Stack) -> None:
    """Exit code 2: nothing failed, the question was bad."""
    done = installation.cli("request", "start", "nobody.example.test:443")

    assert done.returncode == 2
    assert "nobody.example.test:443" in done.stderr
    assert "Traceback" not in done.stderr
