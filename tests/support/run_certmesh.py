"""certmesh's client of CertCentral, as a program in an environment of its own.

Arguments: URL of the service, organization, product, common name. The API key comes by
``CM_DIGICERT_API_KEY``. Prints JSON about what the client made of it.
"""

import json
import sys
from collections.abc import Callable

from certmesh.exceptions import CertMeshError
from certmesh.providers import digicert_client as client

url, organization, product, name = sys.argv[1:]
settings = {
    "base_url": url,
    "polling": {"interval_seconds": 0, "max_wait_seconds": 30},
    "retry": {"max_attempts": 1, "wait_min_seconds": 0, "wait_max_seconds": 0},
}
wanted = client.OrderRequest(
    common_name=name,
    san_dns_names=[name],
    product_name_id=product,
    organization_id=int(organization),
    key_size=2048,
)
told = {}


def refused(call: Callable[..., object], *arguments: object, **more: object) -> str:
    """Return the kind of error that a call ends with."""
    try:
        call(*arguments, **more)
    except CertMeshError as exc:
        return f"{type(exc).__name__}: {exc}"
    return ""


# Its download takes format pem_all for an archive, which DigiCert's page calls one PEM file.
told["download"] = refused(client.order_and_await_certificate, settings, {}, None, wanted)
if "Authentication" in told["download"]:
    sys.exit(told["download"])
(found,) = client.list_issued_certificates(settings, {}, None, status="issued")
told["listed"] = found.common_name
client.revoke_certificate(settings, {}, None, order_id=found.order_id, reason="superseded")
told["again"] = refused(
    client.revoke_certificate, settings, {}, None, certificate_id=found.certificate_id
)
json.dump(told, sys.stdout)
