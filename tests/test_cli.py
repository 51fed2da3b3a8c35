"""The command lines: what is wrong with flags, files and folders is one line, and nothing is written."""

import json
import shutil

import pytest
from helpers import HERE, RECORD, contents, save_run, toy_run

import data
import tools.benchmark
import tools.report
import train
from spanrel import Config
from support.flags import flag_of, help_lines

BAD_FLAGS = [
    ("--negative-rate", -5),
    ("--clip", 0),
    ("--warmup", "nan"),
    ("--dropout", 2),
    ("--lr", "nan"),
    ("--layers", 100000),
    ("--load", ""),
    ("--seed", 10**20),
    ("--dataset", "n" * 5000),
    ("--load", "n" * 5000, "--predict", "x"),
    ("--epochs", 0),
    ("--encoder", HERE),
    ("--device", "abacus"),
    ("--heads", 7),
    ("--output", "\udcff"),
    ("--load", "\udcff", "--predict", "x"),
    ("--resume", "\udcff"),
]


@pytest.mark.parametrize("arguments", BAD_FLAGS, ids=lambda arguments: " ".join(map(str, arguments))[:40])
def test_a_bad_flag_is_one_line_and_status_2(arguments, capsys):
    assert train.main(list(map(str, arguments))) == 2
    output = capsys.readouterr()
    assert len(output.err.splitlines()) == 1 and not output.out


# -- Files beside a good corpus and a good run ---------------------------------------------------------------


def half(content):
    """The first half of a file."""
    return content[: len(content) // 2]


def changed(**fields):
    """The run folder's config.json with other fields, those of its settings among them."""

    def change(content):
        description = json.loads(content)
        for name, value in fields.items():
            part = description if name in description else description["settings"]
            part[name] = value
        return json.dumps(description).encode()

    return {"run/config.json": change}


def for_all_splits(folder, content):
    """train.json, dev.json and test.json of a folder."""
    return {f"{folder}/{split}.json": content for split in ("train", "dev", "test")}


RECORDS = json.dumps([RECORD] * 2).encode()
LONG = json.dumps([RECORD | {"tokens": ["a", "b"] * 300}]).encode()
OTHER_ENCODER = {"model_type": "bert", "hidden_size": 32, "num_attention_heads": 4}

CARD = ("data", "--dataset", "mine")
TRAIN = ("--dataset", "mine", "--encoder", "tiny", "--epochs", "1", "--output", "new")
PREDICT = ("--load", "run", "--predict")
TEXT = (*PREDICT, "A rash.")
EVALUATE = ("--load", "run", "--evaluate")
ENCODER = ("--dataset", "mine", "--encoder", "run", "--output", "new")
REPORT = ("report", "mine.json")
BAD_INPUTS = {  # what is put into which file (None: it is missing), the command, what must be in the line
    # A corpus of one's own
    "a split is missing": (
        {"mine/dev.json": None}, CARD,
        "mine/dev.json not there, only test.json, train.json: a corpus has train, dev and test, "
        "or is one set, which --split 80/10/10 divides",
    ),
    "two splits are missing": (
        {"mine/dev.json": None, "mine/test.json": None}, TRAIN, "mine/dev.json, mine/test.json not there",
    ),
    "an empty file": ({"mine/train.json": b""}, CARD, "mine/train.json: JSONDecodeError"),
    "a truncated file": ({"mine/train.json": RECORDS[:-9]}, CARD, "mine/train.json: JSONDecodeError"),
    "no UTF-8": ({"mine/train.json": b'["\xff"]'}, CARD, "mine/train.json: not UTF-8 at byte 2"),
    "UTF-16": (
        {"mine/train.json": RECORDS.decode().encode("utf-16")}, CARD, "mine/train.json: not UTF-8 at byte 0",
    ),
    "an object for a list": ({"mine/train.json": b"{}"}, CARD, "mine/train.json: it is {}"),
    "deeper than Python reads": ({"mine/train.json": b"[" * 10**5}, CARD, "mine/train.json: RecursionError"),
    "a number for a record": ({"mine/train.json": b"[3]"}, TRAIN, "mine/train.json, record 0, it is 3"),
    "no sentence": ({"mine/test.json": b"[]"}, TRAIN, "mine: test has no sentence"),
    "a sentence beyond the encoder": (
        {"mine/dev.json": LONG}, TRAIN, "dev-0: 600 words, and the encoder takes 512",
    ),
    "a folder of nothing": (
        {}, ("data", "--dataset", "run"), "run/train.json, run/dev.json, run/test.json not there",
    ),
    "a width of nothing": ({}, (*CARD, "--max-width", "0"), "--max-width must be at least 1"),
    "an encoder without a name": ({}, (*CARD, "--encoder", ""), "--encoder a name"),
    "no such folder": (
        {}, ("data", "--dataset", "nowhere"),
        "--dataset nowhere: neither toy, ade, conll04, ace05 nor a folder",
    ),
    "a fold of one's own": ({}, (*TRAIN, "--fold", "3"), "--fold goes with --dataset ade"),
    # Published corpora
    "another ADE": (
        {"data/ade/ADE-Corpus-V2.zip": b"x"}, ("data", "--dataset", "ade"),
        "data/ade/ADE-Corpus-V2.zip: not the published file",
    ),
    "another CoNLL04": (
        {"data/conll04/train.txt": b"x"}, ("--dataset", "conll04"),
        "data/conll04/train.txt: not the published file",
    ),
    "no ACE05": ({}, ("data", "--dataset", "ace05"), "ace05/test.json not there: ACE05 is licensed"),
    "a wrong ACE05": (
        for_all_splits("data/ace05", b"{}"), ("data", "--dataset", "ace05"), "train.json: it is {}",
    ),
    # Encoders and output folders
    "an encoder without weights": ({"run/model.safetensors": None}, ENCODER, "--encoder run: "),
    "an encoder of pickles": (
        {"run/model.safetensors": None, "run/pytorch_model.bin": b"x"}, ENCODER[2:], "--encoder run: ",
    ),
    "a run that is there": ({}, (*TRAIN[:-1], "run"), "--output run exists; a run is never written over"),
    "a folder that cannot be made": (
        {"file": b""}, (*TRAIN[:-1], "file/new"), "--output file/new: Not a directory",
    ),
    # Flags
    "no such flag": ({}, ("--epoch", "3"), "unrecognized arguments: --epoch 3"),
    "a word for a number": ({}, ("--epochs", "many"), "argument --epochs: invalid int value: 'many'"),
    "no such choice": ({}, ("--attention", "soft"), "argument --attention: invalid choice: 'soft'"),
    "a flag without its value": ({}, ("--load",), "argument --load: expected one argument"),
    "a flag of the future": ({}, ("data", "--encodr", "x"), "unrecognized arguments"),
    "a setting of a saved run": ({}, (*TEXT, "--epochs", "3"), "--epochs does not go with --load"),
    "another encoder for a saved run": (
        {}, (*TEXT, "--encoder", "base"), "--encoder does not go with --load",
    ),
    "nothing to do with a run": ({}, ("--load", "run"), "--load RUN goes with --predict TEXT or --evaluate"),
    "a symmetric type that train lacks": (
        {}, ("--symmetric", "Odd"), "--symmetric Odd: the relation types of train are Adverse-Effect",
    ),
    "a corpus for a text": ({}, (*TEXT, "--dataset", "toy"), "--dataset goes with --load RUN --evaluate"),
    "a split for a text": (
        {}, (*TEXT, "--eval-split", "dev"), "--eval-split goes with --load RUN --evaluate",
    ),
    "a fold that the run was trained on": (
        {}, (*EVALUATE, "--fold", "3"), "--fold, --split: a run is scored on its own share of its corpus",
    ),
    "given entities of a split": (
        {}, (*EVALUATE, "--given-entities"), "--given-entities goes with --load RUN --predict",
    ),
    "a threshold of a Softmax": (
        {}, (*TEXT, "--threshold", ".5"), "--threshold does nothing here: only --relation-loss sigmoid-bce",
    ),
    "a score above 1": (
        {}, (*TEXT, "--least-entity-score", "2"), "--least-entity-score 2.0: must be from 0 to 1",
    ),
    "dev for a run that was trained on it": (
        changed(train_on_dev=True), (*EVALUATE, "--eval-split", "dev"), "the run was trained on dev, too",
    ),
    "prediction without a run": ({}, ("--predict", "A rash."), "--predict goes with --load RUN"),
    "two things at once": ({}, ("--load", "run", "--resume", "run"), "--resume does not go with --load"),
    # Saved runs
    "a run without weights": ({"run/model.safetensors": None}, TEXT, "run: model.safetensors is not there"),
    "a run without a tokenizer": ({"run/tokenizer.json": None}, TEXT, "run: tokenizer.json is not there"),
    "half the weights": ({"run/model.safetensors": half}, TEXT, "run: not a whole run: SafetensorError"),
    "half a config": ({"run/config.json": half}, TEXT, "run: not a whole run: JSONDecodeError"),
    "half a tokenizer": ({"run/tokenizer.json": half}, TEXT, "run: not a whole run: "),
    "the weights of other types": (changed(entity_types=["A"]), TEXT, "run: not a whole run: ffnn_s."),
    "another encoder's description": (changed(encoder=OTHER_ENCODER), TEXT, "run: not a whole run: "),
    "no types": (changed(relation_types=None), TEXT, "run: not a whole run: relation_types is null"),
    "an empty config": ({"run/config.json": b"{}"}, TEXT, "run: not a whole run: KeyError"),
    "a type for types": (changed(entity_types="AB"), TEXT, "not a whole run: entity_types is 'AB'; it must"),
    "a type twice": (changed(relation_types=["A", "A"]), TEXT, "not a whole run: relation_types is "),
    "no such rule": (changed(words="odd"), TEXT, "not a whole run: words: 'odd'; the rules are letters, "),
    "a setting that there is not": (changed(glue=1), TEXT, "run: not a whole run: --glue: no such flag"),
    "a clip below 0": (changed(clip=-1), TEXT, "not a whole run: --clip -1: must be from"),
    "a size below 0": (changed(batch_size=-1), TEXT, "not a whole run: --batch-size -1: must be from"),
    "true for a size": (changed(batch_size=True), TEXT, "--batch-size True: must be of type int"),
    "a text for parts": (changed(ablate="local"), TEXT, "--ablate 'local': must be of type list of names"),
    "a run that is not finished": (
        {"run/model.safetensors": None, "run/checkpoint.safetensors": b"x"}, TEXT,
        "that run is not finished: python train.py --resume run",
    ),
    # Texts to predict
    "a file that is not there": ({}, (*PREDICT, "texts.txt"), "texts.txt: no such file"),
    "a folder of texts": ({}, (*PREDICT, "mine"), "mine: Is a directory"),
    "texts that are no UTF-8": (
        {"texts.txt": b"A r\xe4sh"}, (*PREDICT, "texts.txt"), "texts.txt, line 1: not UTF-8 at byte 3",
    ),
    "texts in half a JSON": (
        {"texts.json": b'["A rash."'}, (*PREDICT, "texts.json"), "texts.json: JSONDecodeError",
    ),
    "a number for a text": (
        {"texts.json": b'["A rash.", 3]'}, (*PREDICT, "texts.json"), "texts.json, record 1, it is 3",
    ),
    "a table of texts": ({"texts.csv": b"id,text"}, (*PREDICT, "texts.csv"), "texts.csv: files to predict"),
    "a text that is a number in JSON Lines": (
        {"texts.jsonl": b'"A rash."\n3'}, (*PREDICT, "texts.jsonl"), "texts.jsonl, line 2, it is 3",
    ),
    "a text beyond the encoder": (
        {}, (*PREDICT, "word " * 600),
        "words, and the encoder takes 512 wordpieces; split the sentence that begins",
    ),
    "a text of other words": (
        {"texts.json": json.dumps([RECORD | {"text": "No rash."}]).encode()}, (*PREDICT, "texts.json"),
        "texts.json, record 0, text: the tokens are not its words, in order",
    ),
    "half a character": ({}, (*PREDICT, "\udc80"), "text 1: '\\udc80'; it must be UTF-8"),
    "no such format": ({}, (*TEXT, "--format", "pdf"), "argument --format: invalid choice: 'pdf'"),
    # Runs that are to go on
    "nothing to resume": ({}, ("--resume", "nowhere"), "--resume nowhere: no such folder"),
    "a run that came to its end": (
        {"run/metrics.json": b"{}"}, ("--resume", "run"), "--resume run: that run came to its end",
    ),
    "a resumed run with other settings": (
        {}, ("--resume", "run", "--epochs", "9"), "--epochs does not go with --resume",
    ),
    "half a checkpoint": (
        {"run/checkpoint.safetensors": b"x"}, ("--resume", "run"),
        "run/checkpoint.safetensors: not a checkpoint of this run",
    ),
    # Reports and benchmarks
    "a report of nothing": ({}, ("report", "nowhere"), "nowhere: No such file or directory"),
    "a report of a run without scores": (
        {}, ("report", "run"), "run: there is no finished run in it",
    ),
    "a report of something else": (
        {"mine.json": b'[{"command": "ls"}]'}, REPORT, "mine.json, record 0: KeyError 'flags'",
    ),
    "half a report": ({"mine.json": b"["}, REPORT, "mine.json: JSONDecodeError"),
    "a number for a report": ({"mine.json": b"3"}, REPORT, "mine.json: it is 3; must be an object"),
    "a report without scores": (
        {"mine.json": b'[{"flags": {}, "entity": {}}]'}, REPORT, "mine.json, record 0: KeyError",
    ),
    "a report of a choice of yesterday": (
        {"mine.json": b'[{"flags": {"attention": "glue"}}]'}, REPORT,
        "mine.json, record 0: --attention 'glue': choose from",
    ),
    "a report of no file": ({}, ("report",), "the following arguments are required: RUN; --help lists"),
    "a report of what is no run": (
        {"mine.json": b'[{"flags": {"load": "x"}}]'}, REPORT, "mine.json, record 0: --load: no such flag",
    ),
    "a report of a flag of yesterday": (
        {"mine.json": b'[{"flags": {"glue": 1}}]'}, REPORT, "mine.json, record 0: --glue: no such flag",
    ),
    "a benchmark of no epoch": (
        {}, ("benchmark", "--epochs", "0"), "--epochs 0: must be from 1 to 2147483648",
    ),
    "a benchmark into no folder": (
        {}, ("benchmark", "--output", "no/x.json"), "--output no/x.json: it must be a new file",
    ),
    "a benchmark of a saved run": ({}, ("benchmark", "--load", "run"), "unrecognized arguments: --load run"),
    "a benchmark over a file": (
        {"file": b""}, ("benchmark", "--output", "file"), "--output file: it must be a new file",
    ),
}  # fmt: skip
PROGRAMS = {"data": data.main, "report": tools.report.main, "benchmark": tools.benchmark.main}


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory):
    """A run folder, of a model that was not trained."""
    folder = tmp_path_factory.mktemp("saved")
    save_run(toy_run(), folder)
    return folder


@pytest.mark.parametrize("files, command, says", BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_a_bad_input_is_one_line_and_nothing_is_written(
    files, command, says, tmp_path, saved_run, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved_run, "run")
    for name, content in (for_all_splits("mine", RECORDS) | files).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content = content(path.read_bytes())
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
    before = contents(tmp_path)
    program, *arguments = command if command[0] in PROGRAMS else ("train", *command)
    assert PROGRAMS.get(program, train.main)(arguments) == 2
    output = capsys.readouterr()
    assert says in output.err and len(output.err.splitlines()) == 1 and not output.out
    assert contents(tmp_path) == before


# -- Help ----------------------------------------------------------------------------------------------------


def test_help_fits_two_screens():
    lines = train.make_train_parser().format_help().splitlines()
    assert len(lines) <= 2 * 40 and max(map(len, lines)) <= 128


def test_the_help_of_a_flag_names_the_defaults_that_it_really_has():
    help_of_flag = {}
    for action in train.make_train_parser()._actions:
        help_of_flag[action.option_strings[-1]] = action.help
    runs = {"default": train.Settings(), "toy": train.settings_of()}
    runs["spert"] = train.settings_of(dataset="ade", model="spert")
    for kind in (train.Settings, Config):
        assert set(kind.__annotations__) == set(help_lines(kind))
        for name, comment in help_lines(kind).items():
            text = help_of_flag[flag_of(name)]
            assert text.startswith(comment)
            usual = getattr(runs["default"], name)
            for title, settings in runs.items():
                value = getattr(settings, name)
                is_named = f"{title}: {value};" in text or f"{title}: {value})" in text
                if title == "default":
                    assert is_named or value in (False, "", ())
                elif name not in ("dataset", "model"):
                    assert is_named or value == usual
    assert "toy: tiny)" in help_of_flag["--encoder"]
    assert "toy: 0.001;" in help_of_flag["--lr"] and "toy: 0.001;" in help_of_flag["--head-lr"]
    assert "toy: 64)" in help_of_flag["--hidden"]


def test_the_help_has_each_command_on_a_line_of_its_own():
    commands = [line.strip() for line in train.__doc__.splitlines() if "python train.py" in line]
    assert len(commands) > 4 and all(command.startswith("python train.py") for command in commands)
    assert train.__doc__.count("python train.py") == len(commands)
