"""Errors of one line: what is wrong, where it stands, and what would be right."""

import os
import sys
import textwrap
from contextlib import contextmanager


class InputError(ValueError):
    """Something in a user's file, folder or flag is not right. The message is shown to the user as it is."""


@contextmanager
def explain_errors(where, form: str):
    """Turns an error in reading a record into one line: where it stands, what is wrong, its right form."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__} {error}"
        if isinstance(error, InputError):
            reason = "; ".join(str(error).splitlines())
        raise InputError(f"{where}: {reason}; it must be {form}") from None


def read_each(read, items) -> list:
    """`read(*item)` of each item. If some are wrong, one error lists all that is wrong, a line each."""
    results, errors = [], []
    for item in items:
        try:
            results.append(read(*item))
        except InputError as error:
            errors.append(str(error))
    if errors:
        raise InputError("\n".join(errors))
    return results


def excerpt(value) -> str:
    """A value from a file, short enough for a line, in ASCII."""
    if value is None:
        return "missing or null"
    return textwrap.shorten(ascii(value), 60, placeholder=" …") or "blank"


def one_line(error: Exception) -> str:
    """What an exception of a library says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def refuse_flags(message: str):
    """Reports what argparse finds wrong as one line."""
    raise InputError(f"{message}; --help lists the flags")


def run_program(action) -> int:
    """Runs `action()` and returns the exit status: 0; 2 after one line about an error; 130 when stopped."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # where it was closed
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's cannot
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that have no é
    try:
        action()
        sys.stdout.flush()
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:  # it says how to go on, where that is possible
        print("; ".join(["stopped", *map(str, stopped.args)]), file=sys.stderr)
        return 130
    except BrokenPipeError:  # nobody reads on, as behind `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"{error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0
