"""Where sentences come from (§4.1). A reader is a file whose `read` returns records in SpERT's JSON form.

`read(data_dir, fold)` returns the records by split: {"train": [...], "dev": [...], "test": [...]}."""

from corpora import ace05, ade, conll04, toy

READERS = {"toy": toy.read, "ade": ade.read, "conll04": conll04.read, "ace05": ace05.read}
