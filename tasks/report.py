"""The dashboard and the saved reports as Prefect artifacts and as files."""

from __future__ import annotations

import os
import re
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE

from certrail import settings
from certrail.cli import _prefect_reports
from certrail.reports import dashboard as boards
from certrail.reports import making, markdown, page
from certrail.reports.formats import text_of
from certrail.words import counted
from tasks._threads import in_thread

DASHBOARD_KEY = "dashboard"
"""The artifact's key: Prefect keeps its history under it."""

_ROWS = 100
_COLUMNS = 8


@task(
    name="Show the dashboard",
    task_run_name="Show the dashboard",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def show_dashboard() -> None:
    """Put the dashboard into Prefect's artifacts, and as a page into the data directory."""
    board = await in_thread(boards.build)
    await acreate_markdown_artifact(
        markdown.dashboard(board),
        key=DASHBOARD_KEY,
        description="What needs attention, what is coming and how it goes.",
    )
    path = _folder() / "dashboard.html"
    await in_thread(making.put, path, page.dashboard(board).encode())
    attention = sum(figure.count for figure in board.groups["needs_attention"])
    get_run_logger().info("needs attention: %d; page: %s", attention, path)


@task(
    name="Keep the schedules of saved reports",
    task_run_name="Keep the schedules of saved reports",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def keep_schedules() -> None:
    """Give every saved report with a schedule its deployment, where `report save` did not."""
    for what, number in (await in_thread(_prefect_reports.keep)).items():
        get_run_logger().info("schedules of saved reports, %s: %d", what, number)


@task(
    name="Make a report",
    task_run_name="Make a report",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def make_report(name: str) -> bool:
    """Make the saved report of that name now; False where another process just did."""
    ui_url = settings.adopt().ui_url
    one = await in_thread(making.make_now, name, _folder(), ui_url=ui_url)
    if one is None:
        return False
    columns = one.report.columns[:_COLUMNS]
    rows = counted(len(one.report.rows), "row")
    lines = markdown.table(
        [heading for _, heading in columns],
        ([text_of(row.get(key)) for key, _ in columns] for row in one.report.rows[:_ROWS]),
    )
    await acreate_markdown_artifact(
        "\n".join([f"{rows}, all in `{one.path}`.", "", *lines]),
        key="report-" + re.sub(r"[^a-z0-9]+", "-", one.name.lower()).strip("-"),
        description=one.report.title,
    )
    get_run_logger().info("report %s: %s in %s", one.name, rows, one.path)
    return True


def _folder() -> Path:
    kept = os.environ.get("CERTRAIL_DATA_DIR")
    return (Path(kept) if kept else settings.default_data_dir()) / making.FOLDER
