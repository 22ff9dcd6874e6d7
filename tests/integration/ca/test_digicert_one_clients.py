"""What other people's clients send to Trust Lifecycle Manager, and what they insist on.

One runs here: a client that ``aiopenapi3`` makes of the API's published description. It
builds requests and reads replies by it, so that a reply of the imitation which differs
would end it.

The others are in Go and shell. Their requests are written down as they write them, and
what they check in a reply is checked, so that the imitation that our connector is tried
against is one that they would work with:

* DigiCert's Terraform provider: GitHub digicert/terraform-provider-digicert,
  ``internal/digicert/client.go`` and ``model/model.go``;
* Fleet: GitHub fleetdm/fleet, ``ee/server/service/digicert/digicert.go``;
* DigiCert's examples: GitHub digicert/product-solutions, ``issue_pqc_cert.sh``;
* Oracle Cloud's synchronization: GitHub Halimer/oci-cert-digicert.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

from tests.integration.ca.issuing import csr_for
from tests.support.digicert_one_api import PUBLISHED, DigicertOneApi, digicert_one_api
from tests.support.own_environment import own_environment

NAME = "www.example.test"


@pytest.fixture
def api() -> Iterator[DigicertOneApi]:
    with digicert_one_api("example.test") as service:
        yield service


@pytest.fixture
def client(api: DigicertOneApi) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{api.url}/mpki/api", headers={"X-API-Key": api.key}) as opened:
        yield opened


def test_a_client_made_of_the_description_goes_through_a_certificates_life(
    api: DigicertOneApi,
) -> None:
    """Enrolment, renewal, a request that waits, search, revocation; wrong key, wrong profile."""
    python = own_environment("aiopenapi3") / "bin" / "python"
    program = PUBLISHED.with_name("run_openapi_client.py")
    csrs = [csr_for(NAME) for _ in range(3)]
    argv = [str(python), str(program), str(PUBLISHED), api.url, api.profile, api.slow_profile]

    done = subprocess.run(
        [*argv, NAME, *(each.pem for each in csrs)],
        env={**os.environ, "API_KEY": api.key},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    first, second, third = (each.leaf for each in api.entries)
    assert first is not None
    assert second is not None
    assert third is not None
    serials = [f"{leaf.serial_number:X}" for leaf in (first, second)]
    assert [each.lstrip("0") for each in told["serials"]] == serials
    for leaf, csr in zip((first, second, third), csrs, strict=True):
        assert leaf.public_key() == csr.parsed.public_key()
        assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days >= 60
    assert told["issued"][:2] == ["ISSUED", "x509"]
    assert told["renewed"][:2] == ["ISSUED", "PKCS7"]
    chain = x509.load_pem_x509_certificates(told["issued"][2].encode())
    assert chain == [first, api.ca.intermediate, api.ca.root]
    bag = pkcs7.load_pem_pkcs7_certificates(told["renewed"][2].encode())
    assert set(bag) == {second, api.ca.intermediate, api.ca.root}
    assert x509.load_der_x509_certificate(base64.b64decode(told["details"])) == first

    assert told["pending"] == ["PENDING", False]
    assert told["picked up"] == ["PENDING", "ISSUED"]
    assert told["of the other profile"] == 1
    revoked, good = told["serials"]
    assert told["found"] == [[revoked, "revoked"], [good, "issued"]]
    assert told["revoked"] == [[revoked, "revoked"]]
    assert told["of nobody"] == []
    assert [each.revoked for each in api.entries] == ["superseded", "", ""]

    assert told["hello"].startswith("Hello from DigiCert ONE")
    assert told["profile"] == "Active"
    assert told["wrong key"] == [["401", "invalid_api_key"]] * 2
    assert told["no profile"] == [["403", "no_access"]] * 2
    assert told["not a CSR"] == ["400", "invalid_csr"]
    assert told["again"] == ["400", "invalid_request"]
    assert told["no request"] == told["no certificate"] == ["404", "resource_not_found"]


def test_an_imitation_that_differs_from_the_description_is_found_out(
    api: DigicertOneApi, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word, a moment and a field that the description has not: each is owned up to."""
    body = terraform(api, csr_for(NAME).pem, api.profile, "x509")
    serial = client.post("/v1/certificate", json=body).json()["serial_number"]
    described = api._details
    for change in ({"status": "ISSUED"}, {"valid_to": "tomorrow"}, {"names": [NAME]}):
        with monkeypatch.context() as patch:
            patch.setattr(api, "_details", lambda e, c=change: {**described(e), **c})
            for path in (f"/v1/certificate/{serial}", "/v1/certificate-search"):
                reply = client.get(path)
                assert reply.status_code == 500, change
                assert reply.json()["errors"][0]["code"] == "not_as_described"

    assert client.get(f"/v1/certificate/{serial}").status_code == 200


def terraform(api: DigicertOneApi, csr: str, profile: str, form: str) -> dict[str, Any]:
    """Return what the Terraform provider asks for a certificate with."""
    san = {"san": {"dns_names": [NAME]}}
    return {
        "profile": {"id": profile},
        "seat": {"seat_id": NAME},
        "csr": csr,
        "attributes": {"subject": {"common_name": NAME}, "extensions": san},
        "delivery_format": form,
        "include_ca_chain": True,
        "tags": None,
    }


def test_the_terraform_provider_would_work(api: DigicertOneApi, client: httpx.Client) -> None:
    """It greets, reads the profile, issues in the profile's format, reads and revokes."""
    hello = client.get("/v1/hello", headers={"accept": "application/json"})
    assert hello.text == "Hello from DigiCert ONE - Trust Lifecycle Manager REST API!"
    profile = client.get(f"/v2/profile/{api.profile}").json()
    assert profile["enrollment_method"] == "rest_api"

    form = profile["certificate_delivery_format"]
    body = terraform(api, csr_for(NAME).pem, profile["id"], form)
    made = client.post("/v1/certificate", json=body)
    assert made.status_code == 201
    assert made.json()["status"] == "ISSUED"
    assert len(x509.load_pem_x509_certificates(made.json()["certificate"].encode())) >= 2

    serial = made.json()["serial_number"]
    assert client.get(f"/v1/certificate/{serial}").json()["status"] == "issued"
    reason = {"revocation_reason": "key_compromise"}
    assert client.put(f"/v1/certificate/{serial}/revoke", json=reason).status_code == 204
    again = client.put(f"/v1/certificate/{serial}/revoke", json=reason)
    messages = [each["message"] for each in again.json()["errors"]]
    assert messages == ["Certificate already has been revoked"]


def test_the_terraform_provider_would_pick_up(api: DigicertOneApi, client: httpx.Client) -> None:
    """A request that waits has a number, and 200 whether it is ready or not."""
    body = terraform(api, csr_for(NAME).pem, api.slow_profile, "x509")
    number = client.post("/v1/certificate", json=body).json()["request_id"]
    asked = {"profile": {"id": api.slow_profile}}

    replies = [client.post(f"/v1/certificate-pickup/{number}", json=asked) for _ in range(2)]

    assert [each.status_code for each in replies] == [200, 200]
    assert [each.json()["status"] for each in replies] == ["PENDING", "ISSUED"]


def test_fleet_would_work(api: DigicertOneApi, client: httpx.Client) -> None:
    """It wants an active profile, and gives a common name without further names."""
    assert client.get(f"/v2/profile/{api.profile}").json()["status"] == "Active"
    body = {
        "profile": {"id": api.profile},
        "seat": {"seat_id": "device-1"},
        "delivery_format": "x509",
        "attributes": {"subject": {"common_name": NAME}},
        "csr": csr_for(NAME).pem.strip(),
    }
    made = client.post("/v1/certificate", json=body)

    assert made.status_code == 201
    assert made.json()["delivery_format"] == "x509"
    assert 0 < len(bytes.fromhex(made.json()["serial_number"])) <= 20
    assert x509.load_pem_x509_certificate(made.json()["certificate"].encode())


def test_fleet_would_tell_a_wrong_token_from_a_wrong_profile(
    api: DigicertOneApi, client: httpx.Client
) -> None:
    """It takes 401 for the one and 403 for the other, and reads the messages."""
    wrong_token = client.get(f"/v2/profile/{api.profile}", headers={"X-API-Key": "nobody"})
    wrong_profile = client.get(f"/v2/profile/{uuid4()}")

    assert (wrong_token.status_code, wrong_profile.status_code) == (401, 403)
    assert [each["code"] for each in wrong_profile.json()["errors"]] == ["no_access"]


def test_digicerts_example_would_work(api: DigicertOneApi, client: httpx.Client) -> None:
    """It sends the CSR in one line, without a frame."""
    bare = "".join(csr_for(NAME).pem.splitlines()[1:-1])
    body = {
        "profile": {"id": api.profile},
        "seat": {"seat_id": NAME},
        "csr": bare,
        "attributes": {"subject": {"common_name": NAME}},
    }
    made = client.post("/v1/certificate", json=body)

    assert "-----BEGIN CERTIFICATE-----" in made.json()["certificate"]


def test_a_synchronization_would_work(api: DigicertOneApi, client: httpx.Client) -> None:
    """It searches without parameters and reads the items; others search by name and status."""
    body = terraform(api, csr_for(NAME).pem, api.profile, "x509")
    serial = client.post("/v1/certificate", json=body).json()["serial_number"]

    page = client.get("/v1/certificate-search").json()
    assert [each["serial_number"] for each in page["items"]] == [serial]
    asked = {"common_name": NAME, "profile_id": api.profile, "status": "issued"}
    assert client.get("/v1/certificate-search", params=asked).json()["total"] == 1
    asked["status"] = "revoked"
    assert client.get("/v1/certificate-search", params=asked).json()["total"] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"validity": {"days": 30}},
        {"validity": {"unit": "fortnights", "duration": 1}},
        {"profile": {"id": "web-servers"}},
        {"delivery_format": "der"},
        {"san": [NAME]},
    ],
    ids=str,
)
def test_what_is_not_described_is_refused(
    api: DigicertOneApi, client: httpx.Client, change: dict[str, Any]
) -> None:
    """An imitation that takes anything would hide what the service does not take."""
    body = {**terraform(api, csr_for(NAME).pem, api.profile, "x509"), **change}

    assert client.post("/v1/certificate", json=body).status_code == 400
    assert api.issued(NAME) == 0
