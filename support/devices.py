"""The device that a run uses: its name, its memory."""

import ctypes
import os
import platform
import sys
from contextlib import contextmanager
from pathlib import Path

import torch

from support.errors import InputError, one_line


def device_of(name: str) -> str:
    """The device of that name, or the best there is for "auto"."""
    if name == "auto":
        return str(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    try:
        torch.zeros(1, device=name).item()
    except Exception as error:  # each kind of device has errors of its own
        raise InputError(f"--device {name}: {one_line(error)}") from None
    return name


def hardware_of(device: torch.device) -> str:
    """What a run was made on."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    processor = platform.processor() or platform.machine()
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} threads"
    return f"{processor} {device.type.upper()}, {threads}, torch {torch.__version__}"


def peak_memory(device: torch.device) -> int:
    """The most bytes that were in use: a GPU's memory, else that of the process; 0 where it is not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak(device: torch.device) -> bool:
    """Forgets the peak so far; False where the system cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system, else it would count again
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak that `getrusage` knows starts anew
    except (OSError, AttributeError, TypeError):
        return False
    return device.type == "cpu"


@contextmanager
def explain_memory(place: str, batch, advice: str):
    """Tells in one line for which batch the memory did not suffice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        signs = ("out of memory", "not enough memory", "allocate memory")
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in signs):
            raise
        sentences, wordpieces = batch.input_ids.shape
        size = f"{sentences} sentences of up to {wordpieces} wordpieces"
        raise InputError(f"{place}, {size}: out of memory; {advice}") from None
