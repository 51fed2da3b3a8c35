"""Several processes, which `torchrun --nproc-per-node 2 train.py …` starts.

Each takes its share of every batch, so that a step is the step that one process would make. One of them
writes and prints: number 0. Without `torchrun` there is this one alone."""

import atexit
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import distributed

from support.errors import InputError, one_line


def rank() -> int:
    """The number of this process."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def processes_started() -> int:
    """How many processes `torchrun` started, whether they have joined or not."""
    count = os.environ.get("WORLD_SIZE", "1")
    if not count.isdecimal() or count == "0":
        raise InputError(f"WORLD_SIZE={count}: torchrun sets it to the number of processes; unset it")
    return int(count)


def join_processes():
    """Lets the processes find each other, and gives each a device of its own. Only number 0 prints."""
    if processes_started() == 1:
        return
    try:
        distributed.init_process_group()
    except Exception as error:  # torch.distributed raises whatever its backends do
        raise InputError(f"WORLD_SIZE is set, but not as torchrun sets it: {one_line(error)}") from None
    atexit.register(distributed.destroy_process_group)
    if torch.accelerator.is_available():
        torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]))
    if rank():
        sys.stdout = open(os.devnull, "w")


def gather(value) -> list:
    """The values of all processes, in the order of their numbers. All processes get the list."""
    values = [value] * world_size()
    if world_size() > 1:
        distributed.all_gather_object(values, value)
    return values


def sum_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over the processes, in place."""
    if world_size() > 1:
        distributed.all_reduce(tensor)
    return tensor


def build_ahead(build: Callable, parts) -> Iterator:
    """build(part) for each part. A thread makes the next one while this one is in use."""
    with ThreadPoolExecutor(1) as pool:
        following = None
        for part in parts:
            current, following = following, pool.submit(build, part)
            if current:
                yield current.result()
        if following:
            yield following.result()
