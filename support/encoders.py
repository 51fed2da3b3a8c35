"""Encoders and their tokenizers: any `AutoModel` from a folder or the hub, or BERT with random weights."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from support.errors import InputError, one_line
from support.hub import fetch_repository

NO_CODE = dict(trust_remote_code=False)  # no file of an encoder or of a run is ever executed

TINY = dict(hidden_size=64, num_attention_heads=4, intermediate_size=128)
# BERT with random weights. "base" has the architecture of BERT-base, for measuring. "tiny" has no layers, so
# that whatever the toy corpus needs has to come from the paper's equations.
RANDOM = {
    "base": {},
    "tiny": {**TINY, "num_hidden_layers": 0},
    "tiny-1": {**TINY, "num_hidden_layers": 1},
    "tiny-2": {**TINY, "num_hidden_layers": 2},
}

TINY_NAMES = ("tiny", "tiny-1", "tiny-2")
MOST_LAYERS = 1000  # the same limit as --layers has


def silence_transformers():
    """Turns off the reports of transformers, which name weights that nothing here uses."""
    try:
        import transformers
    except ValueError as error:  # it reads the HF_ variables on import
        advice = "set HF_ENDPOINT and the other HF_ variables right, or unset them"
        raise InputError(f"transformers cannot be used ({one_line(error)}): {advice}") from None

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def load_encoder(name: str, sentences: Iterable[list[str]]) -> tuple:
    """The tokenizer and the encoder of that name: one of `RANDOM`, a folder, or a name on the hub.
    A random encoder gets a vocabulary learned from the words of the training `sentences`; any other is
    refused if it reads these words in two ways, or if its result depends on padding."""
    if name in RANDOM:
        tokenizer = learn_tokenizer(sentences)
        return tokenizer, build_encoder({"model_type": "bert", "vocab_size": len(tokenizer), **RANDOM[name]})
    folder = locate_encoder(name)
    try:
        refuse_code(folder)
        tokenizer, encoder = load_tokenizer(folder), build_encoder(folder)
        check_vocabulary(tokenizer, encoder)
        words = sorted(set(itertools.chain.from_iterable(sentences)))
        check_reading(tokenizer, words[:: len(words) // 2000 + 1])
        check_padding(tokenizer, encoder)
    except Exception as error:  # whatever transformers raises on a folder that holds something else
        reason = one_line(error)
        if any(Path(folder).glob("*.model")):
            reason = f"{reason}; to read its *.model: pip install sentencepiece protobuf"
        raise InputError(f"--encoder {name}: {reason}") from None
    return tokenizer, encoder


def build_encoder(source: str | dict) -> nn.Module:
    """The encoder in a folder, or the one that a dict describes, with random weights."""
    from transformers import AutoConfig, AutoModel

    if isinstance(source, dict):
        config = AutoConfig.for_model(**source)
        if getattr(config, "num_hidden_layers", 0) > MOST_LAYERS:
            raise InputError(f"it has {config.num_hidden_layers:,} layers; at most {MOST_LAYERS:,} are built")
        encoder = AutoModel.from_config(config, **NO_CODE, dtype=torch.float32)
    else:  # in float32: else an encoder that is stored in half precision stays so
        options = dict(**NO_CODE, dtype=torch.float32, output_loading_info=True)
        encoder, report = AutoModel.from_pretrained(source, **options)
        if lost := sorted(name for name in report["missing_keys"] if "pooler" not in name):
            raise InputError(f"the weights there lack {len(lost)} that the model has, such as {lost[0]}")
    if encoder.config.is_encoder_decoder:
        raise InputError("it has a decoder, too; it must be an encoder alone, as BERT is")
    if hasattr(encoder, "pooler"):
        encoder.pooler = None  # nothing here reads its output
    return encoder


def load_tokenizer(folder: str | Path):
    """The tokenizer in a folder. It puts a blank before each word, so that a word reads alike anywhere."""
    from tokenizers import normalizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, **NO_CODE, add_prefix_space=True)
    if not tokenizer.is_fast:
        raise InputError("its tokenizer does not say which word a piece is of; it must have a tokenizer.json")
    backend = tokenizer.backend_tokenizer
    first = json.loads(backend.to_str())["pre_tokenizer"] or {}
    for part in first.get("pretokenizers", [first]):  # some classes take no notice of `add_prefix_space`
        if part.get("type") == "ByteLevel" and not part["add_prefix_space"]:
            blank = normalizers.Prepend(" ")
            earlier = [backend.normalizer] if backend.normalizer else []
            if str(blank) not in str(earlier):  # a tokenizer saved by a run has it already
                backend.normalizer = normalizers.Sequence([*earlier, blank])
    return tokenizer


def refuse_code(folder: str | Path):
    """Refuses a folder whose JSON names Python files to be executed, or weights that lie elsewhere."""
    for path in Path(folder).glob("*.json"):
        content = path.read_text(encoding="utf-8", errors="replace")
        if path.name.endswith("config.json") and '"auto_map"' in content:
            raise InputError(f"{path.name} names Python files (auto_map); these are never executed")
        if path.name.endswith(".index.json"):
            for file in set(json.loads(content)["weight_map"].values()):
                if Path(file).name != file:
                    raise InputError(f"{path.name} names weights outside of its folder: {file}")


def check_vocabulary(tokenizer, encoder: nn.Module):
    """Refuses a vocabulary that cannot be the encoder's: most pieces are lacking, or some have no embedding.
    Where its file is not there, some tokenizers make up a vocabulary of a few pieces."""
    ids = [*tokenizer.get_vocab().values(), *tokenizer("a")["input_ids"]]  # there may be gaps between them
    pieces, rows = 1 + max(ids), encoder.get_input_embeddings().weight.shape[0]
    if pieces > rows or 2 * pieces < rows or pieces <= len(tokenizer.all_special_tokens):
        right = "the vocabulary's file (tokenizer.json, vocab.txt) must lie there"
        raise InputError(f"its vocabulary has {pieces:,} pieces, and the encoder has {rows:,}; {right}")


def check_reading(tokenizer, words: list[str]):
    """Refuses a tokenizer that reads a word differently in another place, or after it was saved."""
    with TemporaryDirectory() as folder:
        save_tokenizer(tokenizer, Path(folder))
        saved = load_tokenizer(folder)
    first, second = pieces_of(tokenizer, words, 0), pieces_of(tokenizer, words, 1)
    for word, *readings in zip(words, first, second, pieces_of(saved, words, 0)):
        if readings[0] != readings[1]:
            raise InputError(f"its tokenizer reads {word!r} differently after another word")
        if readings[0] != readings[2]:
            raise InputError(f"its tokenizer reads {word!r} differently after it was saved")


def pieces_of(tokenizer, words: list[str], place: int) -> list[list[int]]:
    """The wordpieces of each word when it stands first in a sentence (`place` 0), or second (1)."""
    sentences = [[word] * (place + 1) for word in words]
    pieces = []
    for encoding in tokenizer(sentences, is_split_into_words=True).encodings if words else []:
        pieces.append([id for id, word in zip(encoding.ids, encoding.word_ids) if word == place])
    return pieces


@torch.no_grad()
def check_padding(tokenizer, encoder: nn.Module):
    """Refuses an encoder that makes something else of a sentence that has padding behind it, as FNet does."""
    ids = tokenizer(["a b c"])["input_ids"][0]
    padding = [tokenizer.pad_token_id or 0] * 8
    mask = torch.tensor([[1] * len(ids) + [0] * len(padding)])
    alone = encoder.eval()(input_ids=torch.tensor([ids]), attention_mask=mask[:, : len(ids)])
    padded = encoder(input_ids=torch.tensor([ids + padding]), attention_mask=mask)
    X = alone.last_hidden_state
    difference = (padded.last_hidden_state[:, : len(ids)] - X).abs().max()
    if difference > 1e-3 * X.abs().max():
        raise InputError("what it makes of a sentence depends on the padding behind it; take another encoder")


def save_tokenizer(tokenizer, folder: Path):
    """Writes the files of a tokenizer."""
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # the tokenizers library has exceptions of its own
        raise InputError(f"{folder}: {one_line(error)}") from None


def locate_encoder(name: str) -> str:
    """The folder of a pretrained encoder: `name` itself, or the hub's copy, fetched once."""
    if Path(name).exists():
        if (Path(name) / "config.json").exists():
            return name
        advice = "it must be a folder as `save_pretrained` writes it"
        raise InputError(f"--encoder {name}: no config.json there; {advice}")
    files = ["*.json", "*.txt", "*.model", "model*.safetensors", "pytorch_model*.bin"]
    advice = "give the folder of a copy, or take random weights: --encoder tiny, tiny-1, tiny-2 or base"
    return str(fetch_repository("--encoder", name, files, is_encoder, advice))


def is_encoder(folder: Path) -> bool:
    """Whether a folder has a config, weights and a tokenizer."""
    weights = ["model*.safetensors", "pytorch_model*.bin"]
    for patterns in (["config.json"], weights, ["tokenizer.json", "vocab*", "*.model"]):
        if not any(any(folder.glob(pattern)) for pattern in patterns):
            return False
    return True


def learn_tokenizer(sentences: Iterable[list[str]], size: int = 8000):
    """An uncased WordPiece tokenizer learned from the words of some sentences, so that nothing is fetched."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import BertTokenizerFast

    words = []
    for sentence in sentences:
        words += [word.lower() for word in sentence]
    letters = sorted(set("".join(words)))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    # All letters are named beforehand: the trainer would meet them in an order that differs from run to run.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=2, show_progress=False, special_tokens=special
    )
    learned = Tokenizer(models.WordPiece())
    learned.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    learned.train_from_iterator(words, trainer)
    vocabulary = learned.get_vocab()
    return BertTokenizerFast(vocab=vocabulary, do_lower_case=True, strip_accents=False, model_max_length=512)


def longest_input(tokenizer, encoder: nn.Module) -> int:
    """The most wordpieces that an encoder takes."""
    limit = tokenizer.model_max_length
    positions = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    padding = getattr(positions, "padding_idx", None)  # RoBERTa's positions begin behind that of its padding
    unused = 0 if padding is None else padding + 1
    rows = getattr(encoder.config, "max_position_embeddings", -1)  # -1, as XLNet says: there is no limit
    return min(rows - unused, limit) if rows > 0 else limit
