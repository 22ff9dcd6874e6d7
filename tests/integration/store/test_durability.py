"""Which commits wait for the disk."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url, text

from certrail.store.database import engine, statement, transaction


def test_only_what_is_found_out_again_does_not_wait(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session's own options are kept."""
    url = make_url(database_url).update_query_dict({"options": "-c work_mem=5MB"})
    monkeypatch.setenv("CERTRAIL_DATABASE_URL", url.render_as_string(hide_password=False))
    asked = text("select current_setting('synchronous_commit'), current_setting('work_mem')")
    found = []

    for context in (transaction(), statement(), statement(durable=False)):
        with context as connection:
            found.append(tuple(connection.execute(asked).one()))

    assert found == [("on", "5MB"), ("on", "5MB"), ("off", "5MB")]
    engine().dispose()
    engine("AUTOCOMMIT").dispose()
    engine("AUTOCOMMIT", durable=False).dispose()
