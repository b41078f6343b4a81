"""Word from the kernel that a file was written to, where it gives such word."""

import ctypes
import errno
import os
import struct
import sys
from typing import Protocol

from oban_actors.notifiers.guard import Guard

_MODIFY = 0x2
_IGNORED = 0x8000
_EVENT = struct.Struct("iIII")
_BUFFER = 1 << 16


class Watch(Protocol):
    """Something that becomes readable when a file is written to."""

    def fileno(self) -> int:
        """Give the descriptor to wait for."""

    def drain(self) -> bool:
        """Take what was said; False if the file is gone and nothing more will be."""

    def close(self) -> None:
        """Stop watching, from any thread."""


def watch_file(path: str) -> Watch | None:
    """Watch a file for writes by any process of this machine.

    Args:
        path: of a file that is there.

    Returns:
        the watch, or None where there is none to be had.

    """
    if sys.platform != "linux":
        return None
    try:
        return _Inotify(path)
    except (OSError, AttributeError):
        # No file, no watches left for this user, or a C library without them.
        return None


class _Inotify:
    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        # Its flags have the values of `open`'s.
        self._descriptor = _checked(library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._guard = Guard(lambda: os.close(self._descriptor))
        try:
            _checked(library.inotify_add_watch(self._descriptor, os.fsencode(path), _MODIFY))
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        return self._descriptor

    def drain(self) -> bool:
        try:
            with self._guard.used() as there:
                events = os.read(self._descriptor, _BUFFER) if there else b""
        except BlockingIOError:
            return True
        # Watching one file, events carry no name, so they are all of one size.
        return not any(mask & _IGNORED for _, mask, _, _ in _EVENT.iter_unpack(events))

    def close(self) -> None:
        self._guard.end()


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno() or errno.EINVAL
        raise OSError(code, os.strerror(code))
    return result
