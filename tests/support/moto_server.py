"""AWS on this machine: moto's server, in an environment of its own that is made once and kept.

It checks signatures' access keys and IAM policies once :meth:`Aws.enforce` was called.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]

from tests.support.own_environment import own_environment
from tests.support.process import free_port, running

REGION = "eu-central-1"


@dataclass(frozen=True)
class Aws:
    """A running moto.

    Attributes:
        url: the endpoint of every service.
        port: of it.
        access_key_id, secret_access_key: of an administrator.
    """

    url: str
    port: int
    access_key_id: str
    secret_access_key: str

    def client(self, service: str) -> Any:
        """Return an administrator's client."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
        )

    def user(self, name: str, *actions: str) -> tuple[str, str]:
        """Make a user who may do *actions*; return access key id and secret."""
        return _user(self.client("iam"), name, actions)

    def enforce(self) -> None:
        """Refuse unknown access keys and missing permissions from now on."""
        request = urllib.request.Request(
            f"{self.url}/moto-api/reset-auth",
            data=b"0",
            headers={"Content-Type": "text/plain"},
            method="POST",
        )
        urllib.request.urlopen(request, timeout=20).close()


@contextmanager
def aws(folder: Path) -> Iterator[Aws]:
    """Run moto."""
    port = free_port()
    program = own_environment("moto") / "bin" / "moto_server"
    argv = [str(program), "-H", "127.0.0.1", "-p", str(port)]
    with running(argv, log=folder / "moto.log", port=port, cwd=folder, within=60):
        url = f"http://127.0.0.1:{port}"
        first = Aws(url, port, "AKIAINITIALEXAMPLE00", "lab-initial-secret-access-key")
        yield Aws(url, port, *_user(first.client("iam"), "administrator", ("*",)))


def _user(iam: Any, name: str, actions: tuple[str, ...]) -> tuple[str, str]:
    iam.create_user(UserName=name)
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    iam.put_user_policy(UserName=name, PolicyName="lab", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]
