"""Many sites of one real server at once: one test, one reload, and nobody suffers for another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from benchmarks import one_host
from certrail.connectors import CommandResult
from certrail.model import Bundle, SubjectSpec
from certrail.private_key import PrivateKeyPem
from certrail.remote.local import LocalHost
from certrail.steps import installation
from certrail.steps.outcome import Work
from certrail.store import requests
from certrail.x509.csr import build_csr
from tests.support.apache import Apache
from tests.support.many_sites import Sites, apache, nginx
from tests.support.nginx import Nginx

NAMES = tuple(f"s{number}.example.test" for number in range(5))


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the library can catch it."""


class DyingHost(LocalHost):
    """A machine on which the process is killed once, when it reloads the server."""

    left = 1

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: timedelta | None = None
    ) -> CommandResult:
        if argv[-1] == "reload" and DyingHost.left:
            DyingHost.left -= 1
            raise Killed
        return super().run(argv, stdin=stdin, timeout=timeout)


@pytest.mark.parametrize("started", [nginx, apache])
def test_those_that_wait_share_one_reload(
    database_url: str,
    tmp_path: Path,
    started: Callable[[Path, Sequence[str]], AbstractContextManager[Sites]],
) -> None:
    """Each is staged, journalled and tested by itself all the same."""
    with started(tmp_path / "web", NAMES) as sites:
        for name in NAMES:
            sites.request(name)

        sites.install_at_once(NAMES)

        assert dict.fromkeys(NAMES, True) == sites.right, sites.told
        assert all(told.endswith("with 4 more") for told in sites.told.values())
        if isinstance(sites.web, Nginx):
            assert sites.web.error_log.count("(SIGHUP) received") == 1
        one = Work.of(requests.get(sites.made[NAMES[0]]))
        installation.undo(one, lambda: sites.open(one.plan))
        assert {NAMES[0]: False, **dict.fromkeys(NAMES[1:], True)} == sites.right


def test_the_benchmark_counts_what_it_says(database_url: str, tmp_path: Path) -> None:
    """Small, so that it is known to work; figures are for a quiet machine."""
    one_by_one, at_once, again, all_again = one_host.measure(tmp_path / "web", 4, 2)

    assert (one_by_one.sites, one_by_one.reloads, one_by_one.right) == (2, 2, 2)
    assert (at_once.sites, at_once.right) == (2, 2)
    assert (again.sites, again.reloads, again.right) == (2, 2, 2)
    assert (all_again.sites, all_again.right) == (4, 4)
    assert at_once.reloads + all_again.reloads <= 6


def test_only_the_wrong_one_fails(database_url: str, tmp_path: Path) -> None:
    """nginx refuses a key of 1024 bits: all is put back, then each goes by itself."""
    with nginx(tmp_path / "web", NAMES) as sites:
        old = sites.web.old.chain.fingerprint
        sites.request(NAMES[0])
        sites.request(NAMES[1], weak(sites.web, NAMES[1]))
        sites.request(NAMES[2])

        sites.install_at_once(NAMES[:3])

        assert {NAMES[0]: True, NAMES[1]: False, NAMES[2]: True} == sites.right
        assert old == sites.served(NAMES[1])
        assert "ActivationRefused" in sites.told[NAMES[1]]
        assert "key too small" in sites.told[NAMES[1]]
        assert sites.web.accepts_configuration()
        text = sites.web.config.read_text()
        assert text.count("/certrail/") == 4
        assert not list((tmp_path / "web").rglob(f"{NAMES[1]}/changes"))


def test_killed_in_the_middle_of_all(database_url: str, tmp_path: Path) -> None:
    """Whoever comes next undoes its own part and does it again."""
    with nginx(tmp_path / "web", NAMES) as sites:
        for name in NAMES[:3]:
            sites.request(name)
        sites.host = DyingHost

        sites.install_at_once(NAMES[:3])

        died = [name for name, told in sites.told.items() if told.startswith("Killed")]
        assert len(died) == 1
        sites.install(died[0])
        assert dict.fromkeys(NAMES[:3], True) == sites.right, sites.told


def weak(web: Nginx | Apache, name: str) -> Bundle:
    """Return a certificate whose key is too short for any OpenSSL of today."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    csr = build_csr(SubjectSpec((name,)), PrivateKeyPem(pem))
    return Bundle(web.ca.signed(csr, name), PrivateKeyPem(pem))
