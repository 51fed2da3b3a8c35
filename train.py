"""The experiment: train, choose the best epoch on dev, score on test in the paper's protocol, save; or load and predict.

    python train.py                                      toy data, tiny encoder, no download, half a minute
    python train.py --dataset ade --fold 0               the paper's run (fetches ADE and bert-base-cased once)
    python train.py --load RUN --predict "Gemcitabine-induced pulmonary toxicity is usually a dramatic condition."
    python train.py --load RUN --predict FILE --format html > page.html
    python train.py --resume RUN                         goes on with a run that was stopped
    python train.py --report RUN RUN                     runs beside the paper's tables

From Python: `from train import load; load("runs/…").predict(["…"])`.
"""

import argparse
import atexit
import ctypes
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import platform
import random
import shlex
import statistics
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import jaxtyping
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch.utils.benchmark.utils.timer import timer  # once the device has done what it was given
from tqdm import tqdm

import data
from data import Corpus, DataError, Entity, Relation, Sampling, Sentence, one_line
from spanrel import ATTENTION, RANDOM, SPERT, Config, SpanRel, SpERT, build_encoder, setting

# -- Settings -------------------------------------------------------------------------------------------------------------


@dataclass
class Settings:
    """All that shapes a run. "SpERT": §4.2 follows its published settings [L14]."""

    dataset: str = setting("toy", "toy, ade, conll04, ace05, or a folder with train.json, dev.json, test.json")
    fold: int = setting(0, "ADE: which of the ten folds is tested (§4.1)")
    heads_only: bool = setting(False, "ACE05: an entity is its head region (§4.1) [L22]")
    data_dir: str = setting("data", "where corpora are kept; files placed there are used instead of a download")
    encoder: str = setting("bert-base-cased", "a name on the hub, a folder, base, tiny, tiny-1 or tiny-2 (§4.2)")
    epochs: int = setting(20, "passes over the training sentences (SpERT)")
    batch_size: int = setting(8, "sentences in a training step (§4.2)")
    lr: float = setting(1e-4, "peak learning rate of the encoder; SpERT's is 5e-5, for its batch of 2 [L14]")
    head_lr: float = setting(5e-4, "peak learning rate of what stands above the encoder [L14]")
    warmup: float = setting(0.1, "share of the steps in which the learning rate rises (SpERT)")
    weight_decay: float = setting(0.01, "AdamW's, but for biases and layer norms (SpERT)")
    clip: float = setting(1.0, "largest norm of the gradient (SpERT)")
    negative_rate: int = setting(30, "negatives for each gold entity or relation of a sentence (§3.4)")
    negative_count: int = setting(0, "this many negatives in each sentence instead, if not 0")
    pairs_among: str = setting("gold", "training pairs: among gold or all sampled spans [L13]", ("gold", "sampled"))
    train_on_dev: bool = setting(False, "train on train and dev, and keep the last epoch [L14]")
    flat: bool = setting(False, "of predicted entities that overlap keep the likeliest; for CoNLL04, which has none [L37]")
    eval_split: str = setting("test", "the split scored at the end; dev while settings are being chosen", ("test", "dev"))
    seed: int = setting(0, "of weights, order, dropout and negatives")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    precision: str = setting("fp32", "bf16: autocast, the loss in float32", ("fp32", "bf16"))
    output: str = setting("", "the run's folder, which must not exist yet; else a new one under runs/")
    config: Config = field(default_factory=Config)


# What changes the defaults above, the later before the earlier; flags given by hand come last.
FOR_DATASET = {"toy": dict(encoder="tiny")}  # nothing measured on dev asks for more in the others (README)
FOR_TINY = dict(lr=1e-3, head_lr=1e-3, hidden=64)  # with an encoder of random weights as small as tiny is
FOR_SPERT = {**SPERT, "batch_size": 2, "lr": 5e-5, "head_lr": 5e-5, "negative_count": 100}

# What numbers can be; the others are from 0.
RANGE = dict.fromkeys(("epochs", "batch_size", "chunk"), (1, 2**31)) | dict.fromkeys(("dropout", "warmup", "threshold"), (0, 1))
RANGE |= dict.fromkeys(("heads", "layers", "context_layers", "max_width"), (1, 1000)) | dict.fromkeys(("hidden", "width_dim"), (1, 2**16))
RANGE["clip"] = (1e-6, 2**31)


def flag(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


def check_range(given: dict):
    """Refuses a number that its flag cannot be."""
    for name, value in given.items():
        low, high = RANGE.get(name, (0, 2**31))
        if isinstance(value, (int, float)) and not low <= value <= high:  # so that not-a-number is refused, too
            raise DataError(f"{flag(name)} {value}: must be from {low} to {high}")


def settings_of(**given) -> Settings:
    """Settings from flags by name, those of `Config` among them; the dataset's and the model's defaults fill the rest."""
    baseline = given.get("model") == "spert"
    if off := sorted({"ablate", "attention"} & {name for name, value in given.items() if value}) if baseline else []:
        raise DataError(f"--{off[0]} goes with --model span: SpERT has no such part")
    chosen = {**(FOR_SPERT if baseline else {}), **FOR_DATASET.get(given.get("dataset", "toy"), {}), **given}
    if chosen.get("encoder") in RANDOM and chosen["encoder"] != "base":
        chosen = {**chosen, **FOR_TINY, **given}
    if baseline:  # which has one learning rate
        chosen["head_lr"] = given.get("head_lr", chosen["lr"])
    check_range(chosen)
    if chosen.get("train_on_dev") and chosen.get("eval_split") == "dev":
        raise DataError("--eval-split dev and --train-on-dev: dev would be scored by a model that has seen it")
    shapes = {f.name: chosen.pop(f.name) for f in dataclasses.fields(Config) if f.name in chosen}
    return Settings(**chosen, config=Config(**shapes))


# -- A run: a model with all that it needs to read text -------------------------------------------------------------------


@dataclass
class Run:
    """A model, its tokenizer, its types and the settings it was made with."""

    settings: Settings
    model: SpanRel
    tokenizer: object
    entity_types: list[str]
    relation_types: list[str]

    @property
    def longest(self) -> int:
        """The most wordpieces the encoder takes."""
        limit = self.tokenizer.model_max_length
        places = getattr(getattr(self.model.encoder, "embeddings", None), "position_embeddings", None)
        unused = getattr(places, "padding_idx", None)  # RoBERTa counts its positions from the one behind its padding's
        return min(getattr(self.model.encoder.config, "max_position_embeddings", limit) - (0 if unused is None else unused + 1), limit)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def encode(self, sentences: list[Sentence], where: str = "") -> list[data.Encoded]:
        """The sentences in wordpieces."""
        return data.encode(sentences, self.tokenizer, self.longest, where)

    def autocast(self):
        """bf16 where the settings ask for it, else nothing."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.settings.precision == "bf16" else nullcontext()

    def predict(self, texts: list[str]) -> list[Sentence]:
        """Each text, taken as one sentence, with the entities and relations found in it."""
        given = [data.given_sentence(text, f"text {k}", f"text {k}") for k, text in enumerate(texts, 1)]
        return self.annotate(self.encode([sentence for sentence, _ in given]))

    def annotate(self, encoded: list[data.Encoded]) -> list[Sentence]:
        """Copies of the sentences with the entities and relations that the model finds, in the order given. Each process
        reads its share of them."""
        self.model.eval()
        parts = data.batches_of([e for e in encoded if e.sentence.words], 8)
        mine = [self.annotate_batch(batch) for batch in ahead(self.prediction_batch, parts[RANK::WORLD])]
        every = gathered(mine)
        found = {id(e): s for k, part in enumerate(parts) for e, s in zip(part, every[k % WORLD][k // WORLD])}
        blank = lambda e: dataclasses.replace(e.sentence, entities=[], relations=[])
        return [found.get(id(e)) or blank(e) for e in encoded]

    def annotate_batch(self, batch: data.Batch) -> list[Sentence]:
        """The sentences of a batch with what the model finds."""
        with self.autocast():
            results = self.model.predict(*batch.inputs, batch.is_span)
        return [self.annotated(example, *result) for example, result in zip(batch.examples, results)]

    def annotated(self, example: data.Example, entities: list, relations: list) -> Sentence:
        """The example's sentence with what `SpanRel.predict` returned for it."""
        found = [Entity(self.entity_types[kind - 1], *example.spans[span], score=score) for span, kind, score in entities]
        related = [Relation(self.relation_types[kind - 1], found[a], found[b], score) for a, b, kind, score in relations]
        if self.settings.flat:
            found = data.likeliest(found)
            related = [r for r in related if r.head in found and r.tail in found]
        return dataclasses.replace(example.encoded.sentence, entities=found, relations=related)

    def batch(self, examples: list[data.Example]) -> data.Batch:
        """The examples as tensors, on the model's device."""
        return data.make_batch(examples, len(self.relation_types) + 1, self.tokenizer.pad_token_id or 0).to(self.device)

    def prediction_batch(self, encoded: list[data.Encoded]) -> data.Batch:
        """The sentences with all their spans, as tensors."""
        return self.batch([data.prediction_example(e, self.settings.config.max_width) for e in encoded])

    def training_batch(self, encoded: list[data.Encoded], sampling: Sampling) -> data.Batch:
        """The sentences with their gold and fresh negatives, as tensors."""
        return self.batch([data.training_example(e, self.entity_types, self.relation_types, sampling) for e in encoded])

    def save(self, folder: Path):
        """Writes config.json, model.safetensors and the tokenizer: all that `load` needs."""
        self.describe(folder)
        write(folder / "model.safetensors", save(self.model.state_dict()))

    def describe(self, folder: Path):
        """Writes all of it but the weights, config.json last: where that is, a run can be resumed."""
        try:
            self.tokenizer.save_pretrained(folder)
        except Exception as error:  # the tokenizers library has exceptions of its own
            raise DataError(f"{folder}: {one_line(error)}") from None
        described = {
            "settings": dataclasses.asdict(self.settings),
            "entity_types": self.entity_types,
            "relation_types": self.relation_types,
            "encoder": self.model.encoder.config.to_dict(),
        }
        write(folder / "config.json", json.dumps(described, indent=1).encode())


def write(path: Path, content: bytes):
    """Writes a file under a temporary name and renames it, so that it is there whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"{path}: {error.strerror}") from None


def new_run(settings: Settings, corpus: Corpus) -> Run:
    """An untrained model for the corpus: the encoder that the settings name, new weights above it."""
    torch.manual_seed(settings.seed)
    own = settings.encoder in RANDOM
    tokenizer = data.learn_tokenizer(corpus.train) if own else data.pretrained_tokenizer(settings.encoder)
    try:
        encoder = build_encoder(settings.encoder if own else tokenizer.name_or_path, len(tokenizer))  # where it was located
    except Exception as error:  # whatever transformers raises on a folder that holds something else
        raise DataError(f"--encoder {settings.encoder}: {one_line(error)}") from None
    return assemble(settings, encoder, tokenizer, corpus.types("entities"), corpus.types("relations"))


def assemble(settings: Settings, encoder, tokenizer, entity_types: list[str], relation_types: list[str]) -> Run:
    """The model around an encoder, on the device that the settings name."""
    make = SpERT if settings.config.model == "spert" else SpanRel
    try:
        model = make(settings.config, encoder, len(entity_types) + 1, len(relation_types) + 1)
    except ValueError as error:
        raise DataError(str(error)) from None
    return Run(settings, model.to(device_of(settings.device)), tokenizer, entity_types, relation_types)


def device_of(name: str) -> str:
    """The device of that name; the best there is for `auto`."""
    if name == "auto":
        return str(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return name


def load(folder: str | Path, device: str = "auto") -> Run:
    """A saved run, ready to predict. Needs no network and no other file."""
    from transformers import AutoTokenizer

    folder, device = Path(folder), device_of(device)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        if not os.path.isfile(folder / name):
            raise DataError(f"{str(folder)[:200]}: {name} is not there; a run folder is what `python train.py` writes")
    try:
        settings, described = described_in(folder)
        settings.device = device
        tokenizer = AutoTokenizer.from_pretrained(folder)
        encoder = build_encoder(dict(described["encoder"]), len(tokenizer))
        run = assemble(settings, encoder, tokenizer, described["entity_types"], described["relation_types"])
        run.model.load_state_dict(load_file(folder / "model.safetensors", device=str(run.device)))
    except Exception as error:  # whatever json, transformers, safetensors or torch raise on what is not theirs
        raise DataError(f"{folder}: not a whole run: {one_line(error)}") from None
    return run


def described_in(folder: Path) -> tuple[Settings, dict]:
    """The settings of a run, and all else that its config.json says."""
    described = json.loads(data.text_of(folder / "config.json"))
    shapes, settings = described["settings"].pop("config"), described["settings"]
    return Settings(**settings, config=Config(**shapes)), described


# -- Scores ---------------------------------------------------------------------------------------------------------------


def scores(gold: list[Sentence], predicted: list[Sentence]) -> dict:
    """Entities are right by type and span; relations by type and arguments, in two ways: "strict" with the arguments'
    types, as SpERT and this paper, and "boundaries" without, as DyGIE [L23]. In percent, with the counts behind them."""
    views = {
        "entity": lambda s: {(e.type, e.start, e.end) for e in s.entities},
        "strict": lambda s: {(r.type, r.head, r.tail) for r in s.relations},
        # [L23] types of the arguments aside
        "boundaries": lambda s: {(r.type, r.head.start, r.head.end, r.tail.start, r.tail.end) for r in s.relations},
    }
    table = {name: tally([view(s) for s in gold], [view(s) for s in predicted]) for name, view in views.items()}
    return {"entity": table.pop("entity"), "relation": table}


def tally(gold: list[set], predicted: list[set]) -> dict:
    """Micro and macro average and the scores by type, of items (type, …) in sets, one a sentence. Macro is the mean over
    the types that are in gold or predicted, of P, R and F1 each [L21]."""
    count = {
        "gold": Counter(item[0] for items in gold for item in items),
        "predicted": Counter(item[0] for items in predicted for item in items),
        "correct": Counter(item[0] for right, items in zip(gold, predicted, strict=True) for item in right & items),
    }
    kinds = sorted({*count["gold"], *count["predicted"]})
    by_type = {kind: prf(**{name: counts[kind] for name, counts in count.items()}) for kind in kinds}
    macro = {name: sum(score[name] for score in by_type.values()) / max(1, len(kinds)) for name in ("p", "r", "f1")}
    return {"micro": prf(**{name: counts.total() for name, counts in count.items()}), "macro": macro, "by_type": by_type}


COUNTS = ("gold", "predicted", "correct")


def by_sentence(gold: list[Sentence], predicted: list[Sentence], average: str) -> dict:
    """The counts behind the scores, as text with a number for each sentence: what a bootstrap draws from. Of each type where the
    average is macro, else of all together."""
    each = [tables_of(scores([right], [found])) for right, found in zip(gold, predicted, strict=True)]
    told = {}
    for what in ("entity", "relation"):
        parts = [tables[what]["by_type"] if average == "macro" else {"all": tables[what]["micro"]} for tables in each]
        count = lambda kind, name: " ".join(str(part.get(kind, {}).get(name, 0)) for part in parts)
        told[what] = {kind: {name: count(kind, name) for name in COUNTS} for kind in sorted(set().union(*parts))}
    return told


def prf(gold: int, predicted: int, correct: int) -> dict:
    """Precision, recall and F1 in percent, 0 where undefined, with the counts."""
    p, r = 100 * correct / max(1, predicted), 100 * correct / max(1, gold)
    f1 = 200 * correct / max(1, predicted + gold)  # the harmonic mean of P and R, always [L31]
    return {"p": p, "r": r, "f1": f1, "gold": gold, "predicted": predicted, "correct": correct}


def measure(run: Run, encoded: list[data.Encoded]) -> tuple[dict, list[Sentence]]:
    """Scores on some sentences, for each phenomenon of the toy corpus too, and the predictions."""
    predicted, gold = run.annotate(encoded), [e.sentence for e in encoded]
    result = scores(gold, predicted)
    if names := sorted({s.phenomenon for s in gold} - {""}):
        shows = lambda sentences, name: [s for s in sentences if s.phenomenon == name]
        result["phenomena"] = {name: scores(shows(gold, name), shows(predicted, name)) for name in names}
    result["missed_relations"] = missed(gold, predicted, run.settings.config.max_width)
    return result, predicted


def missed(gold: list[Sentence], predicted: list[Sentence], max_width: int) -> dict[str, int]:
    """How many gold relations were not found, by cause: an argument too wide to be a candidate [L18]; an argument that was not
    found, or with another type; or the relation itself, between arguments that were."""
    why = dict.fromkeys(("width", "argument", "relation"), 0)
    for right, found in zip(gold, predicted, strict=True):
        for relation in set(right.relations) - set(found.relations):
            both = relation.head, relation.tail
            wide = any(entity.end - entity.start > max_width for entity in both)
            why["width" if wide else "relation" if set(both) <= set(found.entities) else "argument"] += 1
    return why


# -- Several processes ----------------------------------------------------------------------------------------------------
# `torchrun --nproc-per-node 2 train.py …` runs this file twice. Each process takes its share of every batch, so that a step is
# the step that one process would make; one of them writes and prints.

RANK, WORLD = 0, 1


def join_processes():
    """Lets the processes that `torchrun` started find each other, and gives each a device of its own; one of them prints."""
    global RANK, WORLD
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        torch.distributed.init_process_group()
        atexit.register(torch.distributed.destroy_process_group)
        RANK, WORLD = torch.distributed.get_rank(), torch.distributed.get_world_size()
        if torch.accelerator.is_available():
            torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]))
    if RANK:
        sys.stdout = open(os.devnull, "w")


def gathered(mine) -> list:
    """What each process brings, for all of them."""
    every = [mine] * WORLD
    if WORLD > 1:
        torch.distributed.all_gather_object(every, mine)
    return every


def summed(mine: torch.Tensor) -> torch.Tensor:
    """The sum over the processes, in place."""
    if WORLD > 1:
        torch.distributed.all_reduce(mine)
    return mine


# -- Training -------------------------------------------------------------------------------------------------------------


def corpus_of(settings: Settings) -> Corpus:
    """The corpus that the settings name."""
    return data.read_corpus(settings.dataset, settings.data_dir, settings.fold, settings.heads_only)


def begin(settings: Settings) -> tuple[Run, dict[str, list[data.Encoded]]]:
    """An untrained model, and the splits that it trains on and is scored on."""
    if settings.encoder in RANDOM and settings.encoder != "base":
        torch.set_num_threads(1)  # its matrices are too small to share: threads would wait for each other
    corpus = corpus_of(settings)
    if settings.train_on_dev:
        corpus.train, corpus.dev = corpus.train + corpus.dev, []
    run = new_run(settings, corpus)
    return run, {name: run.encode(part, f"{settings.dataset}, {name}, ") for name, part in corpus.splits.items()}


def train(settings: Settings, resumed: str | None = None) -> dict:
    """One whole run, or the rest of one: trains, scores, writes the run folder; returns what metrics.json holds."""
    begun = time.time() - (sum(line["seconds"] for line in history_in(Path(resumed))) if resumed else 0)
    run, splits = begin(settings)
    if RANK:
        torch.manual_seed(settings.seed + RANK)  # a dropout of its own
    folder = Path(resumed) if resumed else gathered(None if RANK else new_folder(settings))[0]
    with resumable(folder):
        if RANK == 0 and not resumed:
            run.describe(folder)
        best = fit(run, splits["train"], splits["dev"], folder)
        gathered("written")  # none reads before that
        if splits["dev"]:
            run.model.load_state_dict(load_file(folder / "model.safetensors", device=str(run.device)))
        scored = splits[settings.eval_split]
        result, predicted = measure(run, scored)
        if RANK:
            return result
        result |= {"best_epoch": best, "settings": dataclasses.asdict(settings), "command": command_of(settings),
                   "hardware": hardware_of(run.device), "peak_memory": peak_memory(run.device), "seconds": time.time() - begun,
                   "by_sentence": by_sentence([e.sentence for e in scored], predicted, averaged(settings))}  # fmt: skip
        write(folder / "predictions.json", json.dumps([sentence.to_json() for sentence in predicted]).encode())
        write(folder / "metrics.json", json.dumps(result, indent=1).encode())
        (folder / CHECKPOINT).unlink(missing_ok=True)
    colour = sys.stdout.isatty()
    print("\n".join(data.show(s, gold.sentence, colour) for gold, s in list(zip(scored, predicted))[:4]))
    print(final_table(settings, result))
    print(f"the weights of epoch {best}; {result['seconds']:.0f} s, {result['peak_memory'] / 2**30:.1f} GiB; the run is in {folder}")
    return result


def history_in(folder: Path) -> list[dict]:
    """The epochs of a run so far."""
    path = folder / "history.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


class NotResumable(DataError):
    """A checkpoint and what is to go on with it do not fit."""


@contextmanager
def resumable(folder: Path):
    """Whatever ends a run before its end is told with what was kept, and how to go on."""
    try:
        yield
    except NotResumable:
        raise
    except (KeyboardInterrupt, DataError) as error:
        kept = "its last checkpoint is kept" if (folder / CHECKPOINT).exists() else "no epoch was finished"
        begun = (folder / "config.json").exists()
        advice = f"go on with: python train.py --resume {shlex.quote(str(folder))}" if begun else "start it anew"
        raise type(error)(f"{error}; {kept}; {advice}".removeprefix("; ")) from None


def resume(folder: str, given: dict) -> dict:
    """Goes on with a run that was stopped, from its last checkpoint, to the weights that it would have come to."""
    path = Path(folder)
    if (path / "metrics.json").exists():
        raise DataError(f"--resume {folder}: that run came to its end; --load {folder} uses it")
    if not (path / "config.json").is_file():
        raise DataError(f"--resume {folder}: no config.json there, so no run had begun; start it anew")
    with data.reading(path / "config.json", "what `python train.py` writes"):
        settings, _ = described_in(path)
    return train(dataclasses.replace(settings, **given), folder)


def command_of(settings: Settings) -> str:
    """The command line of a run, without the flags that leave the scores as they are."""
    named, flat = dict(dataset=settings.dataset, model=settings.config.model), lambda s: {**vars(s), **vars(s.config)}
    usual = flat(settings_of(**named, encoder=settings.encoder))
    usual |= {"dataset": Settings.dataset, "model": Config.model, "encoder": settings_of(**named).encoder}
    if settings.config.model == "spert":  # which has one learning rate
        usual["head_lr"] = settings.lr
    unusual = {name: value for name, value in flat(settings).items() if value != usual[name]}
    return f"python train.py {words_of(unusual, 'config', 'data_dir', 'device', 'output')}".strip()


def words_of(given: dict, *but: str) -> str:
    """Settings as the flags of a command line, but for some."""
    words = lambda value: [] if value is True else value if isinstance(value, (tuple, list)) else [value]
    return shlex.join(word for name, value in given.items() if name not in but for word in (flag(name), *map(str, words(value))))


def hardware_of(device: torch.device) -> str:
    """What a run was made on."""
    cpu = f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} of {os.cpu_count()} threads"
    return f"{torch.cuda.get_device_name(device) if device.type == 'cuda' else cpu}, torch {torch.__version__}"


def peak_memory(device: torch.device) -> int:
    """The most bytes that were in use: on a GPU of its own memory, else of the process's; 0 where the system does not tell."""
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


def new_folder(settings: Settings) -> Path:
    """The run's folder, made now; none that exists is ever used again."""
    fold = [f"fold{settings.fold}"] if settings.dataset == "ade" else []
    name = "-".join([Path(settings.dataset).name, *fold, *method(settings).split(), f"seed{settings.seed}"])
    paths = [Path(settings.output)] if settings.output else (Path("runs") / f"{name}-{k}" for k in range(1, 10000))
    for path in paths:
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise DataError(f"--output {path}: {error.strerror}") from None
    raise DataError(f"--output {settings.output} exists; a run is never written over: name another folder, or move it away")


def fit(run: Run, train: list[data.Encoded], dev: list[data.Encoded], folder: Path) -> int:
    """The loop. Keeps the weights of the best epoch on dev, by the mean of entity and strict relation F1, in `folder`;
    of the last one where there is no dev [L14]. Returns that epoch."""
    settings, sampling = run.settings, sampling_of(run.settings)
    optimizer, schedule = optimizer_of(run, settings.epochs * -(-len(train) // settings.batch_size))
    corpus = hashlib.sha256(json.dumps([e.sentence.to_json() for e in train + dev]).encode()).hexdigest()
    history = restore(folder / CHECKPOINT, run, optimizer, schedule, corpus)
    for sampling.epoch in range(len(history) + 1, settings.epochs + 1):
        begun, rng = time.time(), random.Random(f"{settings.seed} {sampling.epoch}")
        batches = data.batches_of(train, settings.batch_size, rng)
        line = {"epoch": sampling.epoch, **train_epoch(run, batches, sampling, optimizer, schedule)}
        if dev:
            result, _ = measure(run, dev)
            line |= {f"{what}_f1": table[averaged(settings)]["f1"] for what, table in tables_of(result).items()}
        print("  ".join(f"{name} {value:.4g}" for name, value in line.items()), flush=True)
        history.append({**line, "seconds": time.time() - begun})
        if RANK == 0:
            write(folder / "history.jsonl", "".join(json.dumps(line) + "\n" for line in history).encode())
            if best_of(history) is history[-1]:
                run.save(folder)
        checkpoint(folder / CHECKPOINT, run, optimizer, schedule, {"corpus": corpus, "history": history})
    return best_of(history)["epoch"]


def best_of(history: list[dict]) -> dict:
    """The best epoch on dev, of equals the first; the last one where there is no dev."""
    return max(history, key=lambda line: line["entity_f1"] + line["relation_f1"] if "entity_f1" in line else line["epoch"])


CHECKPOINT = "checkpoint.safetensors"  # there while a run is on its way


def checkpoint(path: Path, run: Run, optimizer, schedule, described: dict):
    """Writes all that the coming epochs depend on, as one file: weights, optimizer, schedule, and each process's random states."""
    kept, states = optimizer.state_dict(), [torch.get_rng_state()]  # of dropout; all else is drawn from (seed, epoch, sentence) [L29]
    if run.device.type != "cpu":
        states.append(torch.get_device_module(run.device).get_rng_state())
    tensors = {f"model.{name}": weight for name, weight in run.model.state_dict().items()}
    tensors |= {f"optimizer.{k}.{name}": value for k, part in kept["state"].items() for name, value in part.items()}
    tensors |= {f"random.{rank}.{k}": state for rank, both in enumerate(gathered(states)) for k, state in enumerate(both)}
    described = {**described, "groups": kept["param_groups"], "schedule": schedule.state_dict()}
    if RANK == 0:
        write(path, save(tensors, {"state": json.dumps(described)}))


def restore(path: Path, run: Run, optimizer, schedule, corpus: str) -> list[dict]:
    """The history of a checkpoint, and everything as it was then; as it is before the first, if there is none."""
    if not path.exists():
        return []
    try:
        with safe_open(path, "pt") as file:
            tensors, described = {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["state"])
        if described["corpus"] != corpus:
            raise DataError("the corpus has changed since")
        part = lambda prefix: {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        run.model.load_state_dict(part("model."))
        moments = {k: part(f"optimizer.{k}.") for group in described["groups"] for k in group["params"]}
        optimizer.load_state_dict({"state": moments, "param_groups": described["groups"]})
        schedule.load_state_dict(described["schedule"])
        torch.set_rng_state(tensors[f"random.{RANK}.0"])
        if run.device.type != "cpu":
            torch.get_device_module(run.device).set_rng_state(tensors[f"random.{RANK}.1"])
    except Exception as error:  # whatever safetensors, json or torch raise on what is not theirs
        what = error if isinstance(error, DataError) else one_line(error)
        raise NotResumable(f"{path}: not a checkpoint of this run ({what}); move it away, and --resume begins anew") from None
    return described["history"]


def sampling_of(settings: Settings) -> Sampling:
    """How the settings draw negatives, before the first epoch."""
    count = settings.negative_count or None
    return Sampling(settings.config.max_width, settings.negative_rate, count, settings.pairs_among, settings.seed)


def tables_of(result: dict) -> dict[str, dict]:
    """The two tables by which the paper is scored: entities, and relations with their arguments' types."""
    return {"entity": result["entity"], "relation": result["relation"]["strict"]}


def averaged(settings: Settings) -> str:
    """How the paper averages over types: macro for ADE, else micro (§4.4) [L21]."""
    return "macro" if settings.dataset == "ade" else "micro"


def ahead(build, parts):
    """build(part) for each part; a thread makes the next one while this one is in use."""
    with ThreadPoolExecutor(1) as pool:
        later = None
        for part in parts:
            now, later = later, pool.submit(build, part)
            if now:
                yield now.result()
        if later:
            yield later.result()


def train_epoch(run: Run, batches: list, sampling: Sampling, optimizer, schedule) -> dict:
    """One pass over the batches; the mean losses."""
    run.model.train()
    sums, recent = torch.zeros(3, device=run.device), []
    bar = tqdm(batches, desc=f"epoch {sampling.epoch}", leave=False, disable=True if RANK else None)
    for step, batch in enumerate(ahead(lambda part: share_of(run, part, sampling), bar), 1):
        losses = train_step(run, batch)
        norm = descend(run, losses[0], optimizer)
        schedule.step()
        sums += torch.stack(losses).detach()
        ids = [example.encoded.sentence.id for example in batch.examples]
        recent.append((step, ids, torch.stack([losses[0].detach(), norm])))
        if step % 20 == 0 or step == len(batches):  # not at each step: reading a value waits for the device
            check_finite(recent, sampling.epoch)
            recent.clear()
            bar.set_postfix(loss=f"{float(sums[0]) / step:.4f}")
    return dict(zip(("loss", "span_loss", "relation_loss"), (summed(sums) / len(batches)).tolist()))


def check_finite(steps: list[tuple], epoch: int):
    """Stops a run that has left the numbers, before anything of it is saved."""
    for (step, sentences, _), (loss, norm) in zip(steps, torch.stack([both for *_, both in steps]).tolist()):
        if not math.isfinite(loss + norm):
            raise DataError(f"epoch {epoch}, step {step}: the loss is {loss}, the norm of its gradient {norm}, on the sentences "
                            f"{', '.join(sentences)}; a lower --lr or --precision fp32 may help")  # fmt: skip


def share_of(run: Run, part: list[data.Encoded], sampling: Sampling) -> data.Batch:
    """This process's share of a batch. If there is none: a sentence of which nothing counts, as all must take the step."""
    mine = part[RANK::WORLD]
    batch = run.training_batch(mine or part[:1], sampling)
    if not mine:
        batch.is_span[:] = batch.is_pair[:] = False
    return batch


def train_step(run: Run, batch: data.Batch) -> tuple:
    """L, L^s and L^r of a batch (eq. 11), the losses in float32. The means are over the samples of all processes, so that the
    losses of all sum up to what one process would have."""
    with run.autocast():
        y_s, y_r = run.model(*batch.inputs, batch.pairs, batch.arguments)
    samples = torch.stack([batch.is_span.sum(), batch.is_pair.sum()])
    shares = samples / summed(samples.clone()).clamp(min=1)
    return run.model.loss(y_s.float(), batch.t_s, batch.is_span, y_r.float(), batch.t_r, batch.is_pair, shares)


def descend(run: Run, loss: torch.Tensor, optimizer) -> torch.Tensor:
    """One step down the gradient of the loss, whose norm is clipped; returns the norm before."""
    loss.backward()
    for weight in run.model.parameters():
        if weight.grad is not None:
            summed(weight.grad)
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.settings.clip)
    optimizer.step()
    optimizer.zero_grad()
    return norm


def optimizer_of(run: Run, steps: int):
    """AdamW, with a rate for the encoder and one for the heads, under a linear warm-up and decay (SpERT) [L14] [L34]."""
    from transformers import get_linear_schedule_with_warmup

    settings, groups = run.settings, {}
    for name, weight in run.model.named_parameters():
        rate = settings.lr if name.startswith("encoder.") else settings.head_lr
        decay = settings.weight_decay if weight.ndim > 1 else 0.0  # none for biases and layer norms
        groups.setdefault((rate, decay), []).append(weight)
    groups = [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]
    optimizer = torch.optim.AdamW(groups, fused=True)  # one pass over each weight: a tenth of the time on a CPU
    return optimizer, get_linear_schedule_with_warmup(optimizer, int(settings.warmup * steps), steps)


# -- Cost -----------------------------------------------------------------------------------------------------------------


def benchmark(settings: Settings) -> dict:
    """The model's time and memory beside its encoder's alone, on the same batches in one process. The encoder is the floor:
    nothing in the paper can cost less than BERT does."""
    out = Path(settings.output or "new.json")
    if WORLD > 1:
        raise DataError("--benchmark is for one process; start it without torchrun")
    if out.exists() or not out.parent.is_dir():
        raise DataError(f"--output {out}: with --benchmark it is a new file, in a folder that is there")
    run, splits = begin(settings)
    begun = time.perf_counter()
    for part in corpus_of(settings).splits.values():
        run.encode(part)
    result = {"command": f"{command_of(settings)} --benchmark", "hardware": hardware_of(run.device), "reading": time.perf_counter() - begun}
    result |= {"growth": growth(run), "prediction": cost_of_prediction(run, splits["test"])}
    result |= {"training": cost_of_training(run, splits["train"])}
    print(cost_table(result))
    if settings.output:
        write(out, json.dumps(result, indent=1).encode())
    return result


def cost_of_training(run: Run, encoded: list[data.Encoded], steps: int = 12) -> dict:
    """Training steps of the model beside those of its encoder alone; and forward without the encoder, with and without shape
    checks, as their share is smaller than what whole steps differ by."""
    sampling, optimizer = sampling_of(run.settings), torch.optim.AdamW(run.model.parameters(), lr=0.0, fused=True)
    parts = data.batches_of(encoded, run.settings.batch_size, random.Random(run.settings.seed))[:steps]

    def heads(batch, unchecked: bool):
        run.model.embed = lambda input_ids, *_: torch.zeros(*input_ids.shape, run.model.D, device=run.device)
        jaxtyping.config.update("jaxtyping_disable", unchecked)
        train_step(run, batch)
        jaxtyping.config.update("jaxtyping_disable", False)
        del run.model.embed

    run.model.train()
    return in_turn(run, [run.training_batch(part, sampling) for part in parts], {
        "encoder": lambda batch: descend(run, encoder_alone(run, batch).float().square().mean(), optimizer),
        "model": lambda batch: descend(run, train_step(run, batch)[0], optimizer),
        "heads": lambda batch: heads(batch, False),
        "heads, unchecked": lambda batch: heads(batch, True),
        "batch building": lambda batch: run.training_batch([example.encoded for example in batch.examples], sampling),
    })  # fmt: skip


def cost_of_prediction(run: Run, encoded: list[data.Encoded]) -> dict:
    """Prediction, from wordpieces to sentences, beside the encoder alone. The entities kept are the gold ones, whatever their
    scores: an untrained model would keep most spans, and what it cost would be that of their million pairs."""
    batches = [run.prediction_batch(part) for part in data.batches_of(encoded, 8)]
    y_s = itertools.cycle([gold_scores(run, batch) for batch in batches])
    run.model.eval()
    with torch.no_grad(), run.model.ffnn_s.register_forward_hook(lambda *_: next(y_s)):
        return in_turn(run, batches, {
            "encoder": lambda batch: encoder_alone(run, batch),
            "model": lambda batch: run.annotate_batch(run.prediction_batch([example.encoded for example in batch.examples])),
        })  # fmt: skip


def gold_scores(run: Run, batch: data.Batch) -> torch.Tensor:
    """Scores y_s by which the spans kept are those of the gold entities."""
    gold = [{(entity.start, entity.end) for entity in example.encoded.sentence.entities} for example in batch.examples]
    kinds = data.pad([[int(span in spans) for span in example.spans] for spans, example in zip(gold, batch.examples)], 0)
    return torch.nn.functional.one_hot(kinds, 1 + max(1, len(run.entity_types))).float().to(run.device)


def growth(run: Run, lengths=(20, 50, 100, 200, 500), counts=(2, 20, 200)) -> list[dict]:
    """Prediction of one sentence, by its wordpieces and by the entities kept in it."""
    rows = []
    for n, k in itertools.product(lengths, counts):
        spans = data.enumerate_spans(n - 2, run.settings.config.max_width)
        if n <= run.longest and k <= len(spans):
            gold = [Entity("", *span) for span in random.Random(0).sample(spans, k)]
            sentence = Sentence("", ["word"] * (n - 2), gold)
            encoded = data.Encoded(sentence, [5] * n, [True] * (n - 1) + [False], list(range(1, n - 1)), list(range(2, n)))
            rows.append({"wordpieces": n, "entities": k, "pairs": k * (k - 1), **cost_of_prediction(run, [encoded])})
    return rows


def encoder_alone(run: Run, batch: data.Batch) -> torch.Tensor:
    """The wordpieces' embeddings of a batch."""
    with run.autocast():
        return run.model.encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state


def in_turn(run: Run, batches: list[data.Batch], actions: dict, passes: int = 3) -> dict:
    """Seconds and peak memory of each action on all batches. Each runs by itself first, which warms up and shows what memory
    it takes; then all run in turn on each batch, several times over, of which the median counts."""
    cost = {"batches": len(batches), "sentences": sum(len(batch.examples) for batch in batches)}
    for name, action in actions.items():
        known = reset_peak(run.device)
        for batch in batches:
            action(batch)
        cost[name] = {"memory": peak_memory(run.device) if known else 0}
    spent = {(name, k): [] for name in actions for k in range(len(batches))}
    for _, (k, batch), (name, action) in itertools.product(range(passes), enumerate(batches), actions.items()):
        begun = timer()
        action(batch)
        spent[name, k].append(timer() - begun)
    for name in actions:
        cost[name]["seconds"] = sum(statistics.median(spent[name, k]) for k in range(len(batches)))
    return cost


def cost_table(result: dict) -> str:
    """The figures of `benchmark` as a table; 0 MiB where the system does not tell."""
    lines = [f"{result['command']}\n{result['hardware']}\n", f"{'':34}{'model':>10}{'encoder':>10}{'ratio':>10}"]
    for name, what in ("training", "training: a step"), ("prediction", "prediction: a batch of 8"):
        cost = result[name]
        figures = [(f"{what}, ms", lambda part: 1000 * part["seconds"] / cost["batches"]),
                   ("  sentences a second", lambda part: cost["sentences"] / part["seconds"]),
                   ("  peak memory, MiB", lambda part: part["memory"] / 2**20)]  # fmt: skip
        for title, figure in figures:
            model, encoder = figure(cost["model"]), figure(cost["encoder"])
            lines.append(f"{title:34}{model:10.1f}{encoder:10.1f}{model / max(encoder, 1e-9):10.2f}")
    cost, step = result["training"], result["training"]["model"]["seconds"]
    checks = cost["heads"]["seconds"] - cost["heads, unchecked"]["seconds"]
    lines.append(f"{'batch building, % of a step':34}{100 * cost['batch building']['seconds'] / step:10.1f}")
    lines.append(f"{'shape checks, % of a step':34}{100 * checks / step:10.1f}")
    lines.append(f"{'reading and encoding, s':34}{result['reading']:10.1f}\n")
    lines.append(f"{'one sentence: wordpieces':>24}{'entities':>10}{'pairs':>10}{'ms':>10}{'encoder':>10}{'MiB':>10}")
    for row in result["growth"]:
        ms, alone = (1000 * row[part]["seconds"] for part in ("model", "encoder"))
        memory = row["model"]["memory"] / 2**20
        lines.append(f"{row['wordpieces']:24}{row['entities']:10}{row['pairs']:10,}{ms:10.0f}{alone:10.0f}{memory:10.0f}")
    return "\n".join(lines)


# -- Reports --------------------------------------------------------------------------------------------------------------

# What the paper prints, by table, dataset and model: entity P, R, F1, then relation P, R, F1; or both F1.
PRINTED = {
    1: {"ace05": {"Multi-turn QA": "84.7 84.9 84.8 | 64.8 56.2 60.2", "DyGIE": "88.4 | 63.2",
                  "multihead": "89.32 89.86 89.59 | 71.22 60.19 65.24"},
        "conll04": {"Multi-turn QA": "89.0 86.6 87.8 | 69.2 68.2 68.9", "spert": "88.25 89.64 88.94 | 73.04 70.00 71.47",
                    "multihead": "90.11 90.36 90.23 | 76.96 71.88 74.33"},
        "ade": {"Relation-Metric": "86.16 88.08 87.11 | 77.36 77.25 77.29", "spert": "88.99 89.59 89.28 | 77.77 79.96 78.84",
                "multihead": "89.88 91.32 90.59 | 79.56 81.93 80.73"}},
    2: {"ace05": {"multihead": "89.59 | 65.24", "dot": "87.94 | 62.88", "general": "88.66 | 63.56", "additive": "89.07 | 64.53"},
        "conll04": {"multihead": "90.23 | 74.33", "dot": "88.23 | 70.89", "general": "88.96 | 73.48", "additive": "89.17 | 71.36"},
        "ade": {"multihead": "90.59 | 80.73", "dot": "88.15 | 77.31", "general": "89.93 | 80.14", "additive": "89.68 | 79.75"}},
    3: {"ace05": {"multihead": "88.10 | 62.13", "multihead span-specific": "86.78 | 60.21", "multihead span-sentence": "87.57 | 61.12",
                  "multihead span-specific span-sentence": "85.80 | 59.00"}},
    4: {"ace05": {"multihead": "88.10 | 62.13", "multihead local": "87.96 | 60.56", "multihead relation-sentence": "88.21 | 61.77",
                  "multihead local relation-sentence": "87.91 | 59.66"}},
}  # fmt: skip
TITLES = {1: "the model and its rivals, on test", 2: "attention variants, on test", 3: "span representations taken away, on dev",
          4: "relation representations taken away, on dev"}  # fmt: skip
CAUSES = {"width": "an argument is too wide", "argument": "an argument missed or mistyped", "relation": "the relation itself"}


def method(settings: Settings) -> str:
    """The model by the name that it has in the tables, with what is ablated."""
    return " ".join(["spert" if settings.config.model == "spert" else settings.config.attention, *settings.config.ablate])


def final_table(settings: Settings, result: dict) -> str:
    """The scores in the layout of the paper's Table 1, above the row that the paper prints for this model; then in words what
    a figure hides."""
    entity, relation = tables_of(result).values()
    rows = [(f"{Path(settings.dataset).name}, {settings.eval_split}, {name}", entity[name], relation[name]) for name in ("micro", "macro")]
    rows.append(("  relations by boundaries, micro", None, result["relation"]["boundaries"]["micro"]))
    for name, part in result.get("phenomena", {}).items():
        rows.append((f"  phenomenon: {name}", *(table["micro"] for table in tables_of(part).values())))
    rows += [(f"  entity: {kind}", part, None) for kind, part in entity["by_type"].items()]
    rows += [(f"  relation: {kind}", None, part) for kind, part in relation["by_type"].items()]
    printed = [PRINTED[k].get(settings.dataset, {}).get(method(settings)) for k in (1, 2) if settings.eval_split == "test"]
    for row in list(filter(None, printed))[:1]:
        parts = [dict(zip(("f1", "r", "p"), map(float, part.split()[::-1]))) for part in row.split("|")]
        rows.append((f"the paper, {method(settings)}", *parts))
    there = lambda part: part and part.get("gold", 1) + part.get("predicted", 1)
    cells = lambda part: "".join(f"{part[k]:8.2f}" if there(part) and k in part else " " * 8 for k in ("p", "r", "f1"))
    head = f"{'':34}{'entity P':>8}{'R':>8}{'F1':>8}  {'rel. P':>8}{'R':>8}{'F1':>8}"
    lines = [f"{name:34.34}{cells(entity)}  {cells(relation)}" for name, entity, relation in rows]
    return "\n".join([head, *lines, *remarks(settings, result)])


def remarks(settings: Settings, result: dict) -> list[str]:
    """In words: why relations were missed, types never predicted, and scores that say nothing since there is no gold."""
    why = ", ".join(f"{CAUSES[cause]} {count}" for cause, count in result["missed_relations"].items())
    lines = [f"relations missed: {why}"] if any(result["missed_relations"].values()) else []
    for what, table in tables_of(result).items():
        if not table["micro"]["gold"]:
            lines.append(f"{settings.eval_split} has no gold {what}: no recall, no F1 can be measured")
        if never := [kind for kind, part in table["by_type"].items() if part["gold"] and not part["predicted"]]:
            lines.append(f"never predicted, though {settings.eval_split} has some: {what} {', '.join(never)}")
    return lines


def report(paths: list[str]) -> str:
    """The paper's Tables 1 to 4 as it prints them, each beside the runs that belong there: mean ± standard deviation over seeds
    and folds of the runs that are the same otherwise. Then what the full model is ahead by, and all the runs with their commands."""
    groups, changed = {}, {}  # by command; a note tells of changed code, which is compared with nothing
    for settings, record in itertools.chain(*data.every(recorded, zip(dict.fromkeys(map(os.path.realpath, paths))))):
        command, note = command_of(dataclasses.replace(settings, seed=0, fold=0)), record.get("note")
        where, command = (changed, f"{command} # {' '.join(str(note).split())}") if note else (groups, command)
        where.setdefault(command, []).append((settings, record))
    parts = [*(report_table(number, groups) for number in PRINTED), difference_table(groups), all_runs(groups | changed)]
    return "\n\n".join(filter(None, parts))


def recorded(path: str) -> list[tuple[Settings, dict]]:
    """The runs that a run folder or a JSON list of records tells of."""
    where = Path(path) / "metrics.json" if Path(path).is_dir() else Path(path)
    text = data.text_of(where)
    with data.reading(where, "what a run writes at its end, or a list of such records as results.json is"):
        found = json.loads(text)
        runs = [(settings_in(record["command"]), record) for record in (found if isinstance(found, list) else [found])]
        for run in runs:  # what is amiss is told now
            all_runs({"": [run]})
            for what in ("entity", "relation"):
                counts_of(run[1], what), [figure([run], "", what, name) for name in ("p", "r", "f1")]
    return runs


def settings_in(command: str) -> Settings:
    """The settings that a recorded command line makes."""
    asked, given = flags_of(str(command))
    if asked or "train.py" not in str(command):
        raise DataError(f"{command!r} trains nothing")
    return settings_of(**given)


@functools.cache  # each table asks again
def flags_of(command: str) -> tuple[dict, dict]:
    """`flags_in` of a recorded command line."""
    return flags_in(shlex.split(command)[2:])


def family(command: str) -> str:
    """The full model's command with the same other flags: what a baseline, a variant or an ablation is to be compared with."""
    _, given = flags_of(command)
    return command_of(settings_of(**{name: value for name, value in given.items() if name not in ("model", "attention", "ablate")}))


def titled(command: str) -> str:
    """The model by its name in the tables, with the flags of its command that no other column tells."""
    told = "dataset", "encoder", "model", "attention", "ablate", "eval_split", "train_on_dev"
    return f"{method(settings_in(command))} {words_of(flags_of(command)[1], *told)}".strip()


def belonging(number: int, groups: dict) -> dict[tuple[str, str, str], list[tuple]]:
    """The cells of a table, by dataset, family and model, with the groups of runs that belong there: first the cells that the paper
    prints, of any family, then those of other corpora. In Tables 2 to 4 these are there if something is compared. Where a corpus
    has phenomena, each has cells of its own in Tables 3 and 4."""
    cells = {(dataset, "", label): [] for dataset, models in PRINTED[number].items() for label in models}
    labels, more = ["multihead", *dict.fromkeys(label for *_, label in cells if label != "multihead")], {}
    compared = {family(command) for command, ((settings, _), *_) in groups.items() if method(settings) in labels[1:]}
    for command, ((settings, record), *_) in groups.items():
        printed, label = settings.dataset in PRINTED[number], method(settings)
        if label not in labels or not (settings.dataset == "toy" or settings.eval_split == ("test" if number < 3 else "dev")):
            continue
        if printed:
            cells[settings.dataset, "", label].append((command, groups[command], ""))
        elif number == 1 or family(command) in compared:
            for part in ["", *(record.get("phenomena", {}) if number > 2 else {})]:
                key = f"{settings.dataset} {part}".strip(), family(command), label
                more.setdefault(key, []).append((command, groups[command], part))
    return cells | dict(sorted(more.items(), key=lambda cell: (*cell[0][:2], labels.index(cell[0][2]))))


def report_table(number: int, groups: dict) -> str:
    """One table in Markdown, and the commands that fill what is missing."""
    cells, lines, missing = belonging(number, groups), [], []
    for (dataset, _, label), found in cells.items():
        paper = [" / ".join(part.split()) for part in PRINTED[number].get(dataset, {}).get(label, "|").split("|")]
        for command, runs, part in found:
            names = ("p", "r", "f1") if number == 1 else ("f1",)
            ours = [" / ".join(figure(runs, part, what, name) for name in names) for what in ("entity", "relation")]
            lines.append([dataset, titled(command), *paper, *ours, runs[0][0].encoder, str(len(runs)), row_of(command, groups)])
            done = {settings.fold for settings, _ in runs}
            missing += [f"`{command} --fold {k}`" for k in range(10) if dataset == "ade" and k not in done]
        if not found:
            lines.append([dataset, label, *paper, "", "", "", "0", ""])
            missing += command_for(number, dataset, label)
    heads = ["dataset", "model", "paper: entity", "relation", "here: entity", "relation", "encoder", "runs", "command"]
    notes = ["Multi-turn QA's P and R on conll04 give an F1 of 68.7; the paper prints 68.9."] if number == 1 else []  # [L31]
    if number > 2 and any(line[0].startswith("toy") for line in lines):
        notes.append("The rows of the toy corpus are of its test split.")
    notes += [f"Missing: {', '.join(missing)}"] if missing else []
    return "\n\n".join([f"**Table {number}**: {TITLES[number]}", markdown(heads, lines), *notes])


def row_of(command: str, groups: dict) -> str:
    """The number of a command in the last table."""
    return f"({[*groups].index(command) + 1})"


def command_for(number: int, dataset: str, label: str) -> list[str]:
    """The command that fills a cell, where this code can."""
    name, *ablate = label.split()
    if name not in (*ATTENTION, "spert"):
        return []
    which = {"model": name} if name == "spert" else {"attention": name}
    return [f"`{command_of(settings_of(dataset=dataset, ablate=tuple(ablate), eval_split='test' if number < 3 else 'dev', **which))}`"]


def figure(runs: list[tuple], part: str, what: str, name: str) -> str:
    """Mean ± standard deviation, over runs, of a figure in the paper's average or for a phenomenon; a dash where there is no gold
    to measure it by."""
    values = []
    for settings, record in runs:
        average, record = ("micro", record.get("phenomena", {}).get(part)) if part else (averaged(settings), record)
        if record and tables_of(record)[what]["micro"].get("gold", 1):
            values.append(tables_of(record)[what][average][name])
    if not values:
        return "–"
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 and name == "f1" else "")


def difference_table(groups: dict) -> str:
    """By how much F1 of the full model is ahead of that of each other model with the same other flags, with the 95 % interval of a
    paired bootstrap over the sentences (Koehn 2004), beside the margin that the paper prints."""
    lines = []
    for command, runs in groups.items():
        base, (settings, _) = family(command), runs[0]
        full = groups.get(base, runs)
        both = {*map(scored_on, full)} & {*map(scored_on, runs)} - {None}
        pair = [[run for run in part if scored_on(run) in both] for part in (full, runs)]
        if full is not runs and all(pair):
            named = f"{settings.dataset}, {settings.eval_split}", titled(command)
            counts, rows = ", ".join(str(len(part)) for part in pair), f"{row_of(base, groups)}, {row_of(command, groups)}"
            for what, margin in zip(("entity", "relation"), margins(settings)):
                lines.append([*named, what, margin, *difference(*pair, what), counts, rows])
    heads = ["dataset", "other model", "F1", "paper: full − other", "here: full − other", "full", "other", "runs", "commands"]
    title = (f"**Differences** between the full model and others: 95 % intervals of {RESAMPLES:,} resamples of the sentences, for these "
             "runs; ± is the standard deviation over runs")  # fmt: skip
    lines.sort(key=lambda line: line[0])
    return f"{title}\n\n{markdown(heads, lines)}" if lines else ""


def counts_of(record: dict, what: str) -> torch.Tensor:
    """The counts of `by_sentence` (types, gold predicted correct, sentences); no types where a record has none."""
    kinds = record.get("by_sentence", {}).get(what, {}).values()
    return torch.tensor([[[int(n) for n in part[name].split()] for name in COUNTS] for part in kinds], dtype=torch.float64)


def scored_on(run: tuple) -> tuple | None:
    """The sentences that a run was scored on, by its fold and their gold; None where its record does not tell. Runs on the same can
    be compared."""
    settings, record = run
    entity, relation = (counts_of(record, what) for what in ("entity", "relation"))
    gold = lambda counts: tuple(counts[:, 0].sum(0).tolist()) if counts.numel() else ()
    return (settings.fold, gold(entity), gold(relation)) if entity.numel() else None


def difference(full: list[tuple], other: list[tuple], what: str) -> list[str]:
    """By how much F1 of the first is ahead, with its interval: the mean over folds. And F1 of both."""
    both = [figure(part, "", what, "f1") for part in (full, other)]
    if "–" in both or not counts_of(full[0][1], what).numel():
        return ["–", *both]
    folds = [[[run for run in part if run[0].fold == fold] for part in (full, other)] for fold in {s.fold for s, _ in full}]
    ahead = torch.stack([resampled(ours, what) - resampled(theirs, what) for ours, theirs in folds]).mean(0)
    low, high = ahead[1:].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return [f"{ahead[0]:+.2f} [{low:+.2f}, {high:+.2f}]", *both]


def margins(settings: Settings) -> list[str]:
    """The same differences between the figures that the paper prints, where it does."""
    for number in (1, 2) if settings.eval_split == "test" else (3, 4):
        models = PRINTED[number].get(settings.dataset, {})
        if {"multihead", method(settings)} <= models.keys():
            full, other = ([float(part.split()[-1]) for part in models[name].split("|")] for name in ("multihead", method(settings)))
            return [f"{full_f1 - other_f1:+.2f}" for full_f1, other_f1 in zip(full, other)]
    return ["", ""]


RESAMPLES = 10_000


@functools.lru_cache(1)  # tens of megabytes, and what is compared asks one after the other
def draws(size: int, fold: int) -> torch.Tensor:
    """How often each sentence counts (1 + RESAMPLES, size): once each, then as often as it is drawn with replacement. The same in
    each call for that fold, so that a difference of two is a paired one."""
    drawn = torch.randint(size, (RESAMPLES, size), generator=torch.Generator().manual_seed(fold))
    drawn = torch.cat([torch.arange(size)[None], drawn])
    return torch.zeros(drawn.shape).scatter_add_(1, drawn, torch.ones(drawn.shape)).double()


def resampled(runs: list[tuple], what: str) -> torch.Tensor:
    """F1 (1 + RESAMPLES), mean over runs on the same sentences: on these, then on as many drawn from them, each time."""
    times, every = draws(counts_of(runs[0][1], what).shape[-1], runs[0][0].fold), []
    for _, record in runs:
        gold, predicted, correct = (counts_of(record, what) @ times.T).unbind(1)  # each (types, 1 + RESAMPLES)
        there = gold + predicted > 0  # as `tally`: types that are in gold or predicted
        every.append((200 * correct / (gold + predicted).clamp(min=1)).sum(0) / there.sum(0).clamp(min=1))
    return torch.stack(every).mean(0)


def all_runs(groups: dict) -> str:
    """Each command with its scores, those that are in no table among them, and why relations were missed, in runs that tell."""
    lines = []
    for command, runs in groups.items():
        told = [record["missed_relations"] for _, record in runs if "missed_relations" in record]
        sums = [str(sum(record[cause] for record in told)) if told else "" for cause in CAUSES]
        seconds = [record["seconds"] for _, record in runs if "seconds" in record]
        scores_ = [figure(runs, "", what, "f1") for what in ("entity", "relation")]
        minutes = f"{statistics.mean(seconds) / 60:.1f}" if seconds else ""
        lines.append([row_of(command, groups), *scores_, str(len(runs)), minutes, *sums, f"`{command}`"])
    heads = ["", "entity F1", "relation F1", "runs", "minutes each", *(f"missed: {cause}" for cause in CAUSES.values()), "command"]
    return f"**All runs**, seeds and folds together, and why relations were missed\n\n{markdown(heads, lines)}"


def markdown(heads: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *lines])


# -- Command line ---------------------------------------------------------------------------------------------------------

FORMATS = ("text", "json", "html")
# What a command line may ask for beside a new run: the flags that go with it.
MODES = {"load": ("predict", "evaluate", "format", "device", "data_dir", "threshold", "flat"), "resume": ("device", "data_dir"),
         "report": (), "benchmark": [f.name for kind in (Settings, Config) for f in dataclasses.fields(kind)]}  # fmt: skip


def parser_of() -> argparse.ArgumentParser:
    """The command line: a flag for each field of Settings and Config, and what to do with a saved run."""
    usage = "python train.py [--flag value ...]; --help lists the flags"
    shape = lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=128)
    parser = argparse.ArgumentParser(usage=usage, description=__doc__, formatter_class=shape, allow_abbrev=False,
                                     argument_default=argparse.SUPPRESS)  # fmt: skip
    parser.error = data.refuse
    saved = parser.add_argument_group("a saved run")
    saved.add_argument("--load", metavar="RUN", help="the folder of a run that is to be used")
    several = dict(nargs="+", action="extend")
    saved.add_argument("--predict", metavar="TEXT", **several, help="with --load: texts, or files: a sentence a line, or .json")
    saved.add_argument("--evaluate", action="store_true", help="with --load: score the run on its --eval-split again")
    saved.add_argument("--format", choices=FORMATS, metavar="NAME", help=f"of predicted sentences: {', '.join(FORMATS)} (default: text)")
    saved.add_argument("--resume", metavar="RUN", help="go on with a run that was stopped")
    saved.add_argument("--report", metavar="RUN", **several, help="runs, or results.json, beside the paper's Tables 1 to 4")
    saved.add_argument("--benchmark", action="store_true", help="time and memory beside the encoder's alone; --output: a new JSON file")
    for title, kind in (("the run", Settings), ("the model", Config)):
        group = parser.add_argument_group(title)
        for f in dataclasses.fields(kind):
            if f.metadata:
                group.add_argument(flag(f.name), help=help_of(f), **shape_of(f))
    return parser


def help_of(f: dataclasses.Field) -> str:
    """A flag's line of help: what it is, its choices, its default, and where the toy corpus or SpERT has another."""
    told = {"default": f.default, "tiny": FOR_TINY.get(f.name), "spert": FOR_SPERT.get(f.name) if f.name != "model" else None}
    told = [f"{name}: {value}" for name, value in told.items() if value not in (None, "", ()) and value is not False]
    choices = f": {', '.join(f.metadata['choices'])}" if f.metadata["choices"] else ""
    return f"{f.metadata['help']}{choices}" + (f" ({'; '.join(told)})" if told else "")


def shape_of(f: dataclasses.Field) -> dict:
    """How argparse is to read the flag of a field."""
    if isinstance(f.default, bool):
        return {"action": "store_true"}
    if isinstance(f.default, tuple):
        return {"nargs": "+", "choices": f.metadata["choices"], "metavar": "PART"}
    return {"type": type(f.default), "choices": f.metadata["choices"], "metavar": {int: "N", float: "X", str: "NAME"}[type(f.default)]}


def flags_in(arguments: list[str] | None) -> tuple[dict, dict]:
    """What a command line asks for, and the settings that it gives."""
    given = vars(parser_of().parse_args(arguments))
    asked = {name: given.pop(name) for name in [*given] if name in (*MODES, "predict", "evaluate", "format")}
    return asked, given


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; 0, or 2 after one line on what is wrong."""
    import transformers

    transformers.logging.set_verbosity_error()  # its load reports name weights that nothing here uses
    transformers.logging.disable_progress_bar()
    return data.command_line(lambda: start(*flags_in(arguments)))


def start(asked: dict, given: dict):
    """Does what is asked for."""
    mode = next((name for name in MODES if name in asked), None)
    fitting = (mode, *MODES[mode]) if mode else given
    if extra := [flag(name) for name in asked | given if name not in fitting]:
        raise DataError(f"{extra[0]} does not go with --{mode}, but: {', '.join(map(flag, MODES[mode])) or 'nothing'}" if mode else
                        f"{extra[0]} goes with --load RUN")  # fmt: skip
    check_range(given)
    join_processes()
    if mode == "load":
        use(asked, given)
    elif mode == "resume":
        resume(asked["resume"], given)
    elif mode == "report":
        print(report(asked["report"]))
    else:
        (benchmark if mode else train)(settings_of(**given))


def use(asked: dict, given: dict):
    """Predicts with a saved run, or scores it again; all sentences in one format."""
    if not asked.get("predict") and not asked.get("evaluate"):
        raise DataError("--load RUN goes with --predict TEXT or --evaluate")
    form, run = asked.get("format", "text"), load(asked["load"], given.get("device", "auto"))
    s = run.settings
    s.config.threshold, s.data_dir = given.get("threshold", s.config.threshold), given.get("data_dir", s.data_dir)
    s.flat = given.get("flat", s.flat)
    pairs = data.read_texts(asked.get("predict", []))
    scored = run.encode(corpus_of(s).splits[s.eval_split], f"{s.dataset}, {s.eval_split}, ") if asked.get("evaluate") else []
    encoded, gold = run.encode([sentence for sentence, _ in pairs]), [right for _, right in pairs]
    if form != "text":
        encoded, gold = encoded + scored, gold + [e.sentence for e in scored]
    found = list(zip(run.annotate(encoded), gold))
    if form == "json":
        print("[" + ",\n".join(json.dumps(sentence.to_json()) for sentence, _ in found) + "]")
    elif form == "html":
        print(data.page(found, f"{asked['load']}: {len(found)} sentences"))
    else:
        print("\n".join(data.show(sentence, right, sys.stdout.isatty()) for sentence, right in found))
        if scored:
            print(final_table(s, measure(run, scored)[0]))


if __name__ == "__main__":
    sys.exit(main())
