"""One Pebble for all tests that need nothing special of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from certrail.acme.ca import AcmeCa
from certrail.model import ChallengeKind
from tests.support.acme_client import FileKeeper, Publisher
from tests.support.pebble import ChallengeServer, Pebble, challenge_server, pebble
from tests.support.scripted_acme import ScriptedAcme, scripted_acme

_NUMBERS = itertools.count(1)

Connect = Callable[..., AcmeCa]


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChallengeServer]:
    """A challenge server."""
    with challenge_server(tmp_path_factory.mktemp("answers")) as server:
        yield server


@pytest.fixture(scope="session")
def shared_pebble(
    tmp_path_factory: pytest.TempPathFactory, answers: ChallengeServer
) -> Iterator[Pebble]:
    """Pebble as it is by default: strict, 5 % of nonces refused, half of authorizations reused."""
    with pebble(
        tmp_path_factory.mktemp("pebble"), answers=answers, blocklist=["blocked.test"]
    ) as ca:
        yield ca


@pytest.fixture
def connect(tmp_path: Path) -> Connect:
    """Open a CA with an account of this test's own; every call is a new "process".

    Labels differ, so that no connection or directory is shared with an earlier
    test whose server had the same port.
    """
    label = f"test-{next(_NUMBERS)}"

    def open_ca(
        server: Pebble | None = None, *, url: str = "", account: str = "account", **settings: object
    ) -> AcmeCa:
        if server is not None:
            url, settings = server.directory_url, {"ca_bundle": str(server.ca_bundle), **settings}
        keeper = FileKeeper(tmp_path / account)
        return AcmeCa(url, keeper=keeper, label=label, **settings)  # type: ignore[arg-type]

    return open_ca


@pytest.fixture
def keeper(tmp_path: Path) -> FileKeeper:
    """The keeper that ``connect`` uses."""
    return FileKeeper(tmp_path / "account")


@pytest.fixture
def dns(answers: ChallengeServer) -> Publisher:
    """Publishes dns-01 proofs."""
    return Publisher(answers, ChallengeKind.DNS_01)


@pytest.fixture
def http(answers: ChallengeServer) -> Publisher:
    """Publishes http-01 proofs."""
    return Publisher(answers, ChallengeKind.HTTP_01)


@pytest.fixture
def name() -> str:
    """A DNS name that no other test uses."""
    return f"n{next(_NUMBERS)}.example.test"


@pytest.fixture
def scripted() -> Iterator[ScriptedAcme]:
    """A server that says what the test wants."""
    with scripted_acme() as server:
        yield server
