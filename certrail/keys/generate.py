"""Making private keys."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certrail.model import KeyAlgorithm
from certrail.private_key import PrivateKeyPem

_CURVES: dict[KeyAlgorithm, type[ec.EllipticCurve]] = {
    KeyAlgorithm.ECDSA_P256: ec.SECP256R1,
    KeyAlgorithm.ECDSA_P384: ec.SECP384R1,
}
_RSA_BITS = {
    KeyAlgorithm.RSA_2048: 2048,
    KeyAlgorithm.RSA_3072: 3072,
    KeyAlgorithm.RSA_4096: 4096,
}

_pool: ProcessPoolExecutor | None = None
_pool_lock = threading.Lock()


def generate(algorithm: KeyAlgorithm) -> PrivateKeyPem:
    """Return a new key in PKCS #8.

    An RSA key costs 60 to 90 ms of CPU and holds the interpreter for as
    long, so those are made in helper processes; the text comes back over a
    pipe that only the two processes share.
    """
    if algorithm in _CURVES:
        return PrivateKeyPem(_pkcs8(ec.generate_private_key(_CURVES[algorithm]())))
    return PrivateKeyPem(_processes().submit(_rsa, _RSA_BITS[algorithm]).result())


def _rsa(bits: int) -> bytes:
    return _pkcs8(rsa.generate_private_key(public_exponent=65537, key_size=bits))


def _pkcs8(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _processes() -> ProcessPoolExecutor:
    global _pool
    with _pool_lock:
        if _pool is None:
            # Not fork: the worker that calls this has threads and sockets.
            context = multiprocessing.get_context("forkserver")
            _pool = ProcessPoolExecutor(
                max_workers=2, mp_context=context, initializer=_end_with_parent
            )
            atexit.register(_pool.shutdown, wait=False, cancel_futures=True)
        return _pool


def _end_with_parent() -> None:
    """Let this helper end when the process it works for does, however that happens.

    A worker ends without a farewell (``os._exit``, SIGKILL), and a helper that
    waits for work would wait for ever: it holds the other end of its own pipe.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(0)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()
