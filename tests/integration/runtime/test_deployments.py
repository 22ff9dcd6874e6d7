"""Units, image and cluster files are checked by the tools that will read them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.own_environment import own_environment
from tests.support.process import binary
from tests.support.stack import ROOT

DEPLOYMENTS = ROOT / "deployments"


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """A directive with a typo is ignored silently, and the service runs without it."""
    names = ["certrail.service", "certrail-worker@.service"]
    for name in names:
        text = (DEPLOYMENTS / "systemd" / name).read_text()
        assert "EnvironmentFile=/etc/certrail/" in text
        # The program is not installed here; everything else is as it is delivered.
        text = text.replace("/opt/certrail/bin/certrail", "/bin/true")
        (tmp_path / name).write_text(
            text.replace("Documentation=file:/opt", "Documentation=file:/")
        )
    instance = tmp_path / "certrail-worker@web01.service"
    shutil.copy(tmp_path / names[1], instance)

    said = run(
        binary("systemd-analyze", "systemd"),
        "verify",
        str(tmp_path / names[0]),
        str(instance),
    )

    assert said == ""


def test_every_setting_of_the_environment_files_is_known() -> None:
    """A variable that nothing reads looks as if it had been set."""
    known = (ROOT / "docs" / "operations.md").read_text()
    for path in (DEPLOYMENTS / "systemd").glob("*.env"):
        for line in path.read_text().splitlines():
            name = line.lstrip("#").partition("=")[0]
            if name.startswith("CERTRAIL_") and name != "CERTRAIL_POOL":
                assert f"`{name}`" in known, f"{path.name}: {name}"


def test_kubernetes_takes_the_manifests() -> None:
    """Strictly: an unknown field is an error, as in the API server's own validation."""
    tool = own_environment("deployments") / "bin" / "kubernetes-validate"

    for version in ("1.31", "1.34"):
        said = run(
            str(tool), "-k", version, "--strict", str(DEPLOYMENTS / "kubernetes/certrail.yaml")
        )
        assert said.count(" passed for resource ") == 5


def test_the_image_definition_is_sound() -> None:
    """What a linter of such files finds is found here rather than in a pipeline."""
    tool = own_environment("deployments") / "bin" / "hadolint"

    run(str(tool), str(DEPLOYMENTS / "container" / "Containerfile"))
    copied = (DEPLOYMENTS / "container" / "Containerfile").read_text()
    assert "--require-hashes -r requirements/base.txt" in copied
