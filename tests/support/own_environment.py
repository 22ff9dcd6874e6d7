"""Python programs that need an environment of their own: made once from pinned hashes, kept."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

_REQUIREMENTS = Path(__file__).parents[2] / "requirements"


def own_environment(name: str) -> Path:
    """Return the folder of an environment with ``requirements/<name>.txt``."""
    requirements = _REQUIREMENTS / f"{name}.txt"
    version = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "certrail-tests"
    cache.mkdir(parents=True, exist_ok=True)
    environment = cache / f"{name}-{version}"
    done = environment / ".done"
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(environment, ignore_errors=True)
            _run(sys.executable, "-m", "venv", str(environment))
            install = ["install", "-q", "--require-hashes", "-r", str(requirements)]
            python = environment / "bin" / "python"
            uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
            if uv:
                _run(uv, "pip", *install, "--python", str(python))
            else:
                _run(str(python), "-m", "pip", *install)
            done.touch()
    return environment


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{' '.join(argv)}:\n{done.stderr[-2000:]}"
