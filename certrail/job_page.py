"""What an operator needs to see of a bulk job in which endpoints failed, as one page of Markdown.

Both of Prefect's interfaces render it, with its links; the cells of a table they do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from certrail.request_page import shown
from certrail.store.job_results import Cause
from certrail.words import counted, quoted

_MOST = 200


@dataclass(frozen=True, slots=True)
class Failure:
    """One endpoint that failed.

    Attributes:
        url: the page of its run.
    """

    location: str
    url: str | None
    why: str


def page(
    job: str, url: str | None, message: str, causes: Sequence[Cause], failures: Sequence[Failure]
) -> str:
    """Return the page of a job's failures: each cause with its remedy, each endpoint with its run.

    Args:
        job: its name.
        url: the page of its run.
        message: how it ended.
        causes: the most frequent first.
        failures: in the job's order; none where a retry has let all through.
    """
    name = f"[{shown(job)}]({url})" if url else shown(job)
    heading = f"# Job {name}: {shown(message)}"
    if not failures:
        return f"{heading}\n\nNone of its endpoints is left that failed.\n"
    parts = [heading, *map(_cause, causes), _commands(job)]
    # A list, since one of the interfaces cuts the long lines of a table off.
    parts.append("\n".join(map(_line, failures[:_MOST])))
    if (left := len(failures) - _MOST) > 0:
        parts.append(f"And {counted(left, 'endpoint')} more: the last command lists all.")
    return "\n\n".join(parts) + "\n"


def _cause(cause: Cause) -> str:
    example = shown(cause.example) + (" for example" if cause.count > 1 else "")
    return (
        f"**{counted(cause.count, 'endpoint')} failed in {cause.step}, {example}:** "
        f"{shown(cause.message)}\n\n**What to do:** {shown(cause.remedy)}"
    )


def _commands(job: str) -> str:
    commands = [
        f"certrail job retry {quoted(job)} --wait",
        f"certrail endpoint list --job {quoted(job)} --status automation-failed",
    ]
    intro = "Once it is corrected; *Retry* on the page of the job does the same as the first line:"
    return "\n".join([intro, "", "```sh", *commands, "```"])


def _line(failure: Failure) -> str:
    location = shown(failure.location)
    linked = f"[{location}]({failure.url})" if failure.url else location
    return f"- {linked}: {shown(failure.why)}"
