"""A delivery request: the certificate is stored where others fetch it."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from deployments.demo.scene import MAIL, Scene
from deployments.demo.screen import DemoError

_FILE = """\
profiles:
  - name: deliveries
    workflow: delivery
    ca: demo-ca
    validation: {{method: dns-01, dns: demo-dns}}
    key: {{algorithm: rsa-2048}}

endpoints:
  - location: web01/mail
    names: [{name}]
    profile: deliveries
    target: web01
    server: {{kind: directory, path: {path}}}
"""


def play(scene: Scene) -> None:
    """Deliver a certificate into a folder of the machine."""
    folder = scene.machine.folder.parent / "mail"
    path = scene.folder / "delivery.yaml"
    path.write_text(_FILE.format(name=MAIL, path=folder))
    scene.screen.chapter(
        "A delivery",
        "Nothing is installed here: the files are stored whole or not at all, and read back.",
    )
    scene.screen.file(path)
    scene.installation.certrail("apply", "-f", path.name)
    scene.installation.certrail("request", "start", "web01/mail", "--wait")
    _look(scene, folder)


def _look(scene: Scene, folder: Path) -> None:
    """Verify what was delivered, with nothing of ours."""
    try:
        chain = x509.load_pem_x509_certificates((folder / "fullchain.pem").read_bytes())
        root = x509.load_pem_x509_certificate(scene.ca.root.read_bytes())
        verifier = PolicyBuilder().store(Store([root])).build_server_verifier(x509.DNSName(MAIL))
        verifier.verify(chain[0], chain[1:])
    except (OSError, ValueError, x509.verification.VerificationError) as exc:
        raise DemoError(f"what was delivered to {folder} is not right: {exc}") from exc
    for file in sorted(folder.glob("*.pem")):
        scene.screen.proof(f"{file.stat().st_mode & 0o777:04o} {file}")
