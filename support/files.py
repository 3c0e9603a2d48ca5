"""Files that are written whole or not at all, errors that say what to do, and exit codes."""

import contextlib
import errno
import io
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


class DataError(Exception):
    """The data cannot be used. The message is one line: what, which file or member, what to do."""


class RunError(Exception):
    """The run cannot start or continue. The message is one line: what, and what to do."""


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


def run_program(program: Callable[[], None], resume_hint: str) -> None:
    """Run the command line of this process; turn what goes wrong into one line and an exit code.

    Args:
        resume_hint: how to continue `program` after Ctrl-C.
    """
    if sys.stderr is None:  # whoever started this process has closed it, and tqdm would fail
        sys.stderr = io.StringIO()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name may hold what it cannot encode
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, raise_terminated)
    try:
        try:
            program()
        finally:
            flush_output()
    except (DataError, RunError) as error:
        sys.exit(error_line(str(error)))
    except BrokenPipeError:  # the reader of the output has left, as `| head` does
        sys.exit(141)  # what a shell reports for SIGPIPE
    except OSError as error:
        place = error.filename or "a file, or standard output"
        sys.exit(error_line(f"{place}: {reason_and_remedy(error)}"))
    except KeyboardInterrupt as error:
        print(
            f"interrupted; {resume_hint} continues after the last finished epoch", file=sys.stderr
        )
        sys.exit(143 if isinstance(error, Terminated) else 130)


def reason_and_remedy(error: OSError) -> str:
    """Return what is wrong with a file, and what helps."""
    if isinstance(error, FileNotFoundError):
        return "does not exist; check its name"
    remedy = "choose another place with --data-dir or --results-dir"
    if isinstance(error, PermissionError):
        remedy = f"check its permissions, or {remedy}"
    elif isinstance(error, FileExistsError | NotADirectoryError):  # a file in a folder's place
        remedy = f"move it, or {remedy}"
    elif error.errno == errno.ENOSPC:
        remedy = f"free some space there, or {remedy}"
    return f"{error.strerror or error}; {remedy}"


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM, so that half-written files are removed, as after Ctrl-C."""


def raise_terminated(signum: int, frame: object) -> None:
    raise Terminated


def flush_output() -> None:
    """Flush standard output. What cannot be printed is dropped: otherwise Python would try again at
    exit, and print a message of its own.

    Raises:
        OSError: naming standard output.
    """
    try:
        print(end="", flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OSError(error.errno, error.strerror, "standard output") from error


def error_line(message: str) -> str:
    """Return the one line that reports an error."""
    return f"error: {printable(message)}"


def printable(text: str) -> str:
    """Return `text` on one line: a line break or an escape sequence is shown as its code."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
