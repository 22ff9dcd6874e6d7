"""Keys of every kind, and helpers that do not outlive the process they work for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certrail.keys.generate import generate
from certrail.model import KeyAlgorithm
from tests.support.process import wait_for

_ENDS_AT_ONCE = """\
import os, psutil
from certrail.keys.generate import generate
from certrail.model import KeyAlgorithm
if __name__ == "__main__":
    generate(KeyAlgorithm.RSA_2048)
    print(*(p.pid for p in psutil.Process().children(recursive=True)), flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_the_key_is_what_was_asked_for(algorithm: KeyAlgorithm) -> None:
    """A CA refuses another size, long after the CSR was made."""
    key = serialization.load_pem_private_key(generate(algorithm).reveal(), password=None)

    if isinstance(key, rsa.RSAPrivateKey):
        assert algorithm == f"rsa-{key.key_size}"
    else:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert algorithm == f"ecdsa-p{key.curve.key_size}"


def test_helpers_end_with_a_process_that_ends_without_a_farewell(tmp_path: Path) -> None:
    """A worker that is killed would leave three processes behind, each time."""
    script = tmp_path / "worker.py"
    script.write_text(_ENDS_AT_ONCE)
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, str(script)],
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    helpers = [int(word) for word in done.stdout.split()]
    assert helpers

    wait_for(lambda: not any(map(psutil.pid_exists, helpers)), "the helpers end")
