"""One certificate in several places: installed in each, tested in each, told as n of m.

The places are gone through one after the other. One that fails keeps none of
the others from being done, and a retry does only those that are left.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from certrail.configuration.plan import Plan
from certrail.connectors import InstallTarget
from certrail.errors import CertrailError
from certrail.model import Site
from certrail.steps import installation, testing
from certrail.steps.outcome import Outcome, Work
from certrail.store import places
from certrail.store.requests import Request
from certrail.tracker import Title

OpenPlace = Callable[[Plan], AbstractContextManager[tuple[InstallTarget, Site]]]


def is_installed(request: Request) -> bool:
    """Return whether an earlier run has installed it everywhere."""
    if request.staged is None or not request.plan.also_on:
        return request.staged is not None
    return places.count_installed(request.id) == len(request.plan.also_on) + 1


def install(work: Work, open_place: OpenPlace, title: Title) -> Outcome:
    """Install the request's certificate wherever it is wanted.

    Raises:
        CertrailError: it could not be installed in some place; where it could, it stays.
    """
    if not work.plan.also_on:
        return installation.install(work, lambda: open_place(work.plan))
    found = places.begin(work.request.id, _names(work.plan))
    total = len(found)
    done = [row for row in found if row.is_installed]
    failed: list[tuple[str, CertrailError]] = []
    told = [f"{row.name}: {row.detail}" for row in done]
    for row in found:
        if row.is_installed:
            continue
        places.tell_step(work.request.id, title, f"applied on {len(done)} of {total}")
        one = work.at(row.number, row.staged)
        try:
            outcome = installation.install(one, _opener(open_place, one.plan))
        except CertrailError as exc:
            failed.append((row.name, exc))
            places.tell(work.request.id, row.number, str(exc), is_installed=False)
            continue
        done.append(row)
        told.append(f"{row.name}: {outcome.detail}")
        places.tell(work.request.id, row.number, outcome.detail, is_installed=True)
    if failed:
        raise _told(f"applied on {len(done)} of {total}", failed)
    return Outcome.completed(f"applied on {total} of {total}: {'; '.join(told)}")


def test(work: Work, open_place: OpenPlace) -> Outcome:
    """Test every place; one that does not pass is put back, the others stay.

    Raises:
        CertrailError: some place did not pass.
    """
    if not work.plan.also_on:
        return testing.test_installation(work, lambda: open_place(work.plan))
    found = places.of_request(work.request.id)
    failed: list[tuple[str, CertrailError]] = []
    told = []
    for row in found:
        one = work.at(row.number, row.staged)
        try:
            outcome = testing.test_installation(one, _opener(open_place, one.plan))
        except CertrailError as exc:
            failed.append((row.name, exc))
            places.tell(work.request.id, row.number, str(exc), is_installed=False)
            continue
        told.append(f"{row.name}: {outcome.detail}")
    total = len(found)
    if failed:
        raise _told(f"passed on {total - len(failed)} of {total}", failed)
    return Outcome.completed(f"passed on {total} of {total}: {'; '.join(told)}")


def _names(plan: Plan) -> list[str]:
    targets = [plan.target, *(place.target for place in plan.also_on)]
    return [target.name if target else plan.location for target in targets]


def _opener(
    open_place: OpenPlace, plan: Plan
) -> Callable[[], AbstractContextManager[tuple[InstallTarget, Site]]]:
    return lambda: open_place(plan)


def _told(how_far: str, failed: list[tuple[str, CertrailError]]) -> CertrailError:
    """Return one error for all places: of a kind that another try can help, if one is."""
    first = next((exc for _, exc in failed if exc.retryable), failed[0][1])
    causes = "; ".join(f"{name}: {exc}" for name, exc in failed)
    return type(first)(f"{how_far}; {causes}", remedy=first.remedy)
