"""A whole delivery, from a configuration file to the files, through the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from certrail.x509.export import Format, Part, load
from tests.support.stack import Stack

PASSWORD = "correct horse battery"


def test_a_certificate_is_delivered_to_a_directory(installation: Stack, tmp_path: Path) -> None:
    """A host as target is all that a delivery into a directory needs."""
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    told = tmp_path / "told.json"
    server = {
        "kind": "directory",
        "path": str(tmp_path / "keystores"),
        "format": "jks",
        "password": f"file:{secret}",
        "key_mode": "0640",
        "after": ["sh", "-c", f"cat > {told}"],
    }
    file = _configuration(tmp_path, server)

    applied = installation.cli("apply", "-f", str(file))
    assert applied.returncode == 0, applied.stderr
    done = installation.cli("request", "start", "delivery-here/shop", "--wait")

    assert done.returncode == 0, done.stdout + done.stderr
    content = (tmp_path / "keystores" / "shop.delivery.test.jks").read_bytes()
    found = load({Part.STORE: content}, Format.JKS, password=PASSWORD).chain
    assert json.loads(told.read_text())["fingerprint"] == found.fingerprint
    assert PASSWORD not in done.stdout + done.stderr


def test_a_plain_password_is_refused_when_applied(installation: Stack, tmp_path: Path) -> None:
    """It would be stored in the clear, where everybody may read it."""
    server = {"kind": "directory", "path": "/x", "format": "jks", "password": PASSWORD}

    applied = installation.cli("apply", "-f", str(_configuration(tmp_path, server)))

    assert applied.returncode != 0
    assert "must be a reference" in applied.stderr
    assert PASSWORD not in applied.stdout + applied.stderr


def test_a_target_that_cannot_take_a_delivery_is_told(installation: Stack, tmp_path: Path) -> None:
    """A wrong connector must be named before anything is ordered for it."""
    file = _configuration(tmp_path, {"kind": "directory", "path": "/x"}, target="delivery-ca")

    applied = installation.cli("apply", "-f", str(file))

    assert applied.returncode != 0
    assert "delivery-ca" in applied.stderr


def _configuration(
    folder: Path, server: Mapping[str, object], target: str = "delivery-here"
) -> Path:
    path = folder / "delivery.yaml"
    whole = {
        "connectors": [
            {"name": "delivery-ca", "type": "ca-local", "ca_dir": str(folder / "ca")},
            {"name": "delivery-here", "type": "host-local"},
        ],
        "profiles": [{"name": "delivered", "workflow": "delivery", "ca": "delivery-ca"}],
        "endpoints": [
            {
                "location": "delivery-here/shop",
                "names": ["shop.delivery.test"],
                "profile": "delivered",
                "target": target,
                "server": server,
            }
        ],
    }
    path.write_text(yaml.safe_dump(whole))
    path.chmod(0o600)
    return path
