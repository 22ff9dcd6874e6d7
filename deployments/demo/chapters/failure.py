"""A renewal that cannot be installed, and how it goes on once the cause is gone."""

from __future__ import annotations

from deployments.demo.scene import TEAM, WWW, Scene
from deployments.demo.screen import DemoError

_MISTAKE = "\n    timeout cleint 30s\n"


def play(scene: Scene) -> None:
    """Break the web server's configuration, renew, correct it, retry."""
    path = scene.machine.configuration
    scene.screen.chapter(
        "A failure, and going on from it",
        f"Somebody has left a mistake in {path.name}. HAProxy still runs, but would not start",
        "again. The certificate is ordered; installing it stops before anything is changed, and",
        "those who look after the site are told.",
    )
    served = scene.handshake(WWW)
    good = path.read_bytes()
    path.write_bytes(good + _MISTAKE.encode())
    scene.installation.certrail(
        "request", "start", f"{WWW}:443", "--action", "renew", "--wait", expect=1
    )
    if scene.handshake(WWW) != served:
        raise DemoError("the old certificate should still be served")
    _show_mail(scene)
    scene.screen.note("the mistake is corrected; the same request goes on from step 4")
    path.write_bytes(good)
    scene.installation.certrail("request", "retry", f"{WWW}:443", "--wait")
    if scene.handshake(WWW) == served:
        raise DemoError("the renewed certificate should be served now")


def _show_mail(scene: Scene) -> None:
    mail = scene.mail.first(TEAM)
    body = mail.get_body(("plain",))
    if body is None:
        raise DemoError("the mail has no text")
    scene.screen.proof(f"mail to {TEAM}: {str(mail['Subject']).strip()}")
    for line in str(body.get_content()).strip().splitlines():
        scene.screen.plain(f"  | {line}".rstrip())
    scene.screen.plain()
