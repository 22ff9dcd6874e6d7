"""The options by which commands choose endpoints, columns and order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from certrail.cli import _columns
from certrail.cli._times import Span
from certrail.errors import InvalidRequest
from certrail.store import views
from certrail.store.filters import Clause, Operator, render
from certrail.store.views import View
from certrail.tracker import Status

_F = TypeVar("_F", bound=Callable[..., Any])
_EVERY = "Several are joined by `and`."


def locations_in(path: Path) -> list[str]:
    """Read a file with one location a line; blank lines and those with # are skipped.

    Raises:
        InvalidRequest: it cannot be read, or names none.
    """
    try:
        # Windows puts a byte order mark before the first line.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidRequest(
            f"{path} cannot be read: {exc}", remedy="Give a text file with one location a line."
        ) from exc
    kept = (line.partition("#")[0].strip().lower() for line in lines)
    found = list(dict.fromkeys(line for line in kept if line))
    if not found:
        raise InvalidRequest(
            f"{path} names no endpoint",
            remedy="Give one location a line; what follows # is left out.",
        )
    return found


@dataclass(frozen=True, slots=True)
class Selection:
    """What the options say.

    Attributes:
        view: filters, order and columns, with those of ``--view`` in it.
        has_columns: whether columns were named, by an option or by the view.
    """

    view: View
    has_columns: bool

    @property
    def columns(self) -> list[str]:
        """What a table shows."""
        return list(self.view.columns or _columns.DEFAULT)


def selection_options(command: _F) -> _F:
    """Add the options; the command takes their values as ``**chosen`` for :func:`selected`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option(
        "--filter",
        "expressions",
        multiple=True,
        metavar="EXPR",
        help="Clauses like status=automation-failed, names~shop, days_left<30, tag=a,b, profile= "
        f"(empty), joined by `and`. {_EVERY}",
    ),
    click.option(
        "--status", type=click.Choice([s.value for s in Status]), help="Automation status."
    ),
    click.option("--job", help="Name of the bulk job of the last request."),
    click.option("--profile", help="Name of the profile."),
    click.option("--target", help="Name of the connector that reaches it."),
    click.option("--tag", multiple=True, help=f"A tag that it has. {_EVERY}"),
    click.option(
        "--expires-within", type=Span(), metavar="30d", help="Certificate ends until then."
    ),
    click.option("--columns", metavar="A,B,C", help="Exactly these columns."),
    click.option("--add-column", multiple=True, metavar="NAME", help="One column more."),
    click.option("--sort", metavar="COLUMN", help="Sort by it; -COLUMN for descending."),
    click.option("--view", metavar="NAME", help="Begin with a view: see `certrail view list`."),
)


def selected(
    *,
    expressions: Sequence[str],
    status: str | None,
    job: str | None,
    profile: str | None,
    target: str | None,
    tag: Sequence[str],
    expires_within: timedelta | None,
    columns: str | None,
    add_column: Sequence[str],
    sort: str | None,
    view: str | None,
    is_kept: bool = False,
) -> Selection:
    """Return what the options choose; each narrows what the view and the others leave.

    With *is_kept* it is asked again later, so it may not hold what is true only now.

    Raises:
        InvalidRequest: an expression or a column cannot be read, or a time cannot be kept.
        NotFound: there is no such view.
    """
    begin = views.get(view) if view else View()
    given = {"automation_status": status, "job_name": job, "profile": profile, "target": target}
    clauses = [
        Clause(name, Operator.EQUAL, (value,) if value else ())
        for name, value in given.items()
        if value is not None
    ]
    clauses += [Clause("tags", Operator.EQUAL, (one,)) for one in tag]
    if expires_within is not None:
        clauses.append(_ends_within(expires_within, is_kept=is_kept))
    names_columns = bool(columns or add_column or begin.columns)
    shown = _columns.chosen(columns, add_column, begin.columns or _columns.DEFAULT)
    whole = View(
        filters=(*begin.filters, *expressions, *(render(clause) for clause in clauses)),
        sort=_columns.sorting(sort) if sort else begin.sort,
        columns=tuple(shown) if names_columns else (),
        help=begin.help,
    )
    whole.clauses()
    return Selection(whole, has_columns=bool(columns or add_column))


def _ends_within(span: timedelta, *, is_kept: bool) -> Clause:
    if not span % timedelta(days=1):
        return Clause("days_left", Operator.LESS, (float(span.days),))
    if is_kept:
        raise InvalidRequest(
            "what is saved counts whole days until a certificate ends",
            remedy="Give --expires-within in days or weeks, like 1d.",
        )
    # Days that are left are whole ones, rounded down: they cannot tell the hours.
    return Clause("not_after", Operator.AT_MOST, (datetime.now(UTC) + span,))
