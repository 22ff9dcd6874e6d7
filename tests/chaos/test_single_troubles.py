"""One trouble at a time, each at the worst moment of a request; then all that must hold.

As :mod:`tests.chaos.test_storms`, for what a connection cannot do by itself:
the CA changes its mind, the machine goes away, a disk is full.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import UUID

import psutil
import psycopg
import pytest

from tests.chaos.field import Field, Seen, the_field
from tests.chaos.invariants import must_be_settled, must_hold
from tests.chaos.leaks import must_not_leak
from tests.support import kill_points, stepped_clock
from tests.support.faulty_proxy import Fault
from tests.support.flow_runner import FlowRunner
from tests.support.installation import found_here
from tests.support.kill_points import KillPoint
from tests.support.process import accepts, binary, die_with_parent, wait_for
from tests.support.stack import Stack

_CASES = (
    "closed", "closing", "invalid", "expired", "lapsed", "revoked", "staged", "switched", "full",
    "nonces", "ahead", "behind", "halfway",
)  # fmt: skip
NAMES = {case: f"{case}.example.test" for case in _CASES}
ORDER_IS_GONE = json.dumps(
    {
        "type": "urn:ietf:params:acme:error:malformed",
        "detail": "Order expired",
        "status": 404,
    }
).encode()

NOT_READY = json.dumps(
    {
        "type": "urn:ietf:params:acme:error:orderNotReady",
        "detail": 'Order\'s status ("invalid") was not ready',
        "status": 403,
    }
).encode()
INVALID = json.dumps({"status": "invalid"}).encode()
SLOW_DOWN = json.dumps(
    {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "slow down", "status": 429}
).encode()


@pytest.fixture(scope="module")
def field(installation: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    kill_points.install(installation.database_url)
    with found_here(installation):
        folder = tmp_path_factory.mktemp("single")
        with small_disk(folder / "disk") as disk:
            changes = {NAMES["full"]: {"directory": str(disk / "certrail")}}
            with the_field(
                installation, folder, list(NAMES.values()), prefix="single", servers=changes
            ) as made:
                yield made
                must_be_settled(made)
                must_not_leak(made.stack, made.all_requests(), logs=[made.log])


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system that is nearly full."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        (folder / "filler").write_bytes(b"x" * 56 * 1024)
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def servers(field: Field) -> Iterator[ExitStack]:
    """Ends what was started again."""
    with ExitStack() as stack:
        yield stack


def through(
    field: Field,
    case: str,
    *,
    at: KillPoint | None = None,
    do: Callable[[], object] = lambda: None,
    repair: Callable[[], object] = lambda: None,
    away: bool = False,
) -> Seen:
    """Run a request that meets *do* at the row *at* of its journal, then all checks.

    *repair* is what an operator does before a retry. With *away* the server is
    gone for a moment: then a client may be refused, but never gets a wrong pair.
    """
    url = field.stack.database_url
    name = NAMES[case]

    def meanwhile() -> None:
        if at is not None:
            kill_points.wait_until_caught(url, at)
            do()
            held.close()

    with ExitStack() as held:
        if at is not None:
            held.enter_context(kill_points.armed(url, at))
        seen = field.storm([name], [], meanwhile=meanwhile, repair=repair)
    if away:
        visits = seen.visits[name]
        visits.failures[:] = [one for one in visits.failures if "Connection" not in one]
    must_hold(field, seen)
    return seen


def issued(seen: Seen) -> tuple[int, int]:
    """Return how many certificates were issued, and how many orders were made."""
    return seen.certificates, seen.orders


def test_the_account_was_closed_between_two_requests(field: Field) -> None:
    """The first step says so and what to do; nothing is ordered before that."""
    make_an_account(field)
    with acme(field) as ca:
        close_account(ca)

    seen = through(field, "closed", repair=lambda: forget(field))

    assert issued(seen) == (1, 1)
    (failure,) = seen.failures
    (step,) = failure["failed"]
    assert step[0] == "ACME account created"
    assert "forget-account" in step[2]


def test_the_account_is_closed_in_the_middle(field: Field) -> None:
    """Its order can be finalized by nobody; the retry makes another, under a new account."""

    def close() -> None:
        with acme(field) as ca:
            close_account(ca)

    seen = through(
        field,
        "closing",
        at=KillPoint("order.finalize", "intent"),
        do=close,
        repair=lambda: forget(field),
    )

    assert issued(seen) == (1, 2)
    assert [one["failed"][0][0] for one in seen.failures] == ["Certificate issued"]
    assert "forget-account" in seen.failures[0]["failed"][0][2]


def test_an_order_becomes_invalid(field: Field) -> None:
    """The record is gone when the CA looks: that order is over, and the retry makes another."""
    zone = f"_acme-challenge.{NAMES['invalid']}"

    def spoil() -> None:
        field.outside.dns.remove_records(zone, "TXT")

    seen = through(field, "invalid", at=KillPoint("challenge.respond", "intent"), do=spoil)

    assert issued(seen) == (1, 2)
    assert [one["failed"][0][0] for one in seen.failures] == ["Domain validated"]


@pytest.mark.parametrize(
    ("case", "finalize", "order", "words"),
    [
        pytest.param("expired", (404, ORDER_IS_GONE), (404, ORDER_IS_GONE), "", id="expired"),
        # As one that was still good for a moment when it was used again.
        pytest.param(
            "lapsed", (403, NOT_READY), (200, INVALID), "gave up on the order", id="lapsed"
        ),
    ],
)
def test_an_order_is_over_before_it_is_finalized(
    field: Field, case: str, finalize: tuple[int, bytes], order: tuple[int, bytes], words: str
) -> None:
    """It expired, or a validation lapsed: it is given up, and the retry makes another."""
    dead: set[str] = set()

    def over(method: str, path: str) -> tuple[int, bytes] | None:
        number = path.rpartition("/")[2]
        if method == "POST" and "/finalize-order/" in path and not dead:
            dead.add(number)
        if number not in dead:
            return None
        return finalize if "/finalize-order/" in path else order if "/my-order/" in path else None

    field.ca.instead = over
    try:
        seen = through(field, case)
    finally:
        field.ca.instead = lambda method, path: None

    assert dead
    assert issued(seen) == (1, 2)
    (failure,) = seen.failures
    (step,) = failure["failed"]
    assert step[0] == "Certificate issued"
    assert words in step[1]


def test_a_certificate_is_revoked_between_issue_and_installation(field: Field) -> None:
    """It is what was ordered; whether it is replaced is for the CA's renewal information to say."""
    from certrail.model import RevocationReason
    from certrail.store import certificates

    serials: list[int] = []

    def revoke() -> None:
        with psycopg.connect(field.stack.database_url) as connection:
            row = connection.execute(
                "select r.certificate_id from requests r join endpoints e on e.id = r.endpoint_id"
                " where e.location = %s order by r.created_at desc limit 1",
                [f"{NAMES['revoked']}:443"],
            ).fetchone()
        assert row is not None
        chain = certificates.get(UUID(str(row[0]))).chain
        with acme(field) as ca:
            ca.revoke(chain, RevocationReason.SUPERSEDED)  # type: ignore[attr-defined]
        serials.append(chain.leaf.serial_number)

    seen = through(field, "revoked", at=KillPoint("install.stage", "intent"), do=revoke)

    assert issued(seen) == (1, 1)
    assert field.outside.ca.certificate_status(serials[0])[0] == "Revoked"


@pytest.mark.parametrize(
    ("case", "point"),
    [
        ("staged", KillPoint("install.activate", "intent")),
        ("switched", KillPoint("install.activate", "outcome")),
    ],
)
def test_the_target_is_rebooted(
    field: Field, servers: ExitStack, case: str, point: KillPoint
) -> None:
    """Web server, sshd and every session are killed and started again; it comes up whole."""
    seen = through(field, case, at=point, do=lambda: reboot(field, servers), away=True)

    assert issued(seen) == (1, 1)


def test_the_connection_drops_between_two_files(field: Field) -> None:
    """The key is there and its certificate is not: nothing of it is used, and it is done again."""
    halves: list[Path] = []

    def is_half() -> bool:
        halves.extend(
            key
            for key in field.outside.nginx.directory.rglob("versions/*/privkey.pem")
            if NAMES["halfway"] in str(key) and not (key.parent / "fullchain.pem").exists()
        )
        return bool(halves)

    def wait_for_it() -> None:
        field.ssh.when = is_half

    seen = through(field, "halfway", at=KillPoint("install.stage", "intent"), do=wait_for_it)

    assert halves, "the connection did not drop there"
    assert seen.fired["ssh"] == 1
    assert issued(seen) == (1, 1)


def test_the_disk_of_the_target_is_full(field: Field) -> None:
    """The step says where; with room again the same certificate is installed."""
    disk = field.outside.folder.parent / "disk"
    filler = disk / "filler"
    seen = through(field, "full", repair=lambda: filler.unlink(missing_ok=True))

    assert issued(seen) == (1, 1)
    (failure,) = seen.failures
    assert "No space" in failure["failed"][0][1] or "space" in failure["failed"][0][1]
    assert str(disk) in failure["failed"][0][2]
    assert [one for one in disk.rglob("*") if ".certrail" in one.name] == []


def test_a_storm_of_stale_nonces(field: Field) -> None:
    """Every second answer refuses the nonce, for a while: nothing is ordered twice."""
    asked = 0

    def choose(method: str, path: str) -> Fault:
        nonlocal asked
        asked += method == "POST"
        return Fault.STALE_NONCE if method == "POST" and asked % 2 else Fault.NONE

    before, field.ca.choose = field.ca.choose, choose
    try:
        seen = through(field, "nonces")
    finally:
        field.ca.choose = before

    assert asked > 10
    assert issued(seen) == (1, 1)


@pytest.mark.parametrize(("case", "seconds"), [("ahead", 7200), ("behind", -7200)])
def test_the_clock_of_the_worker_is_stepped(
    field: Field, tmp_path: Path, case: str, seconds: int
) -> None:
    """By two hours, between order and CSR, and back before the retry: nothing waits for ever.

    Not even for the CA, which then asks to be left alone for two seconds. By a clock that is
    behind the certificate is not valid yet: the step says so, and nothing was changed.
    """
    clock = tmp_path / "clock"
    clock.write_text("0")
    asked = 0
    live: list[str] = []

    def slow_down(method: str, path: str) -> tuple[int, bytes, str] | None:
        nonlocal asked
        asked += "/finalize-order/" in path
        return (429, SLOW_DOWN, "2") if asked == 1 and "/finalize-order/" in path else None

    def step() -> None:
        clock.write_text(str(seconds))

    def right() -> None:
        live.append(field.outside.nginx.served(NAMES[case]))
        clock.write_text("0")

    environment = {**field.environment, stepped_clock.VARIABLE: str(clock)}
    usual, field.ca.instead = field.runner, slow_down
    with FlowRunner(environment, field.log) as field.runner:
        try:
            point = KillPoint("order.finalize", "intent")
            seen = through(field, case, at=point, do=step, repair=right)
        finally:
            field.runner, field.ca.instead = usual, lambda method, path: None

    # Once more for each nonce that Pebble refuses for no reason, as it does.
    assert asked >= 2, "it was not tried again"
    assert issued(seen) == (1, 1)
    told = [step for failure in seen.failures for step in failure["failed"]]
    if case == "ahead":
        assert told == []
        return
    ((title, cause, remedy, retryable),) = told
    assert title == "Certificate installed"
    assert "is not valid before" in cause
    assert "clock" in remedy
    assert not retryable
    assert live == [field.outside.nginx.old.chain.fingerprint]


def make_an_account(field: Field) -> None:
    """Let the CA know the connector."""
    with acme(field) as ca:
        ca.ensure_account()  # type: ignore[attr-defined]


@contextmanager
def acme(field: Field) -> Iterator[object]:
    """Open the field's CA with the account that is stored."""
    from blocks._base import ConnectorBlock
    from certrail.store import plans

    plan = plans.for_location(f"{NAMES['closed']}:443").plan
    with ConnectorBlock.named(plan.ca.reference).connect() as ca:  # type: ignore[attr-defined]
        yield ca


def close_account(ca: object) -> None:
    """Close the account, as a person with its key does."""
    account = ca.ensure_account()  # type: ignore[attr-defined]
    ca._post(account.url, b'{"status":"deactivated"}', "deactivate")  # type: ignore[attr-defined]


def forget(field: Field) -> None:
    """What the remedy says."""
    done = field.stack.cli("connector", "forget-account", "single-ca")
    assert done.returncode == 0, done.stderr


def reboot(field: Field, servers: ExitStack) -> None:
    """Kill nginx, sshd and all of their children, and start both again."""
    nginx, ssh = field.outside.nginx, field.outside.ssh
    config = ssh.log.parent / "sshd_config"
    starts = [
        (nginx.port, str(nginx.directory), nginx.argv()),
        (ssh.port, str(config), [binary("sshd", "openssh-server"), "-D", "-f", str(config)]),
    ]
    for port, mark, argv in starts:
        victims: list[psutil.Process] = []
        for first in psutil.process_iter(["name", "cmdline"]):
            # Of one that ends meanwhile, as those of other tests do, there is no command line.
            command = " ".join(first.info["cmdline"] or ())
            if first.info["name"] in ("nginx", "sshd") and mark in command:
                with suppress(psutil.NoSuchProcess):
                    victims += [first, *first.children(recursive=True)]
        assert victims
        for one in victims:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(victims, timeout=10)
        again = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        servers.callback(end, again)
        wait_for(lambda port=port: accepts(port), f"port {port} again")  # type: ignore[misc]


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop a server that a test started."""
    process.terminate()
    process.wait(20)
