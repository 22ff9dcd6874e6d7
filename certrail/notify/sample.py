"""An invented event: for previews, and to try templates on before they are stored."""

from __future__ import annotations

from typing import Any

EVENT: dict[str, Any] = {
    "id": "00000000-0000-4000-8000-000000000000",
    "name": "certrail.request.failed",
    "slug": "automation-failed",
    "severity": "error",
    "title": "Automation failed",
    "needs": "Remove the cause, then retry; a retry makes no second order.",
    "location": "www.example.org:443",
    "occurred": "2027-01-31 02:14 UTC",
    "cause": "ns2.example.org still answers the old TXT record",
    "remedy": "Check zone transfers to ns2.example.org, then retry.",
    "detail": "ns2.example.org still answers the old TXT record",
    "facts": [
        {"name": "Workflow", "value": "web-server, renew"},
        {"name": "Step", "value": "2. Domain validated"},
        {"name": "Certificate served now", "value": "expires 2027-02-03 02:00 UTC, in 3 days"},
        {"name": "Since", "value": "2027-01-31 02:12 UTC"},
    ],
    "commands": [
        "certrail request show 4f1c2a9e",
        "certrail request retry 4f1c2a9e",
    ],
    "link": "http://127.0.0.1:4200/runs/flow-run/00000000-0000-4000-8000-000000000001",
    "days_left": 3,
    "share": "",
    "payload": {},
}

SAMPLE: dict[str, Any] = {
    **EVENT,
    "events": [EVENT],
    "count": 1,
    "summary": [{"title": EVENT["title"], "severity": EVENT["severity"], "count": 1}],
}
"""What a template gets."""
