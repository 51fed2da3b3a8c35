"""Checkpoints: all that the coming epochs depend on, in one safetensors file."""

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from support import folders
from support.errors import InputError, one_line
from support.files import write_file
from support.flags import flag_of
from support.folders import NotResumable
from support.processes import gather, rank, world_size

PLACES = ("dataset", "data_dir", "device", "output", "chunk")  # settings that may change on the way


def digest_of(sentences: list) -> str:
    """A digest of sentences with all that is known of them."""
    return hashlib.sha256(json.dumps([s.to_record() for s in sentences]).encode()).hexdigest()


def identity_of(run, splits: dict[str, list]) -> dict:
    """What a run is, by name: its settings, and digests of its sentences and its tokenizer."""
    settings = dataclasses.asdict(run.settings)
    identity = {flag_of(name): value for name, value in settings.items() if name not in PLACES}
    tokenizer = run.tokenizer.backend_tokenizer.to_str()
    digests = {"the tokenizer": hashlib.sha256(tokenizer.encode()).hexdigest()}
    for split, encoded in splits.items():
        digests[f"the split {split}"] = digest_of([e.sentence for e in encoded])
    return json.loads(json.dumps({**identity, **digests, "the number of processes": world_size()}))


def check_identity(now: dict, then: dict):
    """Refuses to go on as another run."""
    for name, value in now.items():
        if then.get(name) != value:
            change = "has changed" if len(str(value)) == 64 else f"is {value}, and was {then.get(name)}"
            raise InputError(f"{name} {change}")


def load_model(path: Path, build: Callable):
    """The model that `build()` makes, with the weights in a file, if they have its shapes.
    First it is made on torch's meta device, which takes no memory, to compare the shapes."""
    with safe_open(path, "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
    with torch.device("meta"), warnings.catch_warnings(action="ignore"):
        weights = build().state_dict()
    for name, weight in weights.items():
        if shapes.get(name) != list(weight.shape):
            shape = f"{shapes.get(name, 'nothing')} in {path.name}"
            raise InputError(f"{name} is {shape}, and {list(weight.shape)} as config.json says")
    model = build()
    model.load_state_dict(load_file(path))
    return model


def finish_epoch(
    folder: Path, model, optimizer, schedule, device: torch.device, identity: dict, history: list[dict]
):
    """Writes the weights if this epoch is the best so far, then the history, then the checkpoint.
    It removes the weights of other epochs last. So a run that is stopped in between can go on from the
    earlier checkpoint, whose best weights are still there."""
    best, epoch = folders.best_line(history)["epoch"], len(history)
    if rank() == 0:
        if best == epoch:
            write_file(folders.weights_of(folder, epoch), save(model.state_dict()))
        lines = [json.dumps(line) + "\n" for line in history]
        write_file(folder / "history.jsonl", "".join(lines).encode())
    notes = {"identity": identity, "history": history}
    save_checkpoint(folder / folders.CHECKPOINT, model, optimizer, schedule, device, notes)
    if rank() == 0:
        folders.keep_weights(folder, best)


def save_checkpoint(path: Path, model, optimizer, schedule, device: torch.device, notes: dict):
    """Writes weights, optimizer, schedule, the random states of each process, and `notes`, which are JSON."""
    random_states = [torch.get_rng_state()]  # all but dropout is drawn from (seed, epoch, sentence) [L29]
    if device.type != "cpu":
        random_states.append(torch.get_device_module(device).get_rng_state(device))
    tensors = {f"model.{name}": weight for name, weight in model.state_dict().items()}
    kept = optimizer.state_dict()
    for number, moments in kept["state"].items():
        for name, value in moments.items():
            tensors[f"optimizer.{number}.{name}"] = value
    for process, states in enumerate(gather(random_states)):
        for number, state in enumerate(states):
            tensors[f"random.{process}.{number}"] = state
    notes = {**notes, "groups": kept["param_groups"], "schedule": schedule.state_dict()}
    if rank() == 0:
        write_file(path, save(tensors, {"state": json.dumps(notes)}))


def go_on(path: Path, model, optimizer, schedule, device: torch.device, identity: dict) -> list[dict]:
    """Puts everything back as it was when the checkpoint was written; returns the history until then.
    Without a checkpoint it is empty. The checkpoint must be one of a run of this identity."""
    if not path.exists():
        return []
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            notes = json.loads(file.metadata()["state"])
        check_identity(identity, notes["identity"])
        restore(tensors, notes, model, optimizer, schedule, device)
    except Exception as error:  # whatever safetensors, json or torch raise on a wrong file
        advice = "move it away, and --resume begins anew"
        raise NotResumable(f"{path}: not a checkpoint of this run ({one_line(error)}); {advice}") from None
    return notes["history"]


def restore(tensors: dict, notes: dict, model, optimizer, schedule, device: torch.device):
    """Loads the state of the model, of what trains it, and of the random numbers."""

    def part(prefix):
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    model.load_state_dict(part("model."))
    moments = {}
    for group in notes["groups"]:
        for number in group["params"]:
            moments[number] = part(f"optimizer.{number}.")
    optimizer.load_state_dict({"state": moments, "param_groups": notes["groups"]})
    schedule.load_state_dict(notes["schedule"])
    torch.set_rng_state(tensors[f"random.{rank()}.0"])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(tensors[f"random.{rank()}.1"], device)
