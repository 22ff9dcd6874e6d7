"""Azure's own client, as a program in an environment of its own.

Arguments: vault URL, CA file, token, and then either name to import, name to read, PKCS
#12 file and its password; or ``create`` and a name whose key the vault is to make; or ``merge``,
that name and a certificate (base64 of DER). Prints JSON about what the client made of it.
"""

import base64
import json
import sys
import time
from pathlib import Path

from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError
from azure.keyvault.certificates import CertificateClient, CertificatePolicy

url, ca_file, token, *rest = sys.argv[1:]


class _Credential:
    def get_token(self, *_scopes: str, **_options: object) -> AccessToken:
        return AccessToken(token, int(time.time()) + 3000)


client = CertificateClient(
    url,
    _Credential(),
    api_version="7.4",
    verify_challenge_resource=False,
    connection_verify=ca_file,
)


def create(name: str) -> dict[str, object]:
    """Let the vault make a key and a request; a second one is refused meanwhile."""
    wanted = CertificatePolicy(
        issuer_name="Unknown",
        subject=f"CN={name}.example.test",
        san_dns_names=[f"{name}.example.test"],
        key_type="EC",
        key_curve_name="P-256",
        exportable=False,
        content_type="application/x-pkcs12",
    )
    client.begin_create_certificate(name, wanted)
    try:
        client.begin_create_certificate(name, wanted)
        again = "taken"
    except HttpResponseError:
        again = "refused"
    operation = client.get_certificate_operation(name)
    return {
        "csr": base64.b64encode(operation.csr).decode(),
        "issuer": operation.issuer_name,
        "status": operation.status,
        "again": again,
    }


def merge(name: str, leaf: str) -> dict[str, object]:
    """Merge a certificate with the key in the vault, then disable it."""
    merged = client.merge_certificate(name, [base64.b64decode(leaf)])
    disabled = client.update_certificate_properties(name, merged.properties.version, enabled=False)
    return {
        "merged": merged.name,
        "status": client.get_certificate_operation(name).status,
        "enabled": disabled.properties.enabled,
    }


if rest[0] in ("create", "merge"):
    print(json.dumps(create(rest[1]) if rest[0] == "create" else merge(*rest[1:])))
    sys.exit()
new_name, known_name, store, password = rest
policy = CertificatePolicy(
    issuer_name="Unknown",
    key_type="EC",
    key_curve_name="P-256",
    content_type="application/x-pkcs12",
)
made = client.import_certificate(
    new_name, Path(store).read_bytes(), password=password, policy=policy
)
known = client.get_certificate(known_name)
print(
    json.dumps(
        {
            "imported": made.name,
            "cer": base64.b64encode(known.cer).decode(),
            "content_type": str(known.policy.content_type.value),
            "enabled": known.properties.enabled,
        }
    )
)
