"""The folder of a run: made once, never written over, complete or with what it takes to go on."""

import dataclasses
import json
import os
import shlex
from contextlib import contextmanager
from pathlib import Path

from support.devices import explain_memory
from support.encoders import save_tokenizer
from support.errors import InputError, excerpt, explain_errors, explain_output, printable
from support.files import lines_of, name_of, read_text, write_file
from support.flags import is_of
from support.hub import fetch_repository, revision_of
from support.processes import gather, processes_started, rank

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

RUN_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
CHECKPOINT = "checkpoint.safetensors"  # it is there while a run is on its way


class NotResumable(InputError):
    """To go on would not help: a checkpoint is not this run's, or what ended it would happen again."""


def new_folder(settings, method: str) -> Path:
    """The folder of a run, which one of the processes makes now."""
    return gather(None if rank() else make_folder(settings, method))[0]


def make_folder(settings, method: str) -> Path:
    """Makes the folder of a run. A folder that exists is never used again."""
    fold = [f"fold{settings.fold}"] if settings.dataset == "ade" else []
    name = "-".join([name_of(settings.dataset), *fold, *method.split(), f"seed{settings.seed}"])
    output, numbered = settings.output, (Path("runs") / f"{name}-{number}" for number in range(1, 10000))
    check_name("--output", output or name)
    if not output and os.path.lexists("runs") and not os.path.isdir("runs"):
        raise InputError("runs: not a folder; name another one with --output, or move it away")
    for path in [Path(output)] if output else numbered:
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"--output {path}: {error.strerror}") from None
    advice = "a run is never written over: name another folder, or move it away"
    raise InputError(f"--output {output or 'runs'} exists; {advice}")


def check_name(flag: str, name: str):
    """Refuses a name that is not UTF-8: safetensors and tokenizers write no such file."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{flag} {printable(name)}: not UTF-8; rename it, or name another one") from None


def locate_run(name: str | Path) -> Path:
    """The folder of a whole run: `name` itself, or the hub's copy of "user/run", fetched once."""
    check_name("--load", str(name))
    folder = Path(name)
    if not folder.parent.exists() and len(folder.parts) == 2:
        advice = "give the folder that `python train.py` wrote"
        files = list(RUN_FILES)
        folder = fetch_repository("--load", str(name), files, lambda path: not missing_files(path), advice)
    if missing := missing_files(folder):
        advice = "a run folder is what `python train.py` writes"
        if (folder / CHECKPOINT).exists():
            advice = f"that run is not finished: python train.py --resume {shlex.quote(str(folder))}"
        raise InputError(f"{str(folder)[:200]}: {missing[0]} is not there; {advice}")
    return folder


def write_description(folder: Path, run):
    """Writes a run without its weights. config.json comes last: once it is there, the run can be resumed."""
    save_tokenizer(run.tokenizer, folder)
    description = {
        "settings": dataclasses.asdict(run.settings),
        "encoder": run.model.encoder.config.to_dict(),
        "entity_types": run.entity_types,
        "relation_types": run.relation_types,
        "words": run.rule,
        "trained_on": run.trained_on,
        "encoder_revision": revision_of(run.tokenizer.name_or_path),
    }
    write_file(folder / "config.json", json.dumps(description, indent=1).encode())


def read_description(folder: Path) -> dict:
    """What the config.json of a run says. Its types are checked; its settings are not yet."""
    description = json.loads(read_text(folder / "config.json"))
    for name in ("entity_types", "relation_types"):
        types = description[name]
        if not is_of(tuple[str, ...], types) or len(set(types)) < len(types) or "" in types:
            raise InputError(f"{name} is {excerpt(types)}; it must be a list of different names")
    return description


def missing_files(folder: Path) -> list[str]:
    """The files of a run that are not there."""
    return [file for file in RUN_FILES if not (folder / file).is_file()]


def weights_of(folder: Path, epoch: int) -> Path:
    """Where the weights of an epoch are kept while a run is on its way."""
    return folder / f"epoch-{epoch}.safetensors"


def keep_weights(folder: Path, epoch: int):
    """Removes the weights of all other epochs."""
    for path in folder.glob("epoch-[0-9]*.safetensors"):
        if path != weights_of(folder, epoch):
            path.unlink()


def settle_best(folder: Path, epoch: int):
    """Renames the weights of the best epoch to model.safetensors, if that was not done before."""
    if rank() == 0:
        keep_weights(folder, epoch)
        if weights_of(folder, epoch).exists():
            weights_of(folder, epoch).replace(folder / "model.safetensors")
    gather("renamed")  # no process reads them before


def write_results(folder: Path, result: dict, predicted: list):
    """Writes the predictions and the scores of a run, and removes its checkpoint."""
    write_file(folder / "predictions.json", json.dumps([s.to_record() for s in predicted]).encode())
    write_file(folder / "metrics.json", json.dumps(result, indent=1).encode())
    (folder / CHECKPOINT).unlink(missing_ok=True)


def check_unfinished(folder: str):
    """Refuses to go on with a run that came to its end, or that had not begun."""
    check_name("--resume", folder)
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"--resume {folder}: no such folder")
    if not (path / "config.json").is_file():
        raise InputError(f"--resume {folder}: no config.json there, so no run had begun; start it anew")
    if (path / "metrics.json").exists():
        if not missing_files(path):
            (path / CHECKPOINT).unlink(missing_ok=True)  # where the run was killed in its last moment
        raise InputError(f"--resume {folder}: that run came to its end; --load {folder} uses it")


def read_history(folder: Path) -> list[dict]:
    """The epochs of a run so far."""
    path = folder / "history.jsonl"
    if not path.exists():
        return []
    with explain_errors(path, "one epoch per line, as `python train.py` writes it"):
        history = [json.loads(line) for line in lines_of(read_text(path))]
        sum(line["seconds"] for line in history)  # is each a line of an epoch?
    return history


def best_line(history: list[dict]) -> dict:
    """The line of the best epoch on dev, of equals the first; of the last epoch where there is no dev."""

    def quality(line):
        return line["entity_f1"] + line["relation_f1"] if "entity_f1" in line else line["epoch"]

    return max(history, key=quality)


@contextmanager
def lock(folder: Path, number: int):
    """Keeps other runs out of the folder while this one works. The lock dies with its process.
    Of several processes only `number` 0 writes, and locks."""
    if number or not fcntl:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reason = "another process works on this run; wait for it, or stop it"
            raise NotResumable(f"{folder}: {reason}") from None
        for path in folder.glob(".*.part"):  # half-written by a process that was killed
            path.unlink()
        yield
    finally:
        os.close(handle)


@contextmanager
def explain_step(place: str, batch):
    """Tells in one line why a step of training could not be taken."""
    try:
        with explain_memory(place, batch, "a smaller --batch-size needs a new run"):
            yield
    except FloatingPointError as error:
        ids = ", ".join(example.encoded.sentence.id for example in batch.examples)
        advice = "start anew with a lower --lr, or with --precision fp32"  # from here, it would happen again
        raise NotResumable(f"{place}: {error}, on the sentences {ids}; {advice}") from None


@contextmanager
def explain_interruption(folder: Path):
    """Adds what was kept, and how to go on, to the error that stops a run."""
    try:
        yield
    except NotResumable:
        raise
    except (KeyboardInterrupt, InputError, OSError) as error:
        if isinstance(error, OSError):
            error = explain_output(error)
        kept = "its last checkpoint is kept" if (folder / CHECKPOINT).exists() else "no epoch was finished"
        advice = "start it anew"
        if (folder / "config.json").exists():
            processes = processes_started()
            program = "python" if processes == 1 else f"torchrun --nproc-per-node {processes}"
            advice = f"go on with: {program} train.py --resume {shlex.quote(str(folder))}"
        first, *others = getattr(error, "lines", [str(error)])
        first = f"{first}; {kept}; {advice}".removeprefix("; ")
        raise type(error)("\n".join([first, *others])) from None
