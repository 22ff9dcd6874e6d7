"""The configurations that Debian's packages bring, with TLS as their comments propose it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from certrail.remote.local import LocalHost
from certrail.servers.registry import open_target, site_of
from certrail.servers.target import FileTarget, Wanted
from tests.support.databases import NAME, write_pem
from tests.support.nginx import TestCa


def lighttpd(folder: Path) -> dict[str, object]:
    """Enable 10-ssl.conf, as lighty-enable-mod does."""
    shutil.copytree("/etc/lighttpd", folder, dirs_exist_ok=True, symlinks=True)
    for path in (folder / "lighttpd.conf", folder / "conf-available" / "10-ssl.conf"):
        path.write_text(path.read_text().replace("/etc/lighttpd", str(folder)))
    (folder / "conf-enabled" / "10-ssl.conf").symlink_to("../conf-available/10-ssl.conf")
    shutil.copy(folder / "old.pem", folder / "server.pem")
    return {"kind": "lighttpd", "config": str(folder / "lighttpd.conf")}


def postgresql(folder: Path) -> dict[str, object]:
    """Take the sample from which every cluster is made."""
    (sample,) = Path("/usr/share/postgresql").glob("*/postgresql.conf.sample")
    text = sample.read_text().replace("#ssl = off", "ssl = on")
    for name in ("cert", "key"):
        text = re.sub(rf"#ssl_{name}_file = '[^']*'", f"ssl_{name}_file = '{folder}/old.pem'", text)
    (folder / "postgresql.conf").write_text(text)
    return {"kind": "postgresql", "config": str(folder / "postgresql.conf")}


def mariadb(folder: Path) -> dict[str, object]:
    """Take away the # before ssl-cert and ssl-key."""
    shutil.copytree("/etc/mysql", folder, dirs_exist_ok=True, symlinks=True)
    (folder / "my.cnf").unlink()
    main = (folder / "mariadb.cnf").read_text().replace("/etc/mysql", str(folder))
    (folder / "my.cnf").write_text(main)
    server = folder / "mariadb.conf.d" / "50-server.cnf"
    text = re.sub(r"#(ssl-(?:cert|key)) = .*", rf"\1 = {folder}/old.pem", server.read_text())
    server.write_text(text)
    return {"kind": "mariadb", "config": str(folder / "my.cnf")}


def tomcat(folder: Path) -> dict[str, object]:
    """Take the proposed connector out of its comment."""
    text = Path("/etc/tomcat10/server.xml").read_text()
    proposed = re.compile(r"<!--\s*(<Connector port=\"8443\".*?</Connector>)\s*-->", re.DOTALL)
    text, count = proposed.subn(r"\1", text)
    assert count == 1
    old = 'certificateKeystoreFile="conf/localhost-rsa.jks"'
    text = text.replace(old, f'certificateFile="{folder}/old.pem"', 1)
    text = text.replace('certificateKeystorePassword="changeit"', "", 1)
    (folder / "server.xml").write_text(text)
    return {"kind": "tomcat", "config": str(folder / "server.xml")}


PACKAGES: tuple[Callable[[Path], dict[str, object]], ...] = (lighttpd, postgresql, mariadb, tomcat)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_a_packages_own_configuration_is_read_and_edited(
    package: Callable[[Path], dict[str, object]], tmp_path: Path
) -> None:
    """What most machines have: found as a site, changed where it stands, twice is once."""
    ca = TestCa()
    old = ca.bundle(NAME)
    write_pem(tmp_path / "old.pem", old, "root")
    opened = open_target(LocalHost("here"), package(tmp_path))
    assert isinstance(opened, FileTarget)
    (site,) = opened.sites()

    survey = opened.survey(site_of({"site": NAME}), Wanted("ECDSA"))
    plan, versions = survey.plan, opened.versions(survey.directory)
    versions.switch(versions.target(versions.stage(ca.bundle(NAME))))

    assert site.fingerprint == old.chain.fingerprint
    assert site.listens
    assert plan.after
    for path, content in plan.after.items():
        Path(path).write_bytes(content)
        assert b"live/" in content
    assert not opened.control.test()
    assert not opened.survey(site, Wanted("ECDSA")).plan.after
