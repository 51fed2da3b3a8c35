"""The folder of a run: made once, never written over, complete or with what it takes to go on."""

import json
import shlex
from contextlib import contextmanager
from pathlib import Path

from support.errors import InputError
from support.files import lines_of, read_text

CHECKPOINT = "checkpoint.safetensors"  # it is there while a run is on its way


class NotResumable(InputError):
    """A checkpoint and what is to go on with it do not fit."""


def new_folder(settings, method: str) -> Path:
    """The folder of a run, made now. A folder that exists is never used again."""
    fold = [f"fold{settings.fold}"] if settings.dataset == "ade" else []
    name = "-".join([Path(settings.dataset).name, *fold, *method.split(), f"seed{settings.seed}"])
    output, numbered = settings.output, (Path("runs") / f"{name}-{number}" for number in range(1, 10000))
    for path in [Path(output)] if output else numbered:
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"--output {path}: {error.strerror}") from None
    advice = "a run is never written over: name another folder, or move it away"
    raise InputError(f"--output {output} exists; {advice}")


def check_unfinished(folder: str):
    """Refuses to go on with a run that came to its end, or that had not begun."""
    path = Path(folder)
    if (path / "metrics.json").exists():
        raise InputError(f"--resume {folder}: that run came to its end; --load {folder} uses it")
    if not (path / "config.json").is_file():
        raise InputError(f"--resume {folder}: no config.json there, so no run had begun; start it anew")


def read_history(folder: Path) -> list[dict]:
    """The epochs of a run so far."""
    path = folder / "history.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in lines_of(read_text(path))]


def best_line(history: list[dict]) -> dict:
    """The line of the best epoch on dev, of equals the first; of the last epoch where there is no dev."""

    def quality(line):
        return line["entity_f1"] + line["relation_f1"] if "entity_f1" in line else line["epoch"]

    return max(history, key=quality)


@contextmanager
def explain_interruption(folder: Path):
    """Whatever ends a run before its end is told with what was kept, and how to go on."""
    try:
        yield
    except NotResumable:
        raise
    except (KeyboardInterrupt, InputError) as error:
        kept = "its last checkpoint is kept" if (folder / CHECKPOINT).exists() else "no epoch was finished"
        advice = "start it anew"
        if (folder / "config.json").exists():
            advice = f"go on with: python train.py --resume {shlex.quote(str(folder))}"
        first, *others = getattr(error, "lines", [str(error)])
        first = f"{first}; {kept}; {advice}".removeprefix("; ")
        raise type(error)("\n".join([first, *others])) from None
