"""Flags from dataclasses: each field is a flag, its type gives the values, its comment is the help."""

import argparse
import inspect
import re
import shlex
from functools import partial
from typing import Literal, get_args, get_origin, get_type_hints

from support.errors import InputError, excerpt, refuse_flags


def flag_of(name: str) -> str:
    """The flag of a field."""
    return f"--{name.replace('_', '-')}"


def help_lines(kind) -> dict[str, str]:
    """The comment behind each field of a dataclass, by the field's name."""
    return dict(re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(kind), re.M))


def add_flags(group, kind, other_defaults: dict[str, dict]):
    """Adds a flag for each commented field of a dataclass.
    The help names its defaults, those of `other_defaults` too, except 0, empty and False."""
    types = get_type_hints(kind)
    for name, help_text in help_lines(kind).items():
        notes = []
        for title, defaults in {"default": vars(kind), **other_defaults}.items():
            if defaults.get(name, "") not in ("", (), False):
                notes.append(f"{title}: {defaults[name]}")
        help_text += f" ({'; '.join(notes)})" if notes else ""
        argument = argument_of(types[name])
        if argument.get("choices") and "nargs" in argument:
            help_text += f": {', '.join(argument['choices'])}"
        group.add_argument(flag_of(name), help=help_text, **argument)


def argument_of(kind) -> dict:
    """How argparse reads a value of this type."""
    if kind is bool:
        return {"action": "store_true"}
    if get_origin(kind) is tuple:
        choices = get_args(get_args(kind)[0])
        return {"nargs": "+", "choices": choices or None, "metavar": "PART" if choices else "TYPE"}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    return {"type": kind, "metavar": {int: "N", float: "X", str: "NAME"}[kind]}


def make_parser(description: str, usage: str) -> argparse.ArgumentParser:
    """A parser that puts only the flags that are given into its result."""
    parser = argparse.ArgumentParser(
        usage=usage, description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS,
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=26, width=128),
    )
    parser.error = refuse_flags
    return parser


def check_values(kind, given: dict, ranges: dict[str, tuple[float, float]]):
    """Refuses a value that the field of the dataclass `kind` cannot have.
    Numbers without a range of their own go from 0 to 2^31."""
    types = get_type_hints(kind)
    for name, value in given.items():
        if name not in types:
            raise InputError(f"{flag_of(name)}: no such flag")
        choices = argument_of(types[name]).get("choices")
        for part in value if isinstance(value, (tuple, list)) else [value]:
            if choices and part not in choices:
                raise InputError(f"{flag_of(name)} {excerpt(part)}: choose from {', '.join(choices)}")
        if not is_of(types[name], value):
            wanted = "list of names" if get_origin(types[name]) is tuple else types[name].__name__
            raise InputError(f"{flag_of(name)} {excerpt(value)}: must be of type {wanted}")
        low, high = ranges.get(name, (0, 2**31))
        if isinstance(value, (int, float)) and not low <= value <= high:  # also where it is not a number
            raise InputError(f"{flag_of(name)} {value}: must be from {low} to {high}")


def is_of(kind, value) -> bool:
    """Whether a value, from Python, a command line or JSON, is of the type of a field."""
    if kind is float:
        return type(value) in (int, float)
    if kind is str or get_origin(kind) is Literal:
        return isinstance(value, str)
    if get_origin(kind) is tuple:
        return type(value) in (list, tuple) and all(type(part) is str for part in value)
    return type(value) is kind


def refuse_idle(given: dict, reasons: dict[str, str]):
    """Refuses a flag that would change nothing. `reasons` has such flags."""
    for name, value in given.items():
        if name in reasons and value not in ((), []):
            raise InputError(f"{flag_of(name)} does nothing here: {reasons[name]}")


def check_fitting(actions: dict, given: dict, fitting: dict[str, tuple[str, ...]], needed: dict[str, str]):
    """Refuses flags that do not go together. `fitting` has the modes, each with the flags that go with it;
    `needed` has flags of the first mode, each with the one that it needs."""
    mode = next((name for name in fitting if name in actions), None)
    for name in actions | given:
        if not mode and name in actions:
            raise InputError(f"{flag_of(name)} goes with --{next(iter(fitting))} RUN")
        if mode and name != mode and name not in fitting[mode]:
            others = ", ".join(map(flag_of, fitting[mode]))
            raise InputError(f"{flag_of(name)} does not go with --{mode}; these do: {others}")
        if mode == next(iter(fitting)) and needed.get(name, name) not in actions | given:
            raise InputError(f"{flag_of(name)} goes with --{mode} RUN {flag_of(needed[name])}")


def command_of(flags: dict) -> str:
    """The command line that gives these flags."""
    words = ["python", "train.py"]
    for name, value in flags.items():
        words.append(flag_of(name))
        if isinstance(value, (tuple, list)):
            words += value
        elif value is not True:
            words.append(str(value))
    return shlex.join(words)
