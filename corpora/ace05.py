"""ACE05 as DyGIE++'s preprocessing writes it: entities are head regions [L22]. The corpus is licensed."""

from pathlib import Path

from corpora import dygie
from corpora.records import SPLITS, read_numbered
from support.errors import InputError, read_each

ADVICE = (
    "ACE05 is licensed (LDC2006T06); put there what DyGIE++'s preprocessing writes, "
    "or start without it: python train.py"
)


def read(data_dir: Path, fold: int) -> dict:
    """The three splits, from data/ace05/{train,dev,test}.json."""
    paths = [data_dir / f"ace05/{split}.json" for split in SPLITS]
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise InputError(f"{', '.join(missing)} not there: {ADVICE}")
    documents = [(read_numbered(path),) for path in paths]
    return dict(zip(SPLITS, read_each(dygie.records_of, documents)))
