"""Errors of one line: what is wrong, where it stands, and what would be right."""

import math
import os
import re
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from unicodedata import category

PATIENCE = 5  # seconds in which torchrun ends the processes beside one that has failed


class InputError(ValueError):
    """Something in a user's file, folder or flag is not right. `lines` are all that is wrong.
    The user is shown the message as it is, or the first of very many lines."""

    def __init__(self, message: str = ""):
        super().__init__(message)
        self.lines = message.split("\n")

    def __str__(self) -> str:
        return first_lines([printable(line, 1000) for line in self.lines])


def printable(text: str, most: int = 10**9) -> str:
    """A text from a file or a flag as a terminal can show it: in one line, and without control codes.
    Control characters and marks that turn the direction are escaped; beyond `most` characters it is cut."""
    if not text.isprintable():
        text = "".join(map(escape_letter, text))
    return text if len(text) <= most else f"{text[:most]} …"


def escape_letter(letter: str) -> str:
    """A letter, or how Python writes it if a terminal would not show it. Joiners, and any blank, stay."""
    is_shown = letter.isprintable() or letter in "\u200c\u200d" or category(letter) == "Zs"
    return letter if is_shown else ascii(letter)[1:-1]


class Terminated(KeyboardInterrupt):
    """A scheduler or a user ends the program (SIGTERM)."""

    status = 143


class HungUp(KeyboardInterrupt):
    """The terminal is gone (SIGHUP)."""

    status = 129


class Unread(KeyboardInterrupt):
    """Nobody reads on what the program prints (a closed pipe)."""

    status = 141


SIGNALS = {"SIGINT": KeyboardInterrupt, "SIGTERM": Terminated, "SIGHUP": HungUp}


def end_quietly():
    """Lets Ctrl-C end a program without a traceback until `run_program` begins: torch is slow to import."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def signals_as_errors():
    """Makes each signal that ends a program raise its kind of KeyboardInterrupt.
    A second signal within one second is ignored, so that it does not disturb the end."""
    usual, heeded = {}, [-math.inf]

    def stop(kind, number, frame):
        if time.monotonic() - heeded[-1] > 1:
            heeded.append(time.monotonic())
            raise kind

    if threading.current_thread() is threading.main_thread():
        for name, kind in SIGNALS.items():
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number and signal.getsignal(number) != signal.SIG_IGN:  # as nohup wants it
                usual[number] = signal.signal(number, partial(stop, kind))
    try:
        yield
    finally:
        for number, handler in usual.items():
            if handler == signal.SIG_DFL and number == signal.SIGINT:  # `end_quietly` is over
                handler = signal.default_int_handler
            if number != signal.SIGINT or len(heeded) == 1:  # else a second Ctrl-C is still ignored
                signal.signal(number, handler)


def first_lines(lines: list[str], most: int = 20) -> str:
    """The first lines, and how many more there are.
    Lines are of one kind if they differ only in file, quoted text, or numbers that are not field indexes."""
    more = lines[most:]
    if not more:
        return "\n".join(lines)
    kinds = {re.sub(r"'.*?'|\".*?\"|(?<!\[)(?<!\d)\d+", "", line.partition(", ")[2] or line) for line in more}
    counted = f"{len(kinds)} kind{'s' * (len(kinds) > 1)}"
    return "\n".join([*lines[:most], f"and {len(more):,} more, of {counted}"])


def warn(lines: list[str]):
    """Prints warnings to stderr. Of several processes, only the first one prints."""
    if lines and os.environ.get("RANK", "0") == "0":
        print(InputError("\n".join(lines)), file=sys.stderr)


@contextmanager
def explain_errors(where, form: str):
    """Turns an error in reading a record into one line: where it stands, what is wrong, its right form."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__} {error}"
        if isinstance(error, InputError):
            reason = "; ".join(error.lines)
        raise InputError(f"{where}: {reason}; it must be {form}") from None


def read_each(read, items) -> list:
    """`read(*item)` of each item. If some are wrong, one error has a line for each fault."""
    return list(read_in_turn(read, items))


def read_in_turn(read, items):
    """Yields what `read_each` returns, one by one. After an error nothing more is
    yielded: the rest is only read to list its errors, up to 10,000."""
    lines = []
    try:
        for item in items:
            try:
                result = read(*item)
            except InputError as error:
                lines += error.lines
                if len(lines) > 10_000:  # the input may have no end
                    break
                continue
            if not lines:
                yield result
    except InputError as error:  # of `items` itself: nothing behind it can be read
        lines += error.lines
    if lines:
        raise InputError("\n".join(lines))


def excerpt(value) -> str:
    """A value from a file, short enough for a line, in ASCII."""
    if value is None:
        return "null"
    return shorten(ascii(value), 60)


def shorten(text: str, most: int) -> str:
    """The beginning of a long text."""
    return text if len(text) <= most else f"{text[: most - 2]} …"


def keys_of(item: dict) -> str:
    """The keys of an object from a file, short enough for a line, in ASCII."""
    keys = ascii(", ".join(item))[1:-1]
    return f"the keys {shorten(keys, 100)}" if keys else "no keys"


def one_line(error: Exception) -> str:
    """What an exception of a library says, in one line with its kind; an InputError is as it is."""
    if isinstance(error, InputError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def refuse_flags(message: str):
    """Reports what argparse finds wrong as one line."""
    raise InputError(f"{message}; --help lists the flags")


def is_first() -> bool:
    """Whether this is the first of the processes that torchrun started on this machine, or the only one."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("LOCAL_RANK", "0") == "0"


def explain_output(error: OSError) -> InputError | Unread:
    """What it means for a program that its output, or another file, cannot be written."""
    if isinstance(error, BrokenPipeError):
        return Unread("nobody reads the output")
    return InputError(f"{error.filename or 'output'}: {error.strerror or error}")


def run_program(action) -> int:
    """Runs `action()` and returns the exit status: 0; 2 after printing an error; 128 + signal.
    Of several processes the first prints. The others wait before they print: if the first one failed, too,
    torchrun ends them meanwhile."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # where it was closed
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's cannot
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that have no é
    status, message = 0, ""
    with signals_as_errors():
        try:
            action()
            sys.stdout.flush()
        except InputError as error:
            status, message = 2, error
        except KeyboardInterrupt as stopped:  # it says how to go on, where that is possible
            status = getattr(stopped, "status", 130)
            message = "; ".join(["stopped", *map(str, stopped.args)])
        except BrokenPipeError:  # as behind `| head`
            status = Unread.status
        except OSError as error:
            status, message = 2, explain_output(error)
        with suppress(OSError):  # where stderr cannot be written, either
            if message and is_first():
                print(message, file=sys.stderr)
        with suppress(OSError):  # where stdout is no file
            if status == Unread.status:  # what is left has nowhere to go
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if status == 2 and not is_first():
        time.sleep(PATIENCE)
        print(message, file=sys.stderr)
    return status
