"""A client of Trust Lifecycle Manager made of the API's description by ``aiopenapi3``.

Runs in an environment of its own. Arguments: the description, URL of the service, profile,
profile whose requests wait, common name, and three CSRs (PEM): two for a first certificate and its
renewal, one for a request that waits. The API key comes by ``API_KEY``. Requests are built and
replies read by the description alone: a reply that differs from it ends the program. Prints JSON
about what the client made of it.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
from aiopenapi3 import FileSystemLoader, OpenAPI
from aiopenapi3.errors import HTTPStatusIndicatedError

described, url, profile, waiting, name, first, second, third = sys.argv[1:]


def client(key: str) -> Any:
    """Return the calls that the description has."""
    path = Path(described)
    api = OpenAPI.load_file(
        f"{url}/",
        Path(path.name),
        session_factory=httpx2.Client,
        loader=FileSystemLoader(path.parent),
    )
    api.authenticate(ApiKeyAuth=key)
    return api._


def refused(call: Callable[..., object], *arguments: object) -> list[str]:
    """Return status and code of a refusal; one that is not as described ends the program."""
    try:
        call(*arguments)
    except HTTPStatusIndicatedError as exc:
        described: Any = exc.data
        problem = described.error or described.errors[0]
        return [str(exc.status_code), problem.code]
    return []


def enrol(api: Any, csr: str, profile: str, form: str = "x509") -> Any:
    """Ask for a certificate with a body that the description's model takes."""
    body = {
        "profile": {"id": profile},
        "seat": {"seat_id": name},
        "csr": csr,
        "attributes": {
            "subject": {"common_name": name},
            "extensions": {"san": {"dns_names": [name]}},
        },
        "delivery_format": form,
        "include_ca_chain": True,
        "validity": {"unit": "days", "duration": 60},
    }
    return api.issueCertificate(data=api.issueCertificate.data.get_type().model_validate(body))


def pick_up(api: Any, request: str) -> Any:
    """Ask for what a request that waits has become."""
    call = api.pickUpCertificate
    body = call.data.get_type().model_validate({"profile": {"id": waiting}})
    return call(data=body, parameters={"request_id": request})


def revoke(api: Any, serial: str) -> None:
    """Revoke a certificate."""
    call = api.revokeCertificate
    body = call.data.get_type().model_validate({"revocation_reason": "superseded"})
    call(data=body, parameters={"serial_number": serial})


def search(api: Any, **asked: object) -> list[list[str]]:
    """Return serial number and status of what is found."""
    page = api.searchCertificates(parameters=asked)
    assert page.total == len(page.items)
    return [[each.serial_number, each.status] for each in page.items]


def read_profile(api: Any, number: str) -> Any:
    """Read a profile."""
    return api.getProfile(parameters={"profile_id": number})


api = client(os.environ["API_KEY"])
told: dict[str, object] = {
    "hello": api.hello().decode(),
    "profile": read_profile(api, profile).status,
}
stranger = client("not-a-key")
told["wrong key"] = [
    refused(read_profile, stranger, profile),
    refused(enrol, stranger, first, profile),
]
nobody = str(uuid4())
told["no profile"] = [refused(read_profile, api, nobody), refused(enrol, api, first, nobody)]
told["not a CSR"] = refused(enrol, api, "nothing", profile)

issued = enrol(api, first, profile)
renewed = enrol(api, second, profile, "PKCS7")
told["issued"] = [issued.status, issued.delivery_format, issued.certificate]
told["renewed"] = [renewed.status, renewed.delivery_format, renewed.certificate]
serials = [one.serial_number for one in (issued, renewed)]
told["serials"] = serials
told["details"] = api.getCertificate(parameters={"serial_number": serials[0]}).certificate

pending = enrol(api, third, waiting)
told["pending"] = [pending.status, bool(pending.certificate)]
told["picked up"] = [pick_up(api, pending.request_id).status for _ in range(2)]
told["no request"] = refused(pick_up, api, "request-unknown")

revoke(api, serials[0])
told["again"] = refused(revoke, api, serials[0])
told["no certificate"] = refused(revoke, api, "00FF")
told["found"] = search(api, common_name=name, profile_id=profile, limit=10)
told["of the other profile"] = len(search(api, profile_id=waiting, seat_id=name))
told["revoked"] = search(api, status="REVOKED")
told["of nobody"] = search(api, common_name=f"nobody.{name}")
print(json.dumps(told))
