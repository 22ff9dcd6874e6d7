"""Start child processes: as an ordinary account when we are root, and never orphaned.

PostgreSQL refuses to run as root. The account it gets instead must reach the
program and its data, but either may lie below a folder that only root can
enter (``/root``, a private temporary folder). Then the child keeps one
capability, searching folders, instead of anybody's folder being opened up.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
# linux/capability.h
_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION_3 = 0x20080522

_CANDIDATES = ("certrail", "postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine that a child process runs as.

    Attributes:
        uid: numeric user.
        gid: numeric primary group.
    """

    uid: int
    gid: int

    @property
    def is_us(self) -> bool:
        """Whether the child needs no change of user."""
        return self.uid == os.geteuid()

    def owns(self, path: Path) -> None:
        """Give *path* to this account."""
        if not self.is_us:
            os.chown(path, self.uid, self.gid)


def service_account(existing: Path) -> Account:
    """Return the account for a server that refuses root.

    That is ourselves unless we are root; then the owner of *existing* data,
    else the first of ``certrail``, ``postgres``, ``nobody`` that exists.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    if existing.exists() and (status := existing.stat()).st_uid != 0:
        return Account(status.st_uid, status.st_gid)
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    # An unused number does as well: Linux does not ask for an entry.
    return Account(65534, 65534)


def can_enter(account: Account, path: Path) -> bool:
    """Return whether *account* may pass through every folder above *path* and into it."""
    for folder in (path, *path.parents):
        status = folder.stat()
        if status.st_uid == account.uid:
            allowed = status.st_mode & 0o100
        elif status.st_gid == account.gid:
            allowed = status.st_mode & 0o010
        else:
            allowed = status.st_mode & 0o001
        if not allowed:
            return False
    return True


def child_setup(
    death_signal: signal.Signals,
    account: Account | None = None,
    *,
    search_everywhere: bool = False,
) -> Callable[[], None]:
    """Return what a child does between fork and exec.

    It leaves the terminal's process group, so that Ctrl-C reaches only the
    parent and stopping keeps its order; becomes *account*; and asks the kernel
    for *death_signal* when the thread that started it ends. With
    *search_everywhere* it keeps the capability to pass through any folder.
    """
    parent = os.getpid()
    capability = _capability() if search_everywhere else None

    def prepare() -> None:
        os.setpgid(0, 0)
        if account is not None and not account.is_us:
            if capability is not None:
                _LIBC.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
            os.setgroups([])
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
            if capability is not None:
                _keep(capability)
        # A change of user clears the death signal, so it is set last; the
        # parent may have died in between.
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _capability() -> int:
    # Reading is the smaller right, but container runtimes usually drop it and
    # leave the larger one.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapPrm:") and int(line.split()[1], 16) >> _CAP_DAC_READ_SEARCH & 1:
            return _CAP_DAC_READ_SEARCH
    return _CAP_DAC_OVERRIDE


def _keep(capability: int) -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    mask = 1 << capability
    # effective, permitted, inheritable; then the same for capabilities 32-63
    data = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    _LIBC.capset(header, data)
    _LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)
