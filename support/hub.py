"""The hub: what it keeps under the name of an encoder or of a run is fetched once, at one revision."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from support.errors import InputError, one_line
from support.files import call_in_time

PATIENCE = 30  # seconds until the hub has listed the files of a repository


def fetch_repository(flag: str, name: str, files: list[str], is_whole: Callable, advice: str) -> Path:
    """The folder of the hub's copy of "user/name" or "user/name@revision", fetched if it is not here whole.
    It fetches weights as safetensors where there are any. Without a network this takes seconds, not
    minutes of retries. `flag` and `advice` are for messages."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    repository, _, revision = name.partition("@")
    pinned = {"revision": revision or None}
    try:
        with suppress(LocalEntryNotFoundError):  # not fetched before
            folder = Path(snapshot_download(repository, **pinned, local_files_only=True))
            if is_whole(folder):
                return folder
        info = call_in_time(PATIENCE, lambda: HfApi().model_info(repository, **pinned, timeout=8))
        listed = [file.rfilename for file in info.siblings]
        if any(file.endswith(".safetensors") and "/" not in file for file in listed):
            files = [pattern for pattern in files if not pattern.endswith(".bin")]
        # In subfolders lie the same weights in other formats.
        return Path(snapshot_download(repository, **pinned, allow_patterns=files, ignore_patterns="*/*"))
    except (HFValidationError, RepositoryNotFoundError):
        reason = "no such folder, and no model on the hub that can be read without a login"
        raise InputError(f"{flag} {name}: {reason}") from None
    except Exception as error:  # whatever the hub's client raises when it cannot reach the hub
        reason = f"{flag} {name} is not here and could not be fetched ({one_line(error)})"
        raise InputError(f"{reason}: {advice}") from None


def revision_of(folder: str | Path) -> str:
    """The revision of what lies in a folder that the hub's client made, or nothing for any other folder."""
    folder = Path(folder)
    return folder.name if folder.parent.name == "snapshots" else ""
