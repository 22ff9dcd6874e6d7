"""A second endpoint on the same machine, told apart by server name."""

from __future__ import annotations

from deployments.demo.scene import SHOP, WWW, Scene
from deployments.demo.screen import DemoError


def play(scene: Scene) -> None:
    """Give the second name a certificate of its own, beside the first."""
    scene.screen.chapter(
        "A second name on the same port",
        "The account exists now. The new certificate is put beside the first one, which stays.",
    )
    before = scene.handshake(WWW)
    scene.installation.certrail("request", "start", f"{SHOP}:443", "--wait")
    if scene.handshake(SHOP) == before or scene.handshake(WWW) != before:
        raise DemoError("both names should have certificates of their own now")
