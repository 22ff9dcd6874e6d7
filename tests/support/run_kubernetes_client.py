"""The official client of Kubernetes, as a program in an environment of its own.

Arguments: URL of the API server, CA file, token, namespace, name of a secret that is
there, name of a secret to make, certificate and key (files). Prints JSON about what the
client made of it.
"""

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path

from kubernetes import client
from kubernetes.client.rest import ApiException

url, ca_file, token, namespace, known, fresh, certificate, key = sys.argv[1:]
settings = client.Configuration(host=url)
settings.ssl_ca_cert = ca_file
settings.api_key = {"authorization": token}
settings.api_key_prefix = {"authorization": "Bearer"}


def code_of(call: Callable[..., object], *arguments: object, **more: object) -> int:
    """Return the status that a call is refused with."""
    try:
        call(*arguments, **more)
    except ApiException as refusal:
        return int(refusal.status)
    return 200


with client.ApiClient(settings) as api:
    core = client.CoreV1Api(api)
    found = core.read_namespaced_secret(known, namespace)
    data = {
        field: base64.b64encode(Path(path).read_bytes()).decode()
        for field, path in (("tls.crt", certificate), ("tls.key", key))
    }
    wanted = client.V1Secret(
        metadata=client.V1ObjectMeta(name=fresh), type="kubernetes.io/tls", data=data
    )
    made = core.create_namespaced_secret(namespace, wanted)
    # The first patch takes the version away from under the second one.
    metadata = {"resourceVersion": made.metadata.resource_version}
    patch = {"metadata": metadata, "data": data}
    kind = {"_content_type": "application/merge-patch+json"}
    first = core.patch_namespaced_secret(fresh, namespace, patch, **kind)
    stale = code_of(core.patch_namespaced_secret, fresh, namespace, patch, **kind)
    listed = core.list_namespaced_secret(
        namespace, field_selector="type=kubernetes.io/tls", limit=1
    )
    ingresses = client.NetworkingV1Api(api).list_namespaced_ingress(namespace)
    core.delete_namespaced_secret(fresh, namespace)
    print(
        json.dumps(
            {
                "type": found.type,
                "tls.crt": found.data["tls.crt"],
                "changed": first.metadata.resource_version != made.metadata.resource_version,
                "stale": stale,
                "duplicate": code_of(
                    core.create_namespaced_secret,
                    namespace,
                    client.V1Secret(
                        metadata=client.V1ObjectMeta(name=known),
                        type="kubernetes.io/tls",
                        data=data,
                    ),
                ),
                "listed": [one.metadata.name for one in listed.items],
                "more": bool(listed.metadata._continue),
                "secrets": [tls.secret_name for one in ingresses.items for tls in one.spec.tls],
                "gone": code_of(core.read_namespaced_secret, fresh, namespace),
            }
        )
    )
