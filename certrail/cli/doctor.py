"""``certrail doctor``: is everything as it has to be?"""

from __future__ import annotations

import click

from certrail.cli._checks import Finding, Verdict, examine
from certrail.cli._errors import DONE, FAILED, NOT_REACHABLE
from certrail.cli._output import echo_json, examples

_MARKS = {
    Verdict.OK: ("ok", "green"),
    Verdict.WARNING: ("warning", "yellow"),
    Verdict.FAILED: ("failed", "red"),
}


@click.command(epilog=examples("certrail doctor", "certrail doctor --json"))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of findings.")
def doctor(as_json: bool) -> int:
    """Check versions, database, server, pools, key and connectors.

    Each finding comes with its remedy. Exit code 0: nothing failed; 1:
    something did; 3: something does not answer at all.
    """
    findings: list[Finding] = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        echo_json([finding.to_json() for finding in findings])
    if any(finding.unreachable for finding in findings):
        return NOT_REACHABLE
    return FAILED if any(f.status is Verdict.FAILED for f in findings) else DONE


def _print(finding: Finding) -> None:
    text, colour = _MARKS[finding.status]
    click.echo(f"{click.style(f'{text:8}', fg=colour)} {finding.check}: {finding.message}")
    if finding.remedy:
        click.echo(f"{'':8} remedy: {finding.remedy}")
