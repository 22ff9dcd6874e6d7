"""A renewal that cannot be installed, and how it goes on once the cause is gone."""

from __future__ import annotations

from deployments.demo.scene import WWW, Scene
from deployments.demo.screen import DemoError

_MISTAKE = "\n    timeout cleint 30s\n"


def play(scene: Scene) -> None:
    """Break the web server's configuration, renew, correct it, retry."""
    path = scene.machine.configuration
    scene.screen.chapter(
        "A failure, and going on from it",
        f"Somebody has left a mistake in {path.name}. HAProxy still runs, but would not start",
        "again. The certificate is ordered; installing it stops before anything is changed.",
    )
    served = scene.handshake(WWW)
    good = path.read_bytes()
    path.write_bytes(good + _MISTAKE.encode())
    scene.installation.certrail(
        "request", "start", f"{WWW}:443", "--action", "renew", "--wait", expect=1
    )
    if scene.handshake(WWW) != served:
        raise DemoError("the old certificate should still be served")
    scene.screen.plain()
    scene.screen.note("the mistake is corrected; the same request goes on from step 4")
    path.write_bytes(good)
    scene.installation.certrail("request", "retry", f"{WWW}:443", "--wait")
    if scene.handshake(WWW) == served:
        raise DemoError("the renewed certificate should be served now")
