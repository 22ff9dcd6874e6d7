"""One web-server request, from the account at the CA to the verified handshake."""

from __future__ import annotations

from deployments.demo.scene import WWW, Scene


def play(scene: Scene) -> None:
    """Replace the self-signed certificate."""
    scene.screen.chapter(
        "The first certificate",
        "The CA asks DNS for the proof; HAProxy's configuration is edited over SSH, tested and",
        "reloaded; then every address is looked at as a client would.",
    )
    scene.installation.certrail("request", "start", f"{WWW}:443", "--wait")
    scene.handshake(WWW)
