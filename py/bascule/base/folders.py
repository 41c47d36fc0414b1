"""Bascule's folders on a native machine, and safe opening and replacing of files."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import IO

from bascule.errors import InputError, SetupError

PART = ".part"
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def cache_folder() -> Path:
    """Return BASCULE_CACHE, else the user's cache folder for bascule; it is not created."""
    result = _folder_of("BASCULE_CACHE")
    if result:
        return result
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("bascule"))


def models_folder() -> Path:
    """Return the folder of pulled models, a folder each."""
    return cache_folder() / "models"


def remembered_folder() -> Path:
    """Return BASCULE_REMEMBERED, else a subfolder of the cache, for facts about this machine."""
    return _folder_of("BASCULE_REMEMBERED") or cache_folder() / "remembered"


def weights_folder() -> Path:
    """Return BASCULE_WEIGHTS, else a subfolder of the cache: files fetched from servers."""
    return _folder_of("BASCULE_WEIGHTS") or cache_folder() / "weights"


def _folder_of(variable: str) -> Path | None:
    """Return the folder that an environment variable names; SetupError for an unknown ~USER."""
    value = os.environ.get(variable)
    if not value:
        return None
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise SetupError(
            f"{variable} is {value!r}, and that user's home folder is not known.",
            hint="Give a full path.",
        ) from None


def local_path(location: str) -> Path:
    """Return a user's path with ~ expanded; InputError for one that no file can have."""
    try:
        path = Path(location).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.stat()
    except (OSError, ValueError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        result = f"{location[:80]!r} ({why})"
        raise InputError("model location", "a folder's path or a URL", result) from None
    return path


def unusable(error: OSError) -> SetupError:
    """Return the error for a folder of Bascule's that cannot be read or written."""
    return SetupError(
        f"{error.filename or 'The cache folder'} cannot be used ({error.strerror or error}).",
        hint="Is it yours? BASCULE_CACHE names another cache folder.",
    )


def file_nbytes(path: Path) -> int:
    """Return a regular file's size; OSError for anything else (folder, pipe, device, socket)."""
    result = path.stat()
    _check_regular(result.st_mode, path)
    return result.st_size


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading without blocking; OSError for anything else."""
    file_nbytes(path)  # opening a device may already act on it
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.fdopen(os.open(path, flags), "rb")
    try:
        _check_regular(os.fstat(handle.fileno()).st_mode, path)
    except OSError:
        handle.close()
        raise
    return handle


def _check_regular(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


def write_whole(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file atomically, through a new file with a random name beside it. OSError.

    A symbolic link at `path` is replaced, not followed. `mode` is subject to the umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f".{path.name[:40]}.{secrets.token_hex(8)}{PART}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(scratch, flags, mode)
    try:
        with os.fdopen(handle, "wb") as sink:
            lock_file(sink, exclusive=True)
            sink.write(data)
        os.replace(scratch, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(scratch)
        raise


def is_abandoned(part: Path) -> bool:
    """Whether the process that wrote a .part file of `write_whole` has ended."""
    try:
        with part.open("rb") as handle:
            lock_file(handle, exclusive=True)
    except OSError:
        return False
    return True


def lock_file(handle: IO[bytes], *, exclusive: bool) -> None:
    """Lock an open file until it is closed; OSError if it is locked. Does nothing without POSIX."""
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
