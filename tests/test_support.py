"""What every program needs: encoders, devices, building ahead, flags, files, run folders, checkpoints."""

import ast
import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
import torch
from helpers import HERE, SMALL, cli
from hypothesis import given as draw
from hypothesis import strategies as st
from torch import nn

import data
from data import Sentence
from support import devices, encoders, errors, flags, folders, processes
from support.checkpoints import go_on, save_checkpoint
from support.errors import InputError, run_program
from support.files import call_in_time, write_file
from support.processes import build_ahead

WORDS = [sentence.words for sentence in SMALL.train]
SIZES = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)


def random_encoder(kind, **more):
    """A small encoder of that architecture."""
    from transformers import AutoConfig, AutoModel

    return AutoModel.from_config(AutoConfig.for_model(kind, **more))


# -- Encoders ------------------------------------------------------------------------------------------------


def test_an_encoder_that_is_not_whole_is_named(tmp_path):
    tokenizer, encoder = encoders.load_encoder("tiny", WORDS)
    for lack in ("weights", "vocabulary"):
        folder = tmp_path / lack
        encoder.save_pretrained(folder)
        if lack == "weights":
            tokenizer.save_pretrained(folder)
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
        with pytest.raises(InputError, match=f"--encoder .*{lack}"):
            encoders.load_encoder(str(folder), WORDS)


def test_a_byte_level_encoder_reads_a_word_alike_wherever_it_stands(tmp_path):
    from tokenizers import pre_tokenizers
    from transformers import RobertaTokenizerFast

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    RobertaTokenizerFast(vocab=vocabulary, merges=[]).save_pretrained(tmp_path)
    random_encoder("roberta", pad_token_id=1, vocab_size=len(pieces), **SIZES).save_pretrained(tmp_path)
    tokenizer, encoder = encoders.load_encoder(str(tmp_path), WORDS)
    longest = encoders.longest_input(tokenizer, encoder)
    (encoded,) = data.encode([Sentence("s", ["ab", "ab"])], tokenizer, longest)
    pieces = ["<s>", "Ġ", "a", "b", "Ġ", "a", "b", "</s>"]
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids) == pieces
    assert (encoded.starts, encoded.ends) == ([1, 4], [4, 7])
    assert encoded.is_token == [True] * 7 + [False]


CODE = {
    "config.json": {"auto_map": {"AutoModel": "evil.Evil"}},
    "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}},
    "model.safetensors.index.json": {"weight_map": {"a": "../stolen.safetensors"}},
}


@pytest.mark.parametrize("name", CODE)
def test_a_folder_that_names_code_or_weights_elsewhere_is_refused_and_nothing_is_executed(tmp_path, name):
    tokenizer, encoder = encoders.load_encoder("tiny", WORDS)
    for part in (tokenizer, encoder):
        part.save_pretrained(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')")
    path = tmp_path / name
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | CODE[name]))
    with pytest.raises(InputError, match=f"^--encoder .*: {name} names "):
        encoders.load_encoder(str(tmp_path), WORDS)


def test_no_call_of_transformers_could_execute_code():
    calls = 0
    for path in [*HERE.glob("*.py"), *HERE.glob("*/*.py")]:
        if path.parent.name == "tests" or path.name.startswith("test_"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = getattr(getattr(node, "func", None), "attr", "")
            if called in ("from_pretrained", "from_config"):
                calls += 1
                assert "NO_CODE" in ast.unparse(node) or "**options" in ast.unparse(node), f"{path}: {called}"
    assert calls == 3 and encoders.NO_CODE == {"trust_remote_code": False}


def byte_level_encoder(folder, **more):
    """A folder with a tokenizer of bytes behind the class of any fast tokenizer, as ModernBERT has it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["[CLS]", "[PAD]", "[SEP]", "[UNK]"]
    pieces = [*names, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    around = [("[CLS]", 0), ("[SEP]", 2)]
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, around)
    special = dict(cls_token="[CLS]", pad_token="[PAD]", sep_token="[SEP]", unk_token="[UNK]")
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    random_encoder("bert", vocab_size=len(pieces), **{**SIZES, **more}).save_pretrained(folder)


def test_bytes_without_a_blank_before_a_word_are_read_with_one_also_once_saved(tmp_path):
    byte_level_encoder(tmp_path / "encoder")
    tokenizer, _ = encoders.load_encoder(str(tmp_path / "encoder"), WORDS)
    encoders.save_tokenizer(tokenizer, tmp_path / "once")
    saved = encoders.load_tokenizer(tmp_path / "once")
    encoders.save_tokenizer(saved, tmp_path / "twice")
    for each in (tokenizer, saved, encoders.load_tokenizer(tmp_path / "twice")):
        (encoding,) = each([["ab", "ab"]], is_split_into_words=True).encodings
        assert encoding.tokens == ["[CLS]", "Ġ", "a", "b", "Ġ", "a", "b", "[SEP]"]


def test_a_tokenizer_that_reads_a_word_in_two_ways_is_refused(tmp_path, monkeypatch):
    byte_level_encoder(tmp_path)
    usual = encoders.load_tokenizer
    monkeypatch.setattr(encoders, "pieces_of", lambda tokenizer, words, place: [[place] for _ in words])
    with pytest.raises(InputError, match="its tokenizer reads '.*' differently after another word$"):
        encoders.load_encoder(str(tmp_path), WORDS)
    monkeypatch.undo()
    loads = iter([usual(tmp_path), encoders.learn_tokenizer(WORDS)])
    monkeypatch.setattr(encoders, "load_tokenizer", lambda folder: next(loads))
    with pytest.raises(InputError, match="its tokenizer reads '.*' differently after it was saved$"):
        encoders.load_encoder(str(tmp_path), WORDS)


@pytest.mark.parametrize("pieces, rows", [(7, 300), (300, 7)])
def test_a_vocabulary_that_is_not_the_encoders_is_refused(pieces, rows):
    class Tokenizer:
        all_special_tokens = ["[CLS]"]

        def get_vocab(self):
            return {"a": 0, "b": pieces - 1}  # with a gap between

        def __call__(self, text):
            return {"input_ids": [0]}

    encoder = random_encoder("bert", vocab_size=rows, **SIZES)
    message = f"^its vocabulary has {pieces} pieces, and the encoder has {rows}; "
    with pytest.raises(InputError, match=message):
        encoders.check_vocabulary(Tokenizer(), encoder)


def test_an_encoder_whose_result_depends_on_padding_is_refused(tmp_path):
    tokenizer = encoders.learn_tokenizer(WORDS)
    for kind, more in (("fnet", {"type_vocab_size": 2}), ("bert", {})):
        sizes = {name: value for name, value in SIZES.items() if kind == "bert" or "heads" not in name}
        encoder = random_encoder(kind, vocab_size=len(tokenizer), pad_token_id=0, **sizes, **more)
        if kind == "bert":
            encoders.check_padding(tokenizer, encoder)
        else:
            with pytest.raises(InputError, match="depends on the padding"):
                encoders.check_padding(tokenizer, encoder)


def test_an_encoder_is_float32_however_it_was_stored_and_may_lack_its_pooler_alone(tmp_path):
    from transformers import BertConfig, BertModel

    stored = BertModel(BertConfig(vocab_size=50, **SIZES), add_pooling_layer=False).to(torch.bfloat16)
    stored.save_pretrained(tmp_path)
    for encoder in (encoders.build_encoder(str(tmp_path)), encoders.build_encoder(stored.config.to_dict())):
        assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}
        assert encoder.pooler is None
    weights = encoders.build_encoder(str(tmp_path)).state_dict()
    assert all(torch.equal(weights[name], weight.float()) for name, weight in stored.state_dict().items())
    kept = {name: weight for name, weight in stored.state_dict().items() if "layer.0.output" not in name}
    stored.save_pretrained(tmp_path, state_dict=kept)
    reason = r"lack 4 that the model has, such as encoder\.layer\.0\.output\.LayerNorm\.bias$"
    with pytest.raises(InputError, match=reason):
        encoders.build_encoder(str(tmp_path))


def test_random_encoders_have_the_vocabulary_and_as_many_layers_as_they_say():
    for name, layers in (("tiny", 0), ("tiny-1", 1), ("tiny-2", 2)):
        tokenizer, encoder = encoders.load_encoder(name, WORDS)
        config = encoder.config
        assert (config.num_hidden_layers, config.hidden_size) == (layers, 64)
        assert config.vocab_size == len(tokenizer) > 50
        assert name in encoders.TINY_NAMES
    described = {"model_type": "bert", "vocab_size": 77, **encoders.RANDOM["tiny"]}
    assert encoders.build_encoder(described).config.vocab_size == 77
    assert set(encoders.RANDOM) == {"base", *encoders.TINY_NAMES}


def test_the_longest_sentence_and_the_kind_of_encoder_are_known(tmp_path):
    tokenizer = encoders.learn_tokenizer(WORDS)
    tokenizer.model_max_length = int(1e30)  # as where a tokenizer's folder does not say
    for kind, longest in (("bert", 40), ("roberta", 38)):
        sizes = dict(max_position_embeddings=40, pad_token_id=1, vocab_size=len(tokenizer), **SIZES)
        random_encoder(kind, **sizes).save_pretrained(tmp_path / kind)
        tokenizer.save_pretrained(tmp_path / kind)
        loaded, encoder = encoders.load_encoder(str(tmp_path / kind), WORDS)
        assert encoders.longest_input(loaded, encoder) == longest
        ids = torch.full((1, longest), 5)
        X = encoder.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        assert X.isfinite().all()
    no_limit = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=-1))  # as XLNet's
    assert encoders.longest_input(tokenizer, no_limit) == int(1e30)
    layers = dict(encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
    random_encoder("bart", vocab_size=len(tokenizer), d_model=8, **layers).save_pretrained(tmp_path / "bart")
    tokenizer.save_pretrained(tmp_path / "bart")
    with pytest.raises(InputError, match="it has a decoder, too; it must be an encoder alone, as BERT is$"):
        encoders.load_encoder(str(tmp_path / "bart"), WORDS)


def test_no_network_for_the_encoder_is_one_line_that_names_others(tmp_path):
    offline = dict(HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    done = cli("--encoder", "bert-base-cased", "--output", tmp_path / "run", **offline)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "--encoder bert-base-cased is not here" in done.stderr and "--encoder tiny" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_folder_is_an_encoder_if_it_has_a_config(tmp_path):
    with pytest.raises(InputError, match=r"^--encoder .*: no config.json there; it must be a folder"):
        encoders.locate_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert encoders.locate_encoder(str(tmp_path)) == str(tmp_path)


# -- Devices and memory --------------------------------------------------------------------------------------


def test_a_device_that_is_not_there_is_one_line():
    assert devices.device_of("cpu") == "cpu"
    torch.zeros(1, device=devices.device_of("auto"))
    for name in ("abacus", "cuda:77"):
        with pytest.raises(InputError, match=f"^--device {name}: .+$"):
            devices.device_of(name)
    assert f"torch {torch.__version__}" in devices.hardware_of(torch.device("cpu"))


def test_a_count_of_processes_that_torchrun_did_not_set_is_one_line(monkeypatch):
    for count, says in (("x", "^WORLD_SIZE=x: torch"), ("2", "^WORLD_SIZE is set, but not as torchrun")):
        monkeypatch.setenv("WORLD_SIZE", count)
        with pytest.raises(InputError, match=says):
            processes.join_processes()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not forget its peak")
def test_the_peak_of_memory_starts_anew():
    device, size = torch.device("cpu"), 400 * 2**20
    assert devices.reset_peak(device)
    before = devices.peak_memory(device)
    big = torch.ones(size // 4)
    high = devices.peak_memory(device)
    del big
    assert high > before + 0.9 * size
    assert devices.reset_peak(device) and devices.peak_memory(device) < high - 0.9 * size


# -- Building ahead ------------------------------------------------------------------------------------------


def test_batches_are_built_in_order_one_ahead_by_a_thread():
    built = []

    def build(k):
        if k == 3:
            raise InputError("the third")
        built.append((k, threading.current_thread() is threading.main_thread()))
        return -k

    batches = build_ahead(build, range(4))
    assert [next(batches) for _ in range(3)] == [0, -1, -2]
    assert built == [(0, False), (1, False), (2, False)]
    with pytest.raises(InputError, match="the third"):
        next(batches)
    assert list(build_ahead(build, [])) == [] and list(build_ahead(build, [7])) == [-7]


# -- Flags ---------------------------------------------------------------------------------------------------


@dataclass
class Oven:
    """Something with flags."""

    heat: float = 1.5  # how hot it is (§1)
    baking_minutes: int = 20  # how long
    form: Literal["loaf", "roll"] = "loaf"  # of the bread
    extras: tuple[Literal["salt", "seeds"], ...] = ()  # what goes in
    steam: bool = False  # whether it is moist
    label: str = ""  # a name for it
    hidden: int = 0


PARSER = flags.make_parser("Bakes.", "bake [--flag value ...]")
flags.add_flags(PARSER, Oven, {"rye": {"heat": 2.5, "steam": False}, "wheat": {"baking_minutes": 9}})
EXAMPLES = [
    {},
    {"heat": 0.25},
    {"baking_minutes": 7, "form": "roll", "steam": True},
    {"extras": ("salt", "seeds"), "label": "it's mine"},
]


def test_a_flag_is_a_field_with_its_comment_and_its_defaults_as_help():
    assert flags.help_lines(Oven)["heat"] == "how hot it is (§1)"
    assert list(flags.help_lines(Oven)) == ["heat", "baking_minutes", "form", "extras", "steam", "label"]
    help_text = " ".join(PARSER.format_help().split())
    assert "--heat X how hot it is (§1) (default: 1.5; rye: 2.5)" in help_text
    assert "--baking-minutes N how long (default: 20; wheat: 9)" in help_text
    assert "--form {loaf,roll} of the bread (default: loaf)" in help_text
    assert "--extras PART [PART ...] what goes in: salt, seeds --steam whether it is moist" in help_text
    assert "moist --label NAME a name for it" in help_text
    assert "--hidden" not in help_text  # a field without a comment has no flag


@pytest.mark.parametrize("given", EXAMPLES, ids=str)
def test_a_command_line_gives_the_flags_it_was_made_of(given):
    command = flags.command_of(given)
    program, script, *arguments = shlex.split(command)
    assert (program, script) == ("python", "train.py")
    parsed = vars(PARSER.parse_args(arguments))  # only what was given
    if "extras" in parsed:
        parsed["extras"] = tuple(parsed["extras"])
    assert parsed == given
    flags.check_values(Oven, given, {})


@pytest.mark.parametrize(
    "given, message",
    [
        ({"form": "cake"}, "--form 'cake': choose from loaf, roll"),
        ({"form": 3}, "--form 3: choose from loaf, roll"),
        ({"extras": ("salt", "sand")}, "--extras 'sand': choose from salt, seeds"),
        ({"extras": "salt"}, "--extras 'salt': must be of type list of names"),
        ({"label": Path("rye")}, f"--label {Path('rye')!r}: must be of type str"),
        ({"heat": 3.5}, "--heat 3.5: must be from 1 to 3"),
        ({"heat": float("nan")}, "--heat nan: must be from 1 to 3"),
        ({"baking_minutes": -1}, "--baking-minutes -1: must be from 0 to 2147483648"),
        ({"baking_minutes": 10**20}, f"--baking-minutes {10**20}: must be from 0 to 2147483648"),
    ],
    ids=str,
)
def test_a_value_that_a_field_cannot_have_is_one_line(given, message):
    with pytest.raises(InputError) as error:
        flags.check_values(Oven, given, {"heat": (1, 3)})
    assert str(error.value) == message


@pytest.mark.parametrize(
    "actions, given, message",
    [
        ({"slices": 3}, {}, "--slices goes with --bake RUN"),
        ({"bake": "x"}, {"steam": True}, "--steam does not go with --bake; these do: --slices, --heat"),
        ({"clean": "x", "slices": 3}, {}, "--slices does not go with --clean; these do: --heat"),
        ({"bake": "x", "clean": "x"}, {}, "--clean does not go with --bake; these do: --slices, --heat"),
        ({"bake": "x", "slices": 3}, {}, "--slices goes with --bake RUN --heat"),
    ],
    ids=str,
)
def test_flags_that_do_not_go_together_are_one_line(actions, given, message):
    fitting = {"bake": ("slices", "heat"), "clean": ("heat",)}
    needed = {"slices": "heat"}
    flags.check_fitting({}, {"heat": 1}, fitting, needed)
    flags.check_fitting({"bake": "x", "slices": 3}, {"heat": 1}, fitting, needed)
    with pytest.raises(InputError) as error:
        flags.check_fitting(actions, given, fitting, needed)
    assert str(error.value) == message


def test_a_flag_that_would_change_nothing_is_one_line():
    flags.refuse_idle({"heat": 1, "parts": ()}, {"parts": "it has none", "steam": "it is dry"})
    with pytest.raises(InputError, match="^--dry-steam does nothing here: it is dry$"):
        flags.refuse_idle({"dry_steam": True}, {"dry_steam": "it is dry"})


def test_half_a_flag_is_no_flag():
    with pytest.raises(InputError, match="^unrecognized arguments: --hea 2; --help lists the flags$"):
        PARSER.parse_args(["--hea", "2"])


# -- Programs ------------------------------------------------------------------------------------------------


def program(code, stderr=subprocess.PIPE, **more):
    """Runs `action`, which the code defines, as every program here does, in a process of its own."""
    code = f"import sys\nfrom support.errors import run_program\n{code}\nsys.exit(run_program(action))"
    return subprocess.run([sys.executable, "-c", code], cwd=HERE, stderr=stderr, **more)


@pytest.mark.parametrize(
    "error, status, line",
    [
        (None, 0, ""),
        (InputError("x: not right"), 2, "x: not right\n"),
        (KeyboardInterrupt("after epoch 1"), 130, "stopped; after epoch 1\n"),
        (OSError(errno.EACCES, "Permission denied", "x"), 2, "x: Permission denied\n"),
        (OSError(errno.EIO, "Input/output error"), 2, "output: Input/output error\n"),
    ],
    ids=str,
)
def test_an_error_is_one_line_and_a_status(error, status, line, capsys):
    def action():
        if error:
            raise error

    assert run_program(action) == status
    assert capsys.readouterr() == ("", line)


def test_a_program_ends_quietly_where_nobody_reads_on():
    reader, writer = os.pipe()
    os.close(reader)
    done = program("def action():\n    print('x' * 10**6)", stdout=writer)
    os.close(writer)
    assert done.returncode == 141 and done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk")
def test_output_onto_a_full_disk_is_one_line():
    code = "def action():\n    print('x' * 10**6)"
    with open("/dev/full", "w") as full:
        done = program(code, stdout=full)
        assert (done.returncode, done.stderr) == (2, b"output: No space left on device\n")
        assert program(code, stdout=full, stderr=full).returncode == 2


ENDLESS = """
import time
from support.errors import end_quietly
end_quietly()
def action():
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("times", [1, 5])
@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_sent_once_or_five_times_is_one_line_and_one_status(name, status, times):
    heard = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # also under nohup, or behind "&"
    heard += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code = f"import sys\nfrom support.errors import run_program\n{ENDLESS}\nsys.exit(run_program(action))"
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "-c", heard + code], cwd=HERE, **pipes) as process:
        process.stdout.readline()
        for _ in range(times):
            process.send_signal(getattr(signal, name))
            time.sleep(0.01)
        _, printed = process.communicate(timeout=60)
    code = process.returncode
    if times > 1 and code < 0:  # one came in Python's last moments: a shell makes the same status of it
        code = 128 - code
    assert (code, printed) == (status, "stopped\n")


@pytest.mark.parametrize("command", [["train.py"], ["data.py"], ["-m", "tools.report", "x"]])
def test_ctrl_c_while_torch_is_imported_is_quiet(tmp_path, command):
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)")
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen([sys.executable, *command], cwd=HERE, env=env, **pipes) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate(timeout=60)
    assert (process.returncode, printed) == (-signal.SIGINT, "")  # a shell makes 130 of it


def test_a_signal_that_is_ignored_stays_so(capsys):
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert run_program(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, usual)
    assert capsys.readouterr().err == ""


def test_a_program_that_is_stopped_and_does_not_end_can_be_stopped_again():
    code = f"import atexit, sys\nfrom support.errors import run_program\n{ENDLESS}"
    code += "atexit.register(action)\nsys.exit(run_program(action))"  # as a pool of threads is waited for
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "-c", code], cwd=HERE, **pipes) as process:
        for _ in range(2):
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            time.sleep(1.2)
        process.communicate(timeout=30)
    assert process.returncode == 130


def test_ctrl_c_is_pythons_own_again_when_a_program_is_over():
    usual = signal.signal(signal.SIGINT, signal.SIG_DFL)  # as `end_quietly` leaves it
    try:
        assert run_program(lambda: None) == 0
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, usual)


def test_a_stop_that_was_swallowed_can_be_repeated(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(errors.time, "monotonic", lambda: now[0])

    def action():
        for now[0] in (0.0, 0.5, 0.9, 1.3):  # the first is lost, two are too soon, the fourth is heeded
            with suppress(KeyboardInterrupt) if not now[0] else nullcontext():
                os.kill(os.getpid(), signal.SIGINT)

    assert run_program(action) == 130 and now[0] == 1.3


def test_of_several_processes_another_one_waits_to_be_ended_before_it_prints(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    waits = []
    monkeypatch.setattr(errors.time, "sleep", lambda seconds: waits.append(capsys.readouterr().err))

    def fail(error):
        raise error

    for number, waited in (("0", []), ("1", [""])):
        monkeypatch.setenv("LOCAL_RANK", number)
        waits.clear()
        assert run_program(lambda: fail(InputError("wrong"))) == 2
        assert capsys.readouterr().err == "wrong\n" and waits == waited
    assert run_program(lambda: fail(KeyboardInterrupt())) == 130  # all were stopped, and the first says so
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_under_torchrun_an_error_is_one_line_once():
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = cli("--dataset", "nowhere", by=torchrun, OMP_NUM_THREADS="1")
    assert done.returncode and not done.stdout
    assert done.stderr.count("--dataset nowhere: neither toy") == 1


def test_a_program_prints_to_any_terminal_and_to_none():
    code = "def action():\n    print('é')"
    done = program(code, stdout=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\\xe9\n", b"")
    done = program(f"sys.stdout = None\n{code}", stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# -- Files ---------------------------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_file(path, b"old")
    write_file(path, b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=f"^{path}: No space left on device$"):
        write_file(path, b"newer")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match=r"nowhere/file: No such file or directory$"):
        write_file(tmp_path / "nowhere/file", b"x")


def test_what_takes_too_long_is_not_waited_for():
    assert call_in_time(60, lambda: 3) == 3
    with pytest.raises(KeyError, match="x"):
        call_in_time(60, lambda: {}["x"])
    with pytest.raises(TimeoutError, match="^it takes more than 0.01 s$"):
        call_in_time(0.01, threading.Event().wait)


# -- Run folders ---------------------------------------------------------------------------------------------


def test_a_run_gets_a_folder_of_its_own_that_is_never_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = SimpleNamespace(dataset="data/mine", fold=0, seed=3, output="")
    names = [str(folders.new_folder(settings, "multihead local")) for _ in range(2)]
    assert names == ["runs/mine-multihead-local-seed3-1", "runs/mine-multihead-local-seed3-2"]
    settings = SimpleNamespace(dataset="ade", fold=4, seed=0, output="")
    assert str(folders.new_folder(settings, "spert")) == "runs/ade-fold4-spert-seed0-1"
    settings.dataset = "."
    assert str(folders.new_folder(settings, "dot")) == f"runs/{tmp_path.name}-dot-seed0-1"
    settings.output = "deep/run"
    assert folders.new_folder(settings, "spert") == Path("deep/run") and Path("deep/run").is_dir()
    with pytest.raises(InputError, match="^--output deep/run exists; a run is never written over: name"):
        folders.new_folder(settings, "spert")
    Path("file").touch()
    settings.output = "file/run"
    with pytest.raises(InputError, match="^--output file/run: Not a directory$"):
        folders.new_folder(settings, "spert")


@draw(name=st.text(), place=st.integers(0, 9), half=st.integers(0xD800, 0xDFFF).map(chr))
def test_a_name_that_is_not_utf_8_is_one_line_and_no_folder_is_made(tmp_path_factory, name, place, half):
    name = name[:place] + half + name[place:]
    folder = tmp_path_factory.mktemp("runs")
    settings = SimpleNamespace(dataset="toy", fold=0, seed=0, output=f"{folder}/{name}")
    uses = {"--output": lambda path: folders.new_folder(settings, "dot")}
    uses |= {"--load": folders.locate_run, "--resume": folders.check_unfinished}
    for flag, use in uses.items():
        with pytest.raises(InputError, match=f"^{flag} .*: not UTF-8; rename it") as error:
            use(settings.output)
        assert len(str(error.value).splitlines()) == 1
    assert not list(folder.iterdir())


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")])
def test_a_file_or_a_dangling_link_in_the_place_of_runs_is_named(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)
    make(Path("runs"))
    settings = SimpleNamespace(dataset="toy", fold=0, seed=0, output="")
    with pytest.raises(InputError, match="^runs: not a folder; name another one with --output"):
        folders.new_folder(settings, "dot")


def test_the_history_of_a_run_is_a_line_an_epoch(tmp_path):
    assert folders.read_history(tmp_path) == []
    (tmp_path / "history.jsonl").write_text('{"epoch": 1, "seconds": 1}\n{"epoch": 2, "seconds": 2.5}\n')
    assert folders.read_history(tmp_path) == [{"epoch": 1, "seconds": 1}, {"epoch": 2, "seconds": 2.5}]


@pytest.mark.parametrize("text", ["{", "3", "[]", "{}", '{"seconds": "x"}', "\x00"])
def test_a_history_of_something_else_is_one_line(tmp_path, text):
    (tmp_path / "history.jsonl").write_text(text)
    message = f"^{tmp_path}/history.jsonl: .* must be one epoch per line"
    with pytest.raises(InputError, match=message) as error:
        folders.read_history(tmp_path)
    assert len(error.value.lines) == 1


def test_the_best_epoch_is_the_first_of_the_best_on_dev_and_else_the_last():
    f1 = [(90, 10), (60, 80), (70, 70), (80, 20)]
    history = [{"epoch": k, "entity_f1": one, "relation_f1": two} for k, (one, two) in enumerate(f1, 1)]
    assert folders.best_line(history)["epoch"] == 2
    assert folders.best_line([{"epoch": 1}, {"epoch": 2}])["epoch"] == 2


@pytest.mark.parametrize("stop", [KeyboardInterrupt, InputError])
def test_what_ends_a_run_says_what_was_kept_and_how_to_go_on(tmp_path, stop):
    folder = tmp_path / "a run"
    folder.mkdir()

    def message(*given):
        with pytest.raises(stop) as error, folders.explain_interruption(folder):
            raise stop(*given)
        return str(error.value)

    assert message("full") == "full; no epoch was finished; start it anew"
    (folder / "config.json").touch()
    advice = f"go on with: python train.py --resume '{folder}'"
    assert message() == f"no epoch was finished; {advice}"
    (folder / folders.CHECKPOINT).touch()
    assert message("full") == f"full; its last checkpoint is kept; {advice}"


OUTPUT = [
    (OSError(errno.ENOSPC, "No space left on device"), 2, "output: No space left on device"),
    (BrokenPipeError(), 141, "stopped; nobody reads the output"),
]


@pytest.mark.parametrize("failure, status, line", OUTPUT, ids=str)
def test_a_log_that_cannot_be_written_says_how_to_go_on(tmp_path, capsys, failure, status, line):
    (tmp_path / "config.json").touch()

    def action():
        with folders.explain_interruption(tmp_path):
            raise failure

    assert run_program(action) == status
    advice = f"no epoch was finished; go on with: python train.py --resume {tmp_path}"
    assert capsys.readouterr().err == f"{line}; {advice}\n"


def test_what_cannot_go_on_is_not_advised_to(tmp_path):
    with pytest.raises(folders.NotResumable, match="^not this one$"):
        with folders.explain_interruption(tmp_path):
            raise folders.NotResumable("not this one")


# -- Checkpoints ---------------------------------------------------------------------------------------------


def small_training():
    """A model with its optimizer and its schedule."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(
        [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.01}]
    )
    return model, optimizer, torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=9)


def train_on(model, optimizer, schedule, steps=3):
    """Some steps, with dropout; returns all weights then."""
    for _ in range(steps):
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return [weight.clone() for weight in model.parameters()]


IDENTITY = {"--seed": 1, "the split train": 64 * "a"}
OTHER_TRAIN = {"the split train": 64 * "b"}


def test_from_a_checkpoint_training_goes_on_to_the_same_weights_bit_for_bit(tmp_path):
    path, cpu = tmp_path / "checkpoint", torch.device("cpu")
    assert go_on(path, *small_training(), cpu, IDENTITY) == []  # there is none
    parts = small_training()
    train_on(*parts)
    save_checkpoint(path, *parts, cpu, {"identity": IDENTITY, "history": [{"epoch": 1}]})
    uninterrupted = train_on(*parts)
    others = small_training()
    assert go_on(path, *others, cpu, IDENTITY) == [{"epoch": 1}]
    assert all(map(torch.equal, train_on(*others), uninterrupted))
    assert parts[2].get_last_lr() == others[2].get_last_lr()


def test_a_checkpoint_of_something_else_is_refused_and_says_what_to_do(tmp_path):
    path, cpu = tmp_path / "checkpoint", torch.device("cpu")
    save_checkpoint(path, *small_training(), cpu, {"identity": IDENTITY, "history": []})
    advice = r"move it away, and --resume begins anew$"
    for change, says in (({"--seed": 2}, "--seed is 2, and was 1"), (OTHER_TRAIN, "the split train has .*")):
        with pytest.raises(folders.NotResumable, match=rf"\({says}\); {advice}"):
            go_on(path, *small_training(), cpu, IDENTITY | change)
    _, optimizer, schedule = small_training()
    with pytest.raises(folders.NotResumable, match=rf"\(RuntimeError: .*\); {advice}"):
        go_on(path, nn.Linear(3, 4), optimizer, schedule, cpu, IDENTITY)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(folders.NotResumable, match=rf"{path}: not a checkpoint of this run \(.*\); {advice}"):
        go_on(path, *small_training(), cpu, IDENTITY)


def test_a_folder_is_locked_while_a_run_works_in_it(tmp_path):
    (tmp_path / ".model.safetensors.12ab.part").touch()  # of a process that was killed
    (tmp_path / "model.safetensors.part").touch()  # a user's own
    with folders.lock(tmp_path, 0):
        with pytest.raises(folders.NotResumable, match="another process works on this run"):
            folders.lock(tmp_path, 0).__enter__()
        with folders.lock(tmp_path, 1):  # another process of the same run
            pass
    with folders.lock(tmp_path, 0):
        assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors.part"]


def test_a_run_of_several_processes_goes_on_with_as_many(tmp_path, monkeypatch):
    (tmp_path / "config.json").touch()
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(KeyboardInterrupt) as stopped, folders.explain_interruption(tmp_path):
        raise KeyboardInterrupt
    assert f"torchrun --nproc-per-node 3 train.py --resume {tmp_path}" in str(stopped.value)


def test_what_ends_a_run_with_many_errors_keeps_them_all(tmp_path):
    with pytest.raises(InputError) as error, folders.explain_interruption(tmp_path):
        raise InputError("\n".join(f"train, sentence {k}: too long" for k in range(99)))
    lines = str(error.value).splitlines()
    assert lines[0] == "train, sentence 0: too long; no epoch was finished; start it anew"
    assert len(error.value.lines) == 99 and lines[20] == "and 79 more, of 1 kind"
