"""Does Prefect show what the inventory has? For the end of bulk and chaos tests.

must_agree(installation, job="spring")
must_agree(installation, locations=["www.example.test:443"])
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from tests.support.stack import Stack


def must_agree(
    installation: Stack, *, job: str | None = None, locations: Sequence[str] = (), within: int = 60
) -> str:
    """Fail with every difference that does not pass by itself; returns what was compared.

    Flow run against request, task runs against steps: states, names, texts,
    labels, counts, nothing lost, doubled or left running. *within* (seconds) only
    bounds the wait where something differs: reconciliation may still be at work.
    """
    asked = ["--job", job] if job else []
    asked += [word for location in locations for word in ("--location", location)]
    done = installation.cli(
        "doctor", "--runs", *asked, "--settle", f"{within}s", "--json", within=within + 120
    )
    assert done.stdout, done.stderr
    findings = json.loads(done.stdout)
    wrong = [f"{one['check']}: {one['message']}" for one in findings if one["status"] != "ok"]
    assert not wrong, "\n".join(wrong)
    assert done.returncode == 0, done.stderr
    return str(findings[0]["message"])
