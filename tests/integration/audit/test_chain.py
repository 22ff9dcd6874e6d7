"""The audit trail refuses changes, and shows those that were made around it."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import IntegrityError

from certrail import audit_chain
from certrail.audit_chain import Anchor, Broken, Entry
from certrail.cli.commands import run
from certrail.store import audit
from certrail.store.database import engine, transaction
from certrail.store.schema import metadata

pytestmark = pytest.mark.usefixtures("database_url")

ODD = 'Zürich "quoted" \\ back\nline\ttab \x07 \x7f €😀'


@pytest.fixture
def trail(database_url: str) -> list[Entry]:
    """Five entries, with everything that is hard to write the same way twice."""
    details: list[dict[str, object]] = [
        {},
        {"zz": 1, "b": [1, 2.5, None, True], "aa": {"ü": ODD}},
        {"empty": [], "none": None, "list": [{"k": "v"}]},
        {"number": -12345678901234567890},
        {"text": ODD, "a": "x", "ab": "y", "é": "z"},
    ]
    for number, detail in enumerate(details):
        audit.note_now(f"me {ODD}", f"test.{number}", f"place {number}", detail)
    return list(audit.chain())


def unprotected(database_url: str, statement: str) -> None:
    """Change the table as its owner can: with the trigger switched off."""
    with psycopg.connect(database_url) as connection:
        connection.execute("alter table audit disable trigger user")
        connection.execute(statement)
        connection.execute("alter table audit enable trigger user")


def test_schema_and_migrations_agree() -> None:
    """What the code believes of the tables is what a fresh installation has."""
    with engine().connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_what_was_written_verifies(trail: list[Entry]) -> None:
    """The database and the verifier write every entry the same way."""
    findings, head = audit_chain.verify(trail)

    assert findings == []
    assert head == Anchor(5, trail[-1].hash) == audit.head()


def test_an_export_verifies_without_the_database(
    trail: list[Entry], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An auditor has a file and no access."""
    path = tmp_path / "audit.json"
    path.write_text(json.dumps([entry.to_json() for entry in trail]))
    assert run(["audit", "verify", "--file", str(path)]) == 0

    forged = [entry.to_json() for entry in trail]
    forged[2]["actor"] = "somebody else"
    path.write_text(json.dumps(forged))
    assert run(["audit", "verify", "--file", str(path)]) == 1
    assert "edited" in capsys.readouterr().out


@pytest.mark.parametrize(
    "statement",
    [
        "update audit set actor = 'nobody'",
        "update audit set detail = '{}', seq = seq, hash = hash where seq = 2",
        "update audit set seq = null, hash = null",
        "delete from audit where seq = 3",
        "truncate audit",
    ],
)
@pytest.mark.usefixtures("trail")
def test_entries_cannot_be_changed(statement: str) -> None:
    """Neither by us nor by a script that means well."""
    with pytest.raises(IntegrityError, match="append-only"), transaction() as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        ("update audit set actor = 'nobody' where seq = 2", {Broken.EDITED}),
        ("update audit set at = at + interval '1 second' where seq = 2", {Broken.EDITED}),
        ("update audit set detail = '{}' where seq = 5", {Broken.EDITED}),
        ("delete from audit where seq = 3", {Broken.MISSING}),
        ("delete from audit where seq in (2, 3)", {Broken.MISSING}),
        ("delete from audit where seq = 1", {Broken.MISSING}),
        (
            "update audit set seq = -seq where seq in (2, 3);"
            "update audit set seq = case seq when -2 then 3 else 2 end where seq < 0",
            {Broken.EDITED},
        ),
        ("delete from audit where seq >= 4", {Broken.CUT_OFF}),
        ("delete from audit", {Broken.CUT_OFF}),
        ("insert into audit (actor, action, object) values ('x', 'y', 'z')", {Broken.NOT_CHAINED}),
    ],
)
def test_changes_around_the_trigger_show(
    trail: list[Entry], database_url: str, statement: str, broken: set[Broken]
) -> None:
    """The owner of the table can switch triggers off, but not make the chain fit."""
    anchor = Anchor(5, trail[-1].hash)

    unprotected(database_url, statement)

    findings, _ = audit_chain.verify(audit.chain(), [anchor], unchained=audit.unchained())
    assert broken <= {finding.code for finding in findings}


def test_a_chain_written_anew_shows_against_an_anchor(trail: list[Entry]) -> None:
    """Whoever computes all hashes again has a whole chain, but another one."""
    anchor = Anchor(5, trail[-1].hash)
    forged, before = [], ""
    for entry in trail:
        changed = replace(entry, actor="nobody")
        changed = replace(changed, hash=audit_chain.entry_hash(changed, before))
        before = changed.hash
        forged.append(changed)

    assert audit_chain.verify(forged)[0] == []
    assert [f.code for f in audit_chain.verify(forged, [anchor])[0]] == [Broken.REWRITTEN]


def test_many_at_once_make_one_chain() -> None:
    """The order is that of the commits, and a rolled-back entry leaves no gap."""

    def begin_and_break(actor: str) -> None:
        with transaction() as connection:
            audit.note(connection, actor, "never", "committed")
            raise ZeroDivisionError

    def write(name: int) -> None:
        for number in range(10):
            audit.note_now(f"thread {name}", "test", str(number))
            with pytest.raises(ZeroDivisionError):
                begin_and_break(f"thread {name}")

    threads = [threading.Thread(target=write, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    findings, head = audit_chain.verify(audit.chain(), unchained=audit.unchained())
    assert findings == []
    assert head is not None
    assert head.seq == 60


def test_a_long_transaction_does_not_hold_up_others() -> None:
    """Applying a file saves blocks over the network while its entries wait to be committed."""
    with transaction() as slow:
        audit.note(slow, "slow", "test", "first written")
        audit.note_now("quick", "test", "first committed")

    assert [entry.actor for entry in audit.chain()] == ["quick", "slow"]
