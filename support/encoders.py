"""Encoders and their tokenizers: any `AutoModel` from a folder or the hub, or BERT with random weights."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from support.errors import InputError, one_line

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


def silence_transformers():
    """Its reports name weights that nothing here uses."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def load_encoder(name: str, sentences: Iterable[list[str]]) -> tuple:
    """The tokenizer and the encoder of that name: one of `RANDOM`, a folder, or a name on the hub.
    A random encoder gets a vocabulary learned from the words of the training `sentences`."""
    if name in RANDOM:
        tokenizer = learn_tokenizer(sentences)
        return tokenizer, build_encoder({"model_type": "bert", "vocab_size": len(tokenizer), **RANDOM[name]})
    tokenizer = load_tokenizer(name)
    try:
        return tokenizer, build_encoder(tokenizer.name_or_path)  # the folder where it was found
    except Exception as error:  # whatever transformers raises on a folder that holds something else
        raise InputError(f"--encoder {name}: {one_line(error)}") from None


def build_encoder(source: str | dict) -> nn.Module:
    """The encoder in a folder, or the one that a dict describes, with random weights."""
    from transformers import AutoConfig, AutoModel

    if isinstance(source, dict):
        encoder = AutoModel.from_config(AutoConfig.for_model(**source), dtype=torch.float32)
    else:  # in float32: else an encoder that is stored in half precision stays so
        encoder, report = AutoModel.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
        if lost := sorted(name for name in report["missing_keys"] if "pooler" not in name):
            raise ValueError(f"the weights there lack {lost[0]} and {len(lost) - 1} more")
    if encoder.config.is_encoder_decoder:
        raise ValueError("it has a decoder, too; it must be an encoder alone, as BERT is")
    if hasattr(encoder, "pooler"):
        encoder.pooler = None  # nothing here reads its output
    return encoder


def load_tokenizer(name: str):
    """The tokenizer of a pretrained encoder, from a folder or the hub."""
    from transformers import AutoTokenizer

    folder = locate_encoder(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    except Exception as error:  # whatever transformers raises on a folder that holds something else
        raise InputError(f"--encoder {name}: {one_line(error)}") from None
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        advice = "a tokenizer.json or vocab.txt belongs to it"
        raise InputError(f"--encoder {name}: no vocabulary there; {advice}")
    return tokenizer


def save_tokenizer(tokenizer, folder: Path):
    """Writes the files of a tokenizer."""
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # the tokenizers library has exceptions of its own
        raise InputError(f"{folder}: {one_line(error)}") from None


def load_saved_tokenizer(folder: Path):
    """The tokenizer of a saved run."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def locate_encoder(name: str) -> str:
    """The folder of a pretrained encoder: `name` itself, or the hub's copy, fetched once.
    Without a network this takes seconds, not minutes of retries."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    if Path(name).exists():
        if (Path(name) / "config.json").exists():
            return name
        advice = "it must be a folder as `save_pretrained` writes it"
        raise InputError(f"--encoder {name}: no config.json there; {advice}")
    try:
        with suppress(LocalEntryNotFoundError):  # not fetched before
            folder = Path(snapshot_download(name, local_files_only=True))
            if list(folder.glob("*.safetensors")) and list(folder.glob("tokenizer*")):
                return str(folder)
        HfApi().model_info(name, timeout=8)
        files = ["config.json", "*.safetensors", "tokenizer*", "vocab*", "merges.txt", "special_tokens*"]
        return snapshot_download(name, allow_patterns=files)
    except (HFValidationError, RepositoryNotFoundError):
        raise InputError(f"--encoder {name}: no such folder, and no such model on the hub") from None
    except Exception as error:  # whatever the hub's client raises when it cannot reach the hub
        reason = f"--encoder {name} is not here and could not be fetched ({one_line(error)})"
        advice = "give the folder of a copy, or take random weights: --encoder tiny, tiny-1, tiny-2 or base"
        raise InputError(f"{reason}: {advice}") from None


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
    return min(getattr(encoder.config, "max_position_embeddings", limit) - unused, limit)
