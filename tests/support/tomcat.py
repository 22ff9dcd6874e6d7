"""A real Tomcat of Debian's packages, on ports from the kernel.

::

    tomcat = fresh_tomcat()               # one TLS host, www.example.test
    tomcat.served()                       # fingerprint a client sees

It takes seconds to start, so that one serves all tests of a process.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from certrail.model import Bundle, Fingerprint
from certrail.remote.local import LocalHost
from certrail.servers.versions import Versions
from tests.support.databases import NAME
from tests.support.handshake import fingerprint_at, tls_connection
from tests.support.nginx import TestCa
from tests.support.process import accepts, binary, free_port, running
from tests.support.shared import Shared
from tests.support.starttls_servers import home

HOME = Path("/usr/share/tomcat10")
MANAGER = Path("/usr/share/tomcat10-admin/manager")
LOGIN = ("certrail", "lab-manager-password")
LIVE = (
    f'<Certificate certificateFile="@dir@/conf/certrail/{NAME}/live/fullchain.pem"\n'
    f"   certificateKeyFile='@dir@/conf/certrail/{NAME}/live/privkey.pem' />"
)
_SERVER = """\
<?xml version='1.0' encoding='utf-8'?>
<!-- <Connector port="1" SSLEnabled="true"><SSLHostConfig/></Connector> -->
<Server port="-1" shutdown="SHUTDOWN">
  <GlobalNamingResources>
    <Resource name="UserDatabase" type="org.apache.catalina.UserDatabase"
              factory="org.apache.catalina.users.MemoryUserDatabaseFactory"
              pathname="conf/tomcat-users.xml" />
  </GlobalNamingResources>
  <Service name="Catalina">
    <Connector port="@plain@" address="127.0.0.1" />
    <Connector port="@port@" address="127.0.0.1" SSLEnabled="true">
      <SSLHostConfig>
        @certificate@
      </SSLHostConfig>
    </Connector>
    <Engine name="Catalina" defaultHost="localhost">
      <Realm className="org.apache.catalina.realm.UserDatabaseRealm" resourceName="UserDatabase"/>
      <Host name="localhost" appBase="webapps" autoDeploy="false" deployOnStartup="false">
        <Context path="/manager" docBase="@manager@" privileged="true" />
      </Host>
    </Engine>
  </Service>
</Server>
"""
_USERS = """\
<tomcat-users>
  <user username="{0}" password="{1}" roles="manager-script" />
</tomcat-users>
"""
# As systemd does: who ends the process has it started again.
_SUPERVISE = """\
trap 'kill $pid; wait $pid; exit' TERM
while true; do
  setpriv --pdeathsig=KILL {home}/bin/catalina.sh run & pid=$!
  echo $pid >"$CATALINA_BASE/pid"
  wait $pid
done
"""
_RESTART = """\
pid=$(cat {dir}/pid)
kill $pid
while kill -0 $pid 2>/dev/null; do sleep 0.05; done
"""


@dataclass
class Tomcat:
    """A running Tomcat. ``server`` is the mapping for an endpoint; add ``site`` to it."""

    folder: Path
    port: int
    plain: int
    ca: TestCa
    old: Bundle

    @property
    def config(self) -> Path:
        """server.xml."""
        return self.folder / "conf" / "server.xml"

    @property
    def server(self) -> dict[str, object]:
        """Settings that reach it."""
        return {
            "kind": "tomcat",
            "config": str(self.config),
            "manager": f"http://127.0.0.1:{self.plain}/manager",
            "manager_netrc": str(self.folder / "netrc"),
            "restart": ["sh", str(self.folder / "restart.sh")],
        }

    def served(self) -> Fingerprint:
        """Return the fingerprint that a client sees."""
        return fingerprint_at(self.port, NAME)

    @contextmanager
    def connection(self) -> Iterator[Callable[[], bool]]:
        """Open a connection that stays; the value says whether it still answers."""
        with tls_connection(self.port, NAME) as connection:
            connection.settimeout(20)

            def answers() -> bool:
                connection.sendall(f"HEAD / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
                return connection.recv(4096).startswith(b"HTTP/1.1 404 ")

            assert answers()
            yield answers

    def write(self, certificate: str) -> None:
        """Write ``server.xml`` with *certificate* in its TLS host."""
        text = _SERVER.replace("@certificate@", certificate)
        values = {"port": self.port, "plain": self.plain, "dir": self.folder, "manager": MANAGER}
        for holder, value in values.items():
            text = text.replace(f"@{holder}@", str(value))
        self.config.write_text(text)

    def renew(self) -> None:
        """Serve a new certificate as if Certrail had installed it, after the next reload."""
        kept = self.folder / "conf" / "certrail"
        shutil.rmtree(kept, ignore_errors=True)
        self.old = self.ca.bundle(NAME)
        versions = Versions(LocalHost("here"), str(kept / NAME))
        versions.switch(versions.target(versions.stage(self.old)))

    def reload(self) -> None:
        """Ask the manager to read the files again."""
        argv = [binary("curl", "curl"), "-sSf", "--netrc-file", str(self.folder / "netrc")]
        url = f"http://127.0.0.1:{self.plain}/manager/text/sslReload"
        subprocess.run([*argv, url], check=True, capture_output=True)

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[Tomcat]:
        """Start it."""
        assert MANAGER.exists(), "Tomcat is missing: apt-get install tomcat10 tomcat10-admin"
        ca = TestCa()
        with home() as folder:
            tomcat = cls(folder, free_port(), free_port(), ca, ca.bundle(NAME))
            for name in ("conf", "logs", "temp", "webapps", "work"):
                (folder / name).mkdir()
            for name in ("web.xml", "logging.properties", "catalina.properties"):
                shutil.copy(Path("/etc/tomcat10") / name, folder / "conf")
            (folder / "conf" / "tomcat-users.xml").write_text(_USERS.format(*LOGIN))
            (folder / "netrc").write_text(
                f"machine 127.0.0.1 login {LOGIN[0]} password {LOGIN[1]}\n"
            )
            script = folder / "supervise.sh"
            script.write_text(_SUPERVISE.format(home=HOME))
            (folder / "restart.sh").write_text(_RESTART.format(dir=folder))
            tomcat.renew()
            tomcat.write(LIVE)
            environment = {
                "CATALINA_HOME": str(HOME),
                "CATALINA_BASE": str(folder),
                "CATALINA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx96m",
            }

            def ready() -> bool:
                return accepts(tomcat.plain) and accepts(tomcat.port)

            log = folder / "output.log"
            with running(["sh", str(script)], log=log, ready=ready, env=environment, within=60):
                yield tomcat


TOMCAT = Shared(Tomcat.started)


def fresh_tomcat() -> Tomcat:
    """Return the shared Tomcat with a certificate that nobody has seen."""
    tomcat = TOMCAT.get()
    tomcat.renew()
    tomcat.reload()
    return tomcat
