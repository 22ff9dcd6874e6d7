"""Azure's own client, as a program in an environment of its own.

Arguments: vault URL, CA file, token, name to import, name to read, PKCS #12 file
and its password. Prints JSON about what the client made of it.
"""

import base64
import json
import sys
import time
from pathlib import Path

from azure.core.credentials import AccessToken
from azure.keyvault.certificates import CertificateClient, CertificatePolicy

url, ca_file, token, new_name, known_name, store, password = sys.argv[1:]


class _Credential:
    def get_token(self, *_scopes, **_options):
        return AccessToken(token, int(time.time()) + 3000)


client = CertificateClient(
    url,
    _Credential(),
    api_version="7.4",
    verify_challenge_resource=False,
    connection_verify=ca_file,
)
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
