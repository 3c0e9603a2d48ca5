"""Files that are written whole or not at all, errors that say what to do, and exit codes."""

import contextlib
import io
import os
import signal
import sys
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
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # already renamed where all went well
            part.unlink()


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
        sys.exit(
            error_line(
                f"{place}: {error.strerror}; check its permissions and the free space there, "
                "or choose another place with --data-dir or --results-dir"
            )
        )
    except KeyboardInterrupt as error:
        print(
            f"interrupted; {resume_hint} continues after the last finished epoch", file=sys.stderr
        )
        sys.exit(143 if isinstance(error, Terminated) else 130)


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
