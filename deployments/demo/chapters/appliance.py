"""An appliance request: the certificate goes in through an API."""

from __future__ import annotations

from deployments.demo.scene import LB, Scene

_FILE = """\
connectors:
  - name: lb01
    type: target-caddy
    url: {api}

profiles:
  - name: balancers
    workflow: appliance
    ca: demo-ca
    validation: {{method: dns-01, dns: demo-dns}}
    trust: {root}

endpoints:
  - location: {name}:443
    address: 127.0.0.1:{port}
    names: [{name}]
    profile: balancers
    target: lb01
    server: {{site: {name}}}
"""


def play(scene: Scene) -> None:
    """Put a load balancer under automation and replace its certificate."""
    path = scene.folder / "balancer.yaml"
    path.write_text(
        _FILE.format(
            api=scene.balancer.api_url,
            root=scene.ca.root,
            name=LB,
            port=scene.balancer.https_port,
        )
    )
    scene.screen.chapter(
        "An appliance",
        "A load balancer without a shell: its API takes certificates. The workflow has four steps.",
    )
    scene.screen.file(path)
    scene.installation.certrail("apply", "-f", path.name)
    scene.installation.certrail("request", "start", f"{LB}:443", "--wait")
    scene.handshake(LB, port=scene.balancer.https_port)
