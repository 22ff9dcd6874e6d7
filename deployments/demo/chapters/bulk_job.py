"""A bulk job over twenty endpoints, one of which is broken."""

from __future__ import annotations

from typing import Any

import yaml

from deployments.demo.fleet import Fleet
from deployments.demo.scene import Scene

JOB = "fleet-enrolment"
_SHOWN = """\
connectors:
  - {{name: own-ca, type: ca-local, ca_dir: {ca_dir}}}
profiles:
  - {{name: fleet, workflow: web-server, ca: own-ca, trust: {root}}}
endpoints:                      # and so on, {count} in all
"""


def play(scene: Scene) -> None:
    """Plan it, run it, look at the one that failed, correct it, retry."""
    fleet = scene.fleet
    scene.screen.chapter(
        "A bulk job",
        f"{len(fleet.names)} endpoints with a CA of our own, three of them first as a canary. One",
        "is broken: it fails alone. More than 10 % failures would stop the rest.",
    )
    broken = fleet.names[12]
    path = scene.folder / "fleet.yaml"
    path.write_text(_file(fleet, broken))
    scene.installation.certrail("apply", "-f", path.name, quiet=True)
    chosen = ("--filter", "tag=fleet", "--canary", "3", "--max-failures", "10%")
    scene.installation.certrail("job", "start", JOB, *chosen, "--dry-run")
    scene.installation.certrail("job", "start", JOB, *chosen, "--wait")
    scene.installation.certrail("endpoint", "list", "--job", JOB, "--status", "automation-failed")
    scene.screen.note(f"{broken} is corrected; only that one runs again, with its certificate")
    path.write_text(_file(fleet, ""))
    scene.installation.certrail("apply", "-f", path.name, quiet=True)
    scene.installation.certrail("job", "retry", JOB, "--wait")
    scene.handshakes_with_the_fleet()


def _file(fleet: Fleet, broken: str) -> str:
    head = _SHOWN.format(ca_dir=fleet.ca_dir, root=fleet.root, count=len(fleet.names))
    whole = yaml.safe_load(head)
    whole["endpoints"] = [_endpoint(fleet, name, name == broken) for name in fleet.names]
    # As a target the machine over SSH would do as well; the fleet lies on this one.
    whole["connectors"].append({"name": "here", "type": "host-local"})
    text: str = yaml.safe_dump(whole, sort_keys=False)
    return text


def _endpoint(fleet: Fleet, name: str, is_broken: bool) -> dict[str, Any]:
    server: dict[str, Any] = {"kind": "command", "site": name, "directory": str(fleet.folder)}
    if is_broken:
        server["test"] = ["sh", "-c", "echo 'unknown directive in line 7' >&2; exit 1"]
    return {
        "location": f"{name}:443",
        "address": f"127.0.0.1:{fleet.port}",
        "names": [name],
        "profile": "fleet",
        "target": "here",
        "server": server,
        "tags": ["fleet"],
    }
