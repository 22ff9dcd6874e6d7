"""Views that people save, against a real PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import update

from certrail.errors import Conflict, InvalidRequest, NotFound
from certrail.store import inventory as query
from certrail.store import views
from certrail.store.database import transaction
from certrail.store.schema import views as table
from certrail.store.views import SYSTEM_VIEWS, View
from tests.integration.store.conftest import Inventory


def test_a_saved_view_selects_what_it_was_saved_with(inventory: Inventory) -> None:
    """A job that takes the view must begin for these endpoints and no others."""
    inventory.endpoint("a.test:443", tags=["shop"])
    inventory.endpoint("b.test:443", tags=["shop", "old"])
    inventory.endpoint("c.test:443")

    assert views.save("shop", View(("tag=shop", "tag!=old"), sort="-location"), "me")

    assert [location for _, location in query.locations(views.clauses("shop"))] == ["a.test:443"]
    assert views.get("shop").sort == "-location"


def test_saving_again_replaces(inventory: Inventory) -> None:
    """People correct their views under the same name."""
    views.save("v", View(("tag=a",), help="first"), "me")

    assert not views.save("v", View(("tag=b",), columns=("location", "tags")), "you")

    (kept,) = [one for one in views.every() if not one.is_system]
    assert kept.view == View(("tag=b",), columns=("location", "tags"))
    assert kept.saved_by == "you"


def test_system_views_come_first_and_stay(inventory: Inventory) -> None:
    """Dashboards and runbooks name them."""
    views.save("aaa", View(), "me")

    assert [one.name for one in views.every()] == [*SYSTEM_VIEWS, "aaa"]
    with pytest.raises(Conflict):
        views.save("failed", View(), "me")
    with pytest.raises(Conflict):
        views.remove("failed", "me")


def test_a_view_that_is_not_there_is_told_with_one_that_is_alike(inventory: Inventory) -> None:
    """Mostly it is a slip of the pen."""
    views.save("shop-web", View(), "me")

    with pytest.raises(NotFound) as caught:
        views.get("shop-wbe")

    assert "shop-web" in caught.value.remedy


def test_what_cannot_be_read_is_not_saved(inventory: Inventory) -> None:
    """A broken view would break the jobs and reports that use it, later and elsewhere."""
    for name, view in (("v", View(("nonsense",))), ("a b", View()), ("", View())):
        with pytest.raises(InvalidRequest):
            views.save(name, view, "me")

    assert all(one.is_system for one in views.every())


def test_deleting(inventory: Inventory) -> None:
    """It is gone, once."""
    views.save("v", View(), "me")

    views.remove("v", "me")

    with pytest.raises(NotFound):
        views.remove("v", "me")


def test_a_view_of_before_that_cannot_be_read_is_listed_and_deleted(
    inventory: Inventory, tmp_path: Path
) -> None:
    """It names a status that there never was; whoever saved it wants to see and correct it."""
    views.save("old", View(("tag=a",)), "me")
    with transaction() as connection:
        connection.execute(
            update(table).where(table.c.name == "old").values(filters=["status=failed"])
        )

    found = {one["name"]: one for one in json.loads(_view(tmp_path, "list", "--json"))}

    assert found["old"]["endpoints"] is None
    assert "no automation_status 'failed'" in found["old"]["problem"]
    assert found["failed"]["endpoints"] == 0
    assert "cannot be read" in _view(tmp_path, "list")
    with pytest.raises(InvalidRequest, match="did you mean automation-failed"):
        views.clauses("old")
    assert _view(tmp_path, "delete", "old") == "view old deleted\n"


def _view(data_dir: Path, *arguments: str) -> str:
    environment = {
        **os.environ,
        "CERTRAIL_DATA_DIR": str(data_dir),
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
    }
    program = Path(sys.executable).parent / "certrail"
    return subprocess.run(
        [program, "view", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
