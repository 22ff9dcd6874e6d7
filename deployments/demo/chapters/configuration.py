"""Connectors, a profile and two endpoints from one file."""

from __future__ import annotations

from deployments.demo.scene import SHOP, TEAM, WWW, Scene

_FILE = """\
connectors:
  - name: demo-ca
    type: ca-acme
    directory_url: {directory}
    contact: ops@example.test
    ca_bundle: {root}
  - name: demo-dns
    type: dns-rfc2136
    server: 127.0.0.1
    port: {dns_port}
    key_name: {key_name}
    key_secret: ${{DEMO_TSIG_KEY}}          # from the environment, sealed before it is stored
    nameservers: ["127.0.0.1:{dns_port}"]
    resolvers: ["127.0.0.1:{dns_port}"]
    poll_interval: 0.2
  - name: web01
    type: host-ssh
    host: 127.0.0.1
    port: {ssh_port}
    username: {username}
    private_key_file: {identity}
    known_hosts_file: {known_hosts}
  - name: post
    type: notifier-smtp
    host: 127.0.0.1
    port: {mail_port}
    security: none                        # it does not leave this machine
    sender: certrail@example.test

profiles:
  - name: public-web
    workflow: web-server
    ca: demo-ca
    validation: {{method: dns-01, dns: demo-dns}}
    key: {{algorithm: ecdsa-p256}}
    trust: {root}                 # what "Testing installation" trusts
    notifications: {{email: [{team}], events: [automation-failed]}}

endpoints:
  - location: {www}:443
    address: 127.0.0.1:{https_port}
    names: [{www}]
    profile: public-web
    target: web01
    server: &haproxy
      kind: haproxy
      site: {www}
      config: {configuration}
      pid_file: {pid_file}
      binary: {haproxy}
  - location: {shop}:443
    address: 127.0.0.1:{https_port}
    names: [{shop}]
    profile: public-web
    target: web01
    server: {{<<: *haproxy, site: {shop}}}
    tags: [shop]
"""


def play(scene: Scene) -> None:
    """Write the file, show it, apply it, and let every connector be checked."""
    machine = scene.machine
    path = scene.folder / "certificates.yaml"
    path.write_text(
        _FILE.format(
            directory=scene.ca.directory_url,
            root=scene.ca.root,
            dns_port=scene.dns.port,
            key_name=scene.dns.key_name,
            ssh_port=machine.ssh_port,
            https_port=machine.https_port,
            username=machine.username,
            identity=machine.identity,
            known_hosts=machine.known_hosts,
            configuration=machine.configuration,
            pid_file=machine.pid_file,
            haproxy=machine.haproxy,
            mail_port=scene.mail.port,
            team=TEAM,
            www=WWW,
            shop=SHOP,
        )
    )
    scene.screen.chapter(
        "Say what there is",
        "One file: the CA, how control of a name is proven, the machine, who is told of what, the",
        "endpoints.",
    )
    scene.screen.file(path)
    scene.installation.certrail("apply", "-f", str(path.relative_to(scene.folder)))
    scene.installation.certrail("connector", "check")
