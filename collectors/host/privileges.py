"""Continue as the owner of a directory: files that a root command leaves there must be usable by the services.

Root must not follow links that an unprivileged service has put into its own directory either, so privileges are dropped
before anything there is opened. One capability is kept, CAP_DAC_READ_SEARCH: it is needed to traverse the directories
above, since systemd keeps those of dynamic users where only root may enter. Writing uses the owner's rights alone.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

PR_SET_KEEPCAPS = 8  # prctl(2)
CAPABILITY_VERSION_3, CAP_DAC_READ_SEARCH = 0x20080522, 2  # capabilities(7), linux/capability.h


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Rights(ctypes.Structure):
    """One of the two halves of capset(2)'s data; the second holds capabilities above 31."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def become_owner(folder: Path) -> None:
    """Continue as the directory's owner if this is root and the directory is not. OSError where that is not allowed."""
    owner = folder.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    os.setgroups([])
    os.setgid(owner.st_gid)
    _must(libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setuid(owner.st_uid)
    kept = 1 << CAP_DAC_READ_SEARCH
    rights = (_Rights * 2)(_Rights(kept, kept, 0), _Rights(0, 0, 0))
    _must(libc.capset(ctypes.byref(_Header(CAPABILITY_VERSION_3, 0)), rights))


def _must(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
