"""Errors that say what to do, and how a program ends: one line and an exit code."""

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable


class DataError(Exception):
    """The data cannot be used. The message is one line: what, which file or member, what to do."""


class RunError(Exception):
    """The run cannot start or continue. The message is one line: what, and what to do."""


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
    if threading.current_thread() is threading.main_thread():  # no other may set a handler
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
    """Return what is wrong with a file, and what helps (on Windows, no open file is replaced)."""
    if isinstance(error, FileNotFoundError):
        return "does not exist; check its name"
    remedy = "choose another place with --data-dir or --results-dir"
    if isinstance(error, PermissionError):
        remedy = f"check permissions and what has it open (--resume continues a run), or {remedy}"
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
