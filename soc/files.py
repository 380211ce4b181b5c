"""Files that commands read and write. A result appears only when it is complete, and never replaces an input.

Every output of a command is written through `whole_file` or appended by a store's `Appender`. Every command first calls
`refuse_overwriting` with all its inputs and outputs.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from soc.errors import FileError, OverwriteError

TEXT_MOST_BYTES = 4 << 20
STANDARD = "-"  # standard input or output, instead of a path
PathLike = str | Path
Identity = tuple[int, int] | str
"""Device and inode of a file that exists, else its absolute path without symbolic links."""


def refuse_overwriting(outputs: Iterable[PathLike | None], inputs: Iterable[PathLike | None]) -> None:
    """Raise `OverwriteError` if an output is the same file as an input, lies in an input directory, or is given twice.

    Hard and symbolic links, relative paths and redirected standard input and output count as the files they refer to.
    None stands for an option that was not given.
    """
    read = [path for path in inputs if path is not None]
    known = {identity: path for path in read if (identity := _identity(path, sys.stdin)) is not None}
    folders = [folder for path in read if (folder := _folder(path)) is not None]
    written: dict[Identity, PathLike] = {}
    for path in outputs:
        identity = None if path is None else _identity(path, sys.stdout)
        if path is None or identity is None:
            continue
        if identity in known:
            raise OverwriteError(f"{path}: the result would overwrite the input {known[identity]}; choose another name")
        if identity in written:
            raise OverwriteError(f"{path}: two results would overwrite each other; choose another name")
        parents = () if str(path) == STANDARD else Path(os.path.realpath(path)).parents
        inside = [folder for folder in folders if folder in parents]
        if inside:
            raise OverwriteError(f"{path}: lies in the input folder {inside[0]}; choose another place")
        written[identity] = path


def _identity(path: PathLike, standard: IO[Any]) -> Identity | None:
    """Return what identifies this file; None for anything else: a terminal, a pipe, a device, an impossible name."""
    try:
        found = os.fstat(standard.fileno()) if str(path) == STANDARD else Path(path).stat()
    except FileNotFoundError:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _folder(path: PathLike) -> Path | None:
    """Return the directory without symbolic links, if the path is one."""
    try:
        return Path(os.path.realpath(path)) if str(path) != STANDARD and Path(path).is_dir() else None
    except ValueError:  # a NUL in the name
        return None


def opened(path: PathLike) -> IO[bytes]:
    """Open the file to read its bytes. Raises `FileError` naming it."""
    try:
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        raise FileError(f"{shown(path)}: {reason(error)}") from error


def text_of(path: PathLike) -> str:
    """Return the whole text of a hand-written file: a cell, experiments, a secret.

    Raises `FileError` if it cannot be read or has more than 4 MiB, `UnicodeDecodeError` if it is not UTF-8.
    """
    with opened(path) as file:
        try:
            data = file.read(TEXT_MOST_BYTES + 1)
        except OSError as error:
            raise FileError(f"{shown(path)}: {reason(error)}") from error
    if len(data) > TEXT_MOST_BYTES:
        raise FileError(f"{shown(path)}: more than {TEXT_MOST_BYTES} bytes; is this the right file?")
    return data.decode("utf-8")


@contextmanager
def whole_file(path: PathLike, mode: str = "wb", *, sync: bool = False) -> Iterator[IO[Any]]:
    """Open a file that takes this name only when the block ends without an error; `-` is standard output.

    A symbolic link is kept: the file behind it is replaced. A device or a pipe is written to directly. `sync`: the data
    are on the disk before the file takes the name. Raises `FileError` if it cannot be created or completed.
    """
    if str(path) == STANDARD:
        yield sys.stdout.buffer if "b" in mode else sys.stdout
        return
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        target = Path(os.path.realpath(path))
        is_special = target.exists() and not target.is_file()
        part = target if is_special else target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        # "x": a file that another process created under that name is not overwritten
        file = part.open(mode if is_special else mode.replace("w", "x"), **text)  # type: ignore[call-overload]
    except (OSError, ValueError) as error:
        raise FileError(f"{shown(path)}: cannot be written: {reason(error)}") from error
    try:
        with file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if not is_special:
            part.replace(target)
    except OSError as error:
        if error.filename not in (None, str(part)) or isinstance(error, BrokenPipeError):
            raise
        raise FileError(f"{shown(path)}: cannot be written: {reason(error)}") from error
    finally:
        if not is_special:
            part.unlink(missing_ok=True)


def reason(error: OSError | ValueError) -> str:
    """Return the operating system's message without its number and without the file name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def shown(path: PathLike) -> str:
    """Return the path as text that every terminal shows: a NUL or a lone surrogate as an escape."""
    text = str(path)
    return text if text.isprintable() else text.encode("unicode_escape").decode()
