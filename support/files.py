"""Files: read as UTF-8, written whole or not at all, downloaded once and checked."""

import hashlib
import os
import secrets
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from support.errors import InputError, one_line

PATIENCE = 300  # seconds until a file that is fetched must be here
MOST_BYTES = 2**28  # of a file that is fetched, or read whole
MOST_LINE_BYTES = 2**24


def name_of(path: str) -> str:
    """The last name of a path; of "." it is that of the current folder."""
    return Path(path).absolute().name  # `resolve` would look at the disk, and refuses some names


def read_text(path: Path, exact: bool = False) -> str:
    """The text of a UTF-8 file, without its byte order mark; `exact`: with it, where there is one."""
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise InputError(f"{path}: over {MOST_BYTES:,} bytes; divide it (.jsonl to predict has no limit)")
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{str(path)[:200]}: {error.strerror}") from None
    return text if exact else text.removeprefix("\ufeff")


def lines_of(text: str) -> list[str]:
    """The lines of a text. They end at "\\n" or "\\r\\n" alone, unlike those of `str.splitlines`."""
    lines = text.removesuffix("\n").split("\n") if text else []
    return [line.removesuffix("\r") for line in lines]


def read_lines(path: Path):
    """Yields (number, line) of each line of a UTF-8 file that is not blank. The file is never held whole."""
    number, position = 0, 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MOST_LINE_BYTES + 1), b""), 1):
                if len(line) > MOST_LINE_BYTES:
                    raise InputError(f"{path}, line {number}: over {MOST_LINE_BYTES:,} bytes; divide it")
                text = line.decode("utf-8").removesuffix("\n").removesuffix("\r")
                position += len(line)
                if number == 1:
                    text = text.removeprefix("\ufeff")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        where = f"{path}, line {number}"
        raise InputError(f"{where}: not UTF-8 at byte {position + error.start}; save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{str(path)[:200]}: {error.strerror}") from None


def write_file(path: Path, content: bytes):
    """Writes a file under a name that no other file has and renames it: it is there whole or not at all."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        with open(part, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise InputError(f"{path}: {error.strerror}") from None


def call_in_time(seconds: float, action: Callable):
    """What `action()` returns; a TimeoutError if it takes longer. Its thread dies with the program."""
    future = Future()

    def run():
        try:
            future.set_result(action())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"it takes more than {seconds} s") from None


def download(address: str) -> bytes:
    """The content of a file at a web address, if it comes to its end in time."""

    def read():
        with urllib.request.urlopen(address, timeout=10) as response:
            return response.read(MOST_BYTES + 1)

    content = call_in_time(PATIENCE, read)
    if len(content) > MOST_BYTES:
        raise InputError(f"it has more than {MOST_BYTES:,} bytes")
    return content


def fetch(path: Path, address: str, sha256: str, host: str = "https://raw.githubusercontent.com") -> Path:
    """The published file at `path`, downloaded if it is not there. Its SHA-256 must be the published one."""
    if path.exists():
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            return path
        advice = "move it away, and it is downloaded anew"
        raise InputError(f"{path}: not the published file, whose SHA-256 is {sha256}; {advice}")
    try:
        content = download(f"{host}/{address}")
        if (other := hashlib.sha256(content).hexdigest()) != sha256:
            raise InputError(f"its SHA-256 is {other}, not {sha256}")
        path.parent.mkdir(parents=True, exist_ok=True)
    except Exception as error:  # whatever the network, the proxy or the server raises
        reason = f"{host}/{address} cannot be fetched ({one_line(error)})"
        advice = "put the file there by hand, or start without it: python train.py"
        raise InputError(f"{path} is not there, and {reason}: {advice}") from None
    write_file(path, content)
    return path
