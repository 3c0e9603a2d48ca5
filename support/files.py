"""Files that are written whole or not at all."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears at `path` complete, by rename, or not at all.

    Raises:
        OSError: naming `path`, whatever failed on the way there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # "~" cannot stand in the name of a run: so f".{path.name}.~*.part" finds what killed
        # processes left of this file, and of no other.
        descriptor, part = tempfile.mkstemp(".part", f".{path.name}.~", path.parent)
        try:
            with open(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(PermissionError):  # some network folders allow no chmod
                os.chmod(part, 0o666 & ~current_umask())  # as any new file's; mkstemp's are private
            os.replace(part, path)
        finally:
            with contextlib.suppress(OSError):  # already renamed where all went well
                os.unlink(part)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def current_umask() -> int:
    """Return the permissions that a new file of this process does not get."""
    umask = os.umask(0)  # the only way to read it is to set it
    os.umask(umask)
    return umask


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder that others may be writing to as
    well: files that are an hour old."""
    for leftover in folder.glob(".*.part"):
        with contextlib.suppress(FileNotFoundError):  # just renamed, or removed, by another process
            if time.time() - leftover.stat().st_mtime > 3600:
                leftover.unlink()
