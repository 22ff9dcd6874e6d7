"""The fakes, asked by other people's programs: they must answer as the devices do.

``bigrest`` (iControl REST), ``acos-client`` (A10's own, aXAPI v3), ``netscaler-certbot-hook``
(NITRO) and ``pywinrm`` (WS-Management) know nothing of our connectors.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import acos_client  # type: ignore[import-not-found, import-untyped, unused-ignore]
import pytest
import winrm
from acos_client import errors as acos_errors  # type: ignore[import-not-found, import-untyped, unused-ignore]
from bigrest.bigip import BIGIP  # type: ignore[import-not-found, import-untyped, unused-ignore]
from bigrest.common.exceptions import RESTAPIError  # type: ignore[import-not-found, import-untyped, unused-ignore]
from netscaler_certbot_hook.nitro import NitroClient  # type: ignore[import-not-found, import-untyped, unused-ignore]
from winrm.exceptions import InvalidCredentialsError

from tests.support import a10_api, bigip_api, netscaler_api, winrm_service
from tests.support.a10_api import A10
from tests.support.bigip_api import BigIp
from tests.support.device import SITE
from tests.support.iis_api import IisServer
from tests.support.netscaler_api import NetScaler


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `requests` looks for the CA of the device."""
    path = tmp_path / "roots.pem"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    return path


@pytest.fixture
def f5(trusted: Path) -> Iterator[BigIp]:
    """A BIG-IP."""
    with BigIp().running() as device:
        trusted.write_text(device.roots)
        yield device


def test_bigrest_installs_a_certificate(f5: BigIp, tmp_path: Path) -> None:
    """Upload, objects and profile in one transaction, save: the way its users do it."""
    bundle = f5.ca.bundle(SITE)
    assert bundle.key is not None
    (tmp_path / "new.crt").write_text(bundle.chain.text)
    (tmp_path / "new.key").write_bytes(bundle.key.reveal())
    client = BIGIP(
        f5.url.removeprefix("https://"),
        bigip_api.USER,
        bigip_api.PASSWORD,
        request_token=True,
        session_verify=str(tmp_path / "roots.pem"),
    )
    for name in ("new.crt", "new.key"):
        client.upload("/mgmt/shared/file-transfer/uploads", str(tmp_path / name))
    profile = "/mgmt/tm/ltm/profile/client-ssl/~Common~www_ssl"
    with client as _:
        for kind, name in (("ssl-cert", "new.crt"), ("ssl-key", "new.key")):
            source = f"file:/var/config/rest/downloads/{name}"
            body = {"name": name, "partition": "Common", "sourcePath": source}
            client.create(f"/mgmt/tm/sys/file/{kind}", body)
        entry = {"name": "default", "cert": "/Common/new.crt", "key": "/Common/new.key"}
        client.modify(profile, {"certKeyChain": [entry]})
    client.command("/mgmt/tm/sys/config", {"command": "save"})

    assert bundle.chain.fingerprint == f5.served()
    assert client.load(profile).properties["cert"] == "/Common/new.crt"
    assert client.exist("/mgmt/tm/sys/file/ssl-cert/~Common~new.crt")
    assert not client.exist("/mgmt/tm/sys/file/ssl-cert/~Common~none.crt")
    with pytest.raises(RESTAPIError):
        client.delete("/mgmt/tm/sys/file/ssl-cert/~Common~new.crt")


def test_bigrest_sees_a_failed_transaction_undone(f5: BigIp, tmp_path: Path) -> None:
    """Nothing of it is there afterwards."""
    client = BIGIP(
        f5.url.removeprefix("https://"),
        bigip_api.USER,
        bigip_api.PASSWORD,
        request_token=True,
        session_verify=str(tmp_path / "roots.pem"),
    )
    client.transaction_create()
    entry = {"name": "default", "cert": "/Common/none.crt", "key": "/Common/old.key"}
    client.modify("/mgmt/tm/ltm/profile/client-ssl/~Common~www_ssl", {"certKeyChain": [entry]})
    with pytest.raises(RESTAPIError):
        client.transaction_commit()

    assert f5.old.chain.fingerprint == f5.served()


# It never verifies a certificate.
@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_acos_client_reads_and_uploads(trusted: Path) -> None:
    """A10's own client finds the template and its files, and is refused with a wrong password."""
    with A10().running() as device:
        trusted.write_text(device.roots)
        port = int(device.url.rpartition(":")[2])
        options = {"port": port, "protocol": "https"}
        version = acos_client.AXAPI_30
        client = acos_client.Client("localhost", version, a10_api.USER, a10_api.PASSWORD, **options)
        bundle = device.ca.bundle(SITE)
        assert bundle.key is not None

        assert client.slb.template.client_ssl.exists(a10_api.TEMPLATE)
        assert not client.slb.template.client_ssl.exists("nothing")
        client.file.ssl_cert.create(
            file="theirs", cert=bundle.chain.text, certificate_type="pem", action="import"
        )
        client.file.ssl_key.update(file="theirs", cert=bundle.key.reveal(), action="import")

        assert device.certs["theirs"].decode() == bundle.chain.text
        assert device.keys["theirs"] == bundle.key.reveal()
        stranger = acos_client.Client("localhost", version, a10_api.USER, "wrong", **options)
        with pytest.raises(acos_errors.AuthenticationFailure):
            stranger.session.authenticate(a10_api.USER, "wrong")


def test_a_nitro_client_installs_a_certificate(trusted: Path) -> None:
    """Files, update, link and save, as its certbot hook does."""
    with NetScaler().running() as device:
        trusted.write_text(device.roots)
        client = NitroClient(device.url, netscaler_api.USER, netscaler_api.PASSWORD)
        bundle = device.ca.bundle(SITE)
        assert bundle.key is not None
        for name, content in (
            ("le.crt", bundle.chain.pems[0].encode()),
            ("le.key", bundle.key.reveal()),
        ):
            file = {
                "filename": name,
                "filelocation": "/nsconfig/ssl",
                "filecontent": base64.b64encode(content).decode(),
                "fileencoding": "BASE64",
            }
            client.request("post", "config", "systemfile", data=json.dumps({"systemfile": file}))

        def unsaved() -> object:
            shown = client.get_config("nsconfig")
            assert isinstance(shown, dict)
            return shown["nsconfig"][0]["configchanged"]

        change = {"certkey": netscaler_api.PAIR, "cert": "le.crt", "key": "le.key"}
        client.request(
            "post",
            "config",
            "sslcertkey",
            params={"action": "update"},
            data=json.dumps({"sslcertkey": {**change, "nodomaincheck": True}}),
        )
        assert unsaved() is True
        client.request(
            "post",
            "config",
            "nsconfig",
            params={"action": "save"},
            data=json.dumps({"nsconfig": {}}),
        )
        assert unsaved() is False
        shown = client.get_config("sslcertkey", netscaler_api.PAIR)

        assert isinstance(shown, dict)
        assert shown["sslcertkey"][0]["linkcertkeyname"] == "ica"
        assert bundle.chain.fingerprint == device.served()
        with pytest.raises(Exception, match="404"):
            client.get_config("sslcertkey", "nothing")


def test_pywinrm_runs_a_program(trusted: Path) -> None:
    """Shell, command, output, end: the envelopes around what PowerShell says are understood."""
    with IisServer().running() as device:
        trusted.write_text(device.roots)
        options = {"transport": "basic", "server_cert_validation": "validate"}
        address, roots = f"{device.url}/wsman", str(trusted)
        account = (winrm_service.USER, winrm_service.PASSWORD)
        session = winrm.Session(address, auth=account, ca_trust_path=roots, **options)

        reply = session.run_cmd("whoami.exe", ["/groups", "/fo", "csv", "/nh"])
        session.protocol.transport.close_session()

        assert (reply.status_code, reply.std_err) == (0, b"")
        assert b"S-1-5-32-544" in reply.std_out
        assert device.shells == {}
        stranger = (winrm_service.USER, "wrong")
        session = winrm.Session(address, auth=stranger, ca_trust_path=roots, **options)
        with pytest.raises(InvalidCredentialsError):
            session.run_cmd("whoami.exe", ["/groups", "/fo", "csv", "/nh"])
        session.protocol.transport.close_session()
