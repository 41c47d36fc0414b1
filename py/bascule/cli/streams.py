"""The command line's standard streams: their errors are one line, never a traceback."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO, cast

from bascule.errors import InputError, SetupError


class ReaderGoneError(Exception):
    """The reader of stdout has ended, as `| head` does."""


class Output(io.TextIOBase):
    """Stdout as commands print to it; `stream` is None if it is closed.

    SetupError if it cannot be written, ReaderGoneError if its reader has ended. What its encoding
    lacks is printed as Python's escapes, and a line on stderr says so once.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._warned = False

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The stream's encoding."""
        return self._stream.encoding if self._stream is not None else "utf-8"

    @property
    def errors(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """How characters are handled that the encoding lacks."""
        return "backslashreplace"

    def writable(self) -> bool:
        """See `io.IOBase.writable`."""
        return True

    def isatty(self) -> bool:
        """See `io.IOBase.isatty`."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """See `io.IOBase.fileno`."""
        if self._stream is None:
            raise io.UnsupportedOperation("stdout is closed")
        return self._stream.fileno()

    def write(self, text: str, /) -> int:
        """Write text."""
        if self._stream is None:
            hint = "Run it where its answer can go: a terminal, a file or a pipe."
            raise SetupError("The answer cannot be printed: stdout is closed.", hint=hint)
        with self._errors_named():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(self._escaped(text))
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        if self._stream is not None:
            with self._errors_named():
                self._stream.flush()

    def discard(self) -> None:
        """Drop what is still buffered, which Python would try to write at exit."""
        if self._stream is None:
            return
        with suppress(OSError):  # a stream that is no file has no number
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    @contextmanager
    def _errors_named(self) -> Generator[None]:
        try:
            yield
        except BrokenPipeError:
            raise ReaderGoneError from None
        except OSError as error:
            hint = "Make room there, or send the output somewhere else."
            why = error.strerror or str(error)
            raise SetupError(f"The answer cannot be written to stdout: {why}.", hint=hint) from None

    def _escaped(self, text: str) -> str:
        if not self._warned:
            self._warned = True
            print(
                f"bascule: stdout's encoding is {self.encoding}, which lacks some of these "
                "characters: they are printed as escapes. PYTHONUTF8=1 makes it UTF-8.",
                file=sys.stderr,
            )
        return text.encode(self.encoding, "backslashreplace").decode(self.encoding)


@contextmanager
def standard_streams() -> Generator[Output]:
    """Replace sys.stdout by an Output, and a closed stderr by a writable one."""
    before = sys.stdout, sys.stderr
    output = Output(before[0])
    sys.stdout = cast("TextIO", output)
    # print() to a stderr of None would write to stdout.
    nowhere = open(os.devnull, "w") if before[1] is None else None  # noqa: SIM115  # pyright: ignore[reportUnnecessaryComparison]
    if nowhere is not None:
        sys.stderr = nowhere
    try:
        yield output
    finally:
        sys.stdout, sys.stderr = before
        if nowhere is not None:
            nowhere.close()


@contextmanager
def reading() -> Generator[TextIO]:
    """Yield stdin, while Ctrl+C interrupts at once; SetupError if it is closed or not text.

    Inside `asyncio.run` the first Ctrl+C only cancels the task: a blocking read would continue.
    """
    stdin: TextIO | None = sys.stdin
    if stdin is None:
        raise SetupError("There is nothing to read: stdin is closed.", hint="Give it as arguments.")
    here = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.default_int_handler) if here else None
    try:
        yield stdin
    except UnicodeDecodeError as error:
        why = f"byte {error.object[error.start]:#04x} is no {error.encoding}"
        hint = "Convert it, or name its encoding in PYTHONIOENCODING."
        raise SetupError(f"Stdin cannot be read: {why}.", hint=hint) from None
    except OSError as error:
        raise SetupError(f"Stdin cannot be read: {error.strerror or error}.") from None
    finally:
        if here:
            signal.signal(signal.SIGINT, before)


def texts_or_lines(command: str, texts: Sequence[str]) -> list[str]:
    """Return a command's texts, or else the lines of stdin; InputError if there are none."""
    if texts:
        return list(texts)
    with reading() as stdin:
        lines = [line.rstrip("\n") for line in stdin]
    if not lines:
        raise InputError(command, "at least one text", "none", hint="Give texts or lines on stdin.")
    return lines
