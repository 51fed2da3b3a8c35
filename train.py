"""The experiment: train, choose the best epoch on dev, score on test in the paper's protocol, save; or load and predict.

    python train.py                                      toy data, tiny encoder, no download, about a minute
    python train.py --dataset ade --fold 0               the paper's run (fetches ADE and bert-base-cased once)
    python train.py --load RUN --predict "Gemcitabine-induced pulmonary toxicity is usually a dramatic condition."

From Python: `from train import load; load("runs/…").predict(["…"])`.
"""

import argparse
import atexit
import ctypes
import dataclasses
import itertools
import json
import os
import platform
import random
import re
import shlex
import statistics
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import jaxtyping
import torch
from safetensors.torch import load_file, save
from tqdm import tqdm

import data
from data import Corpus, DataError, Entity, Relation, Sampling, Sentence
from spanrel import RANDOM, SPERT, Config, SpanRel, SpERT, build_encoder, joint_loss, setting

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
    eval_split: str = setting("test", "the split scored at the end; dev while settings are being chosen", ("test", "dev"))
    seed: int = setting(0, "of weights, order, dropout and negatives")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    precision: str = setting("fp32", "bf16: autocast, the loss in float32", ("fp32", "bf16"))
    output: str = setting("", "the run's folder, which must not exist yet; else a new one under runs/")
    config: Config = field(default_factory=Config)


# What the baseline changes of the defaults above, then what a dataset does; flags given by hand come last.
DATASET = {  # ade, conll04 and ace05 take the defaults as they are: nothing measured on dev asks for more (README)
    "toy": dict(encoder="tiny", epochs=20, lr=1e-3, head_lr=1e-3, hidden=64),
}
BASELINE = {**SPERT, "batch_size": 2, "lr": 5e-5, "head_lr": 5e-5, "negative_count": 100}

# What numbers can be; the others are from 0.
RANGE = dict.fromkeys(("epochs", "batch_size", "chunk"), (1, 2**31)) | dict.fromkeys(("dropout", "warmup", "threshold"), (0, 1))
RANGE |= dict.fromkeys(("heads", "layers", "context_layers", "max_width"), (1, 1000)) | dict.fromkeys(("hidden", "width_dim"), (1, 2**16))
RANGE["clip"] = (1e-6, 2**31)


def check_range(given: dict):
    """Refuses a number that its flag cannot be."""
    for name, value in given.items():
        low, high = RANGE.get(name, (0, 2**31))
        if isinstance(value, (int, float)) and not low <= value <= high:  # so that not-a-number is refused, too
            raise DataError(f"--{name.replace('_', '-')} {value}: must be from {low} to {high}")


def settings_of(**given) -> Settings:
    """Settings from flags by name, those of `Config` among them; the dataset's and the model's defaults fill the rest."""
    baseline = given.get("model") == "spert"
    if off := sorted({"ablate", "attention"} & {name for name, value in given.items() if value}) if baseline else []:
        raise DataError(f"--{off[0]} goes with --model span: SpERT has no such part")
    chosen = {**(BASELINE if baseline else {}), **DATASET.get(given.get("dataset", "toy"), {}), **given}
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
        for number, text in enumerate(texts, 1):
            if re.search("[\ud800-\udfff]", text):
                raise DataError(f"text {number} is not UTF-8")
        return self.annotate(self.encode([Sentence.from_text(text, f"text {k}") for k, text in enumerate(texts, 1)]))

    def annotate(self, encoded: list[data.Encoded]) -> list[Sentence]:
        """Copies of the sentences with the entities and relations that the model finds, in the order given. Each process
        reads its share of them."""
        self.model.eval()
        parts = data.batches_of([e for e in encoded if e.sentence.words], 8)
        mine = [self.annotate_batch(batch) for batch in ahead(self.prediction_batch, parts[RANK::WORLD])]
        every = gathered(mine)
        found = {id(e): s for k, part in enumerate(parts) for e, s in zip(part, every[k % WORLD][k // WORLD])}
        blank = lambda e: dataclasses.replace(e.sentence, entities=[], relations=[])  # noqa: E731
        return [found.get(id(e)) or blank(e) for e in encoded]

    def annotate_batch(self, batch: data.Batch) -> list[Sentence]:
        """The sentences of a batch with what the model finds."""
        with self.autocast():
            results = self.model.predict(
                batch.input_ids, batch.attention_mask, batch.is_token, batch.spans, batch.widths, batch.is_span
            )
        return [self.annotated(example, *result) for example, result in zip(batch.examples, results)]

    def annotated(self, example: data.Example, entities: list, relations: list) -> Sentence:
        """The example's sentence with what `SpanRel.predict` returned for it."""
        found = [Entity(self.entity_types[kind - 1], *example.spans[span], score=score) for span, kind, score in entities]
        related = [Relation(self.relation_types[kind - 1], found[a], found[b], score) for a, b, kind, score in relations]
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
        self.tokenizer.save_pretrained(folder)
        described = {
            "settings": dataclasses.asdict(self.settings),
            "entity_types": self.entity_types,
            "relation_types": self.relation_types,
            "encoder": self.model.encoder.config.to_dict(),
        }
        write(folder / "config.json", json.dumps(described, indent=1).encode())
        write(folder / "model.safetensors", save({name: weight.contiguous() for name, weight in self.model.state_dict().items()}))


def write(path: Path, content: bytes):
    """Writes a file under a temporary name and renames it, so that it is there whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)


def new_run(settings: Settings, corpus: Corpus) -> Run:
    """An untrained model for the corpus: the encoder that the settings name, new weights above it."""
    from transformers import AutoTokenizer

    torch.manual_seed(settings.seed)
    try:
        if settings.encoder in RANDOM:
            source, tokenizer = settings.encoder, data.learn_tokenizer(corpus.train)
        else:
            source = locate_encoder(settings.encoder)
            tokenizer = AutoTokenizer.from_pretrained(source, add_prefix_space=True)
        encoder = build_encoder(source, len(tokenizer))
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise DataError(f"--encoder {settings.encoder}: no vocabulary there; a tokenizer.json or vocab.txt belongs to it")
    except DataError:
        raise
    except Exception as error:  # whatever transformers raises on a folder that holds something else
        raise DataError(f"--encoder {settings.encoder}: {one_line(error)}") from None
    return assemble(settings, encoder, tokenizer, corpus.types("entities"), corpus.types("relations"))


def one_line(error: Exception) -> str:
    """What an exception of a library says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


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


def locate_encoder(name: str) -> str:
    """The folder of a pretrained encoder: `name` itself, or the hub's copy, fetched once. No network costs seconds, not
    minutes of retries."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    if Path(name).exists():
        if not (Path(name) / "config.json").exists():
            raise DataError(f"--encoder {name}: no config.json there; it must be a folder as `save_pretrained` writes it")
        return name
    try:
        folder = Path(snapshot_download(name, local_files_only=True))
        if list(folder.glob("*.safetensors")) and list(folder.glob("tokenizer*")):
            return str(folder)
    except OSError:
        pass  # not fetched before
    except HFValidationError:
        raise DataError(f"--encoder {name}: no such folder, and no name on the hub could be that") from None
    try:
        HfApi().model_info(name, timeout=8)
        files = ["config.json", "*.safetensors", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json"]
        return snapshot_download(name, allow_patterns=files)
    except RepositoryNotFoundError:
        raise DataError(f"--encoder {name}: no such folder, and no such model on the hub") from None
    except Exception as error:  # whatever the hub's client raises when it cannot reach the hub
        raise DataError(f"--encoder {name} is not here and could not be fetched ({one_line(error)}): give the folder of a copy with "
                        "--encoder FOLDER, or start without it: python train.py") from None


def load(folder: str | Path, device: str = "auto") -> Run:
    """A saved run, ready to predict. Needs no network and no other file."""
    from transformers import AutoTokenizer

    folder, device = Path(folder), device_of(device)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        if len(folder.name) > 255 or not (folder / name).is_file():
            raise DataError(f"{str(folder)[:200]}: {name} is not there; a run folder is what `python train.py` writes")
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shapes, settings = described["settings"].pop("config"), described["settings"]
        shapes["ablate"] = tuple(shapes["ablate"])
        settings = Settings(**{**settings, "device": device}, config=Config(**shapes))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        encoder = build_encoder(dict(described["encoder"]), len(tokenizer))
        run = assemble(settings, encoder, tokenizer, described["entity_types"], described["relation_types"])
        run.model.load_state_dict(load_file(folder / "model.safetensors", device=str(run.device)))
    except Exception as error:  # whatever json, transformers, safetensors or torch raise on what is not theirs
        raise DataError(f"{folder}: not a whole run: {one_line(error)}") from None
    return run


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
    return {"entity": table["entity"], "relation": {name: table[name] for name in ("strict", "boundaries")}}


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
        shows = lambda sentences, name: [s for s in sentences if s.phenomenon == name]  # noqa: E731
        result["phenomena"] = {name: scores(shows(gold, name), shows(predicted, name)) for name in names}
    return result, predicted


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


def train(settings: Settings) -> dict:
    """One whole run: trains, scores, writes the run folder; returns what metrics.json holds."""
    begun = time.time()
    run, splits = begin(settings)
    if RANK:
        torch.manual_seed(settings.seed + RANK)  # a dropout of its own
    folder = gathered(None if RANK else new_folder(settings))[0]
    best = fit(run, splits["train"], splits["dev"], folder)
    gathered("written")  # none reads before that
    if splits["dev"]:
        run.model.load_state_dict(load_file(folder / "model.safetensors", device=str(run.device)))
    scored = splits[settings.eval_split]
    result, predicted = measure(run, scored)
    if RANK:
        return result
    peak = peak_memory(run.device)
    result |= {"best_epoch": best, "settings": dataclasses.asdict(settings), "command": command_of(settings), "peak_memory": peak,
               "hardware": hardware_of(run.device), "seconds": time.time() - begun}  # fmt: skip
    write(folder / "predictions.json", json.dumps([sentence.to_json() for sentence in predicted]).encode())
    write(folder / "metrics.json", json.dumps(result, indent=1).encode())
    colour = sys.stdout.isatty()
    print("\n".join(show(s, gold.sentence, colour) for gold, s in list(zip(scored, predicted))[:4]))
    print(final_table(settings, result))
    print(f"the weights of epoch {best}; {time.time() - begun:.0f} s, {peak / 2**30:.1f} GiB; the run is in {folder}")
    return result


def command_of(settings: Settings) -> str:
    """The command line of a run, without the flags that leave the scores as they are."""
    usual, words = settings_of(dataset=settings.dataset, model=settings.config.model), ["python", "train.py"]
    for mine, theirs in (settings, usual), (settings.config, usual.config):
        for f in dataclasses.fields(mine):
            value = getattr(mine, f.name)
            default = f.default if f.name in ("dataset", "model") else getattr(theirs, f.name)
            if f.metadata and f.name not in ("data_dir", "device", "output") and value != default:
                shown = [] if value is True else value if isinstance(value, tuple) else [value]
                words += [f"--{f.name.replace('_', '-')}", *map(str, shown)]
    return shlex.join(words)


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
    name = "-".join([Path(settings.dataset).name, *fold, method(settings), *settings.config.ablate, f"seed{settings.seed}"])
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
    settings, best, chosen = run.settings, -1.0, 0
    sampling = sampling_of(settings)
    optimizer, schedule = optimizer_of(run, settings.epochs * -(-len(train) // settings.batch_size))
    for sampling.epoch in range(1, settings.epochs + 1):
        begun, rng = time.time(), random.Random(f"{settings.seed} {sampling.epoch}")
        batches = data.batches_of(train, settings.batch_size, rng)
        losses = train_epoch(run, batches, sampling, optimizer, schedule)
        line = {"epoch": sampling.epoch, **losses}
        if dev:
            result, _ = measure(run, dev)
            line |= {"entity_f1": average(settings, result["entity"]), "relation_f1": average(settings, result["relation"]["strict"])}
        score = (line["entity_f1"] + line["relation_f1"]) / 2 if dev else sampling.epoch
        print("  ".join(f"{name} {value:.4g}" for name, value in line.items()), flush=True)
        if RANK == 0:
            with open(folder / "history.jsonl", "a", encoding="utf-8") as history:
                history.write(json.dumps({**line, "seconds": time.time() - begun}) + "\n")
            if score > best:
                run.save(folder)
        best, chosen = max((best, chosen), (score, sampling.epoch), key=lambda pair: pair[0])
    return chosen


def sampling_of(settings: Settings) -> Sampling:
    """How the settings draw negatives, before the first epoch."""
    count = settings.negative_count or None
    return Sampling(settings.config.max_width, settings.negative_rate, count, settings.pairs_among, settings.seed)


def average(settings: Settings, table: dict) -> float:
    """The F1 that the paper reports: macro for ADE, else micro (§4.4) [L21]."""
    return table["macro" if settings.dataset == "ade" else "micro"]["f1"]


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
    sums = torch.zeros(3, device=run.device)
    bar = tqdm(batches, desc=f"epoch {sampling.epoch}", leave=False, disable=True if RANK else None)
    for step, batch in enumerate(ahead(lambda part: share_of(run, part, sampling), bar), 1):
        losses = train_step(run, batch)
        descend(run, losses[0], optimizer)
        schedule.step()
        sums += torch.stack(losses).detach()
        if step % 20 == 0:  # not at each step: reading a value waits for the device
            bar.set_postfix(loss=f"{float(sums[0]) / step:.4f}")
    return dict(zip(("loss", "span_loss", "relation_loss"), (summed(sums) / len(batches)).tolist()))


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
        y_s, y_r = run.model(
            batch.input_ids, batch.attention_mask, batch.is_token, batch.spans, batch.widths, batch.pairs, batch.arguments
        )
    _, L_s, L_r = run.model.loss(y_s.float(), batch.t_s, batch.is_span, y_r.float(), batch.t_r, batch.is_pair)
    samples = torch.stack([batch.is_span.sum(), batch.is_pair.sum()])
    share_s, share_r = samples / summed(samples.clone()).clamp(min=1)
    L_s, L_r = share_s * L_s, share_r * L_r
    return joint_loss(L_s, L_r, run.settings.config.span_weight, run.settings.config.relation_weight), L_s, L_r


def descend(run: Run, loss: torch.Tensor, optimizer):
    """One step down the gradient of the loss, whose norm is clipped."""
    loss.backward()
    for weight in run.model.parameters():
        if weight.grad is not None:
            summed(weight.grad)
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.settings.clip)
    optimizer.step()
    optimizer.zero_grad()


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
    result |= {"growth": growth(run), "prediction": cost_of_prediction(run, splits["test"]), "training": cost_of_training(run, splits["train"])}
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
        begun = now(run.device)
        action(batch)
        spent[name, k].append(now(run.device) - begun)
    for name in actions:
        cost[name]["seconds"] = sum(statistics.median(spent[name, k]) for k in range(len(batches)))
    return cost


def now(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()


def cost_table(result: dict) -> str:
    """The figures of `benchmark` as a table; 0 MiB where the system does not tell."""
    lines = [f"{result['command']}\n{result['hardware']}\n", f"{'':34}{'model':>10}{'encoder':>10}{'ratio':>10}"]
    for name, what in ("training", "training: a step"), ("prediction", "prediction: a batch of 8"):
        cost = result[name]
        figures = [(f"{what}, ms", lambda part: 1000 * part["seconds"] / cost["batches"]),  # noqa: B023
                   ("  sentences a second", lambda part: cost["sentences"] / part["seconds"]),  # noqa: B023
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

PRINTED = {  # Tables 1 and 2: entity P, R, F1, then relation P, R, F1
    "ace05": {"multihead": (89.32, 89.86, 89.59, 71.22, 60.19, 65.24), "dot": (87.94, 62.88), "general": (88.66, 63.56),
              "additive": (89.07, 64.53)},
    "conll04": {"multihead": (90.11, 90.36, 90.23, 76.96, 71.88, 74.33), "dot": (88.23, 70.89), "general": (88.96, 73.48),
                "additive": (89.17, 71.36), "spert": (88.25, 89.64, 88.94, 73.04, 70.00, 71.47)},
    "ade": {"multihead": (89.88, 91.32, 90.59, 79.56, 81.93, 80.73), "dot": (88.15, 77.31), "general": (89.93, 80.14),
            "additive": (89.68, 79.75), "spert": (88.99, 89.59, 89.28, 77.77, 79.96, 78.84)},
}  # fmt: skip


def method(settings: Settings) -> str:
    """The model by the name that it has in the tables."""
    return "spert" if settings.config.model == "spert" else settings.config.attention


def final_table(settings: Settings, result: dict) -> str:
    """The scores in the layout of the paper's Table 1, above the row that the paper prints for this model."""
    rows = [(f"{Path(settings.dataset).name}, {settings.eval_split}, {name}", result["entity"][name], result["relation"]["strict"][name])
            for name in ("micro", "macro")]
    rows.append(("  relations by boundaries, micro", None, result["relation"]["boundaries"]["micro"]))
    for name, part in result.get("phenomena", {}).items():
        rows.append((f"  phenomenon: {name}", part["entity"]["micro"], part["relation"]["strict"]["micro"]))
    for kind, part in result["entity"]["by_type"].items():
        rows.append((f"  entity: {kind}", part, None))
    for kind, part in result["relation"]["strict"]["by_type"].items():
        rows.append((f"  relation: {kind}", None, part))
    printed = PRINTED.get(settings.dataset, {}).get(method(settings))
    if printed and not settings.config.ablate and settings.eval_split == "test":
        half = len(printed) // 2
        names = ("p", "r", "f1") if half == 3 else ("f1",)
        rows.append((f"the paper, {method(settings)}", dict(zip(names, printed[:half])), dict(zip(names, printed[half:]))))
    there = lambda part: part and part.get("gold", 1) + part.get("predicted", 1)  # noqa: E731
    cells = lambda part: "".join(f"{part[k]:8.2f}" if there(part) and k in part else " " * 8 for k in ("p", "r", "f1"))  # noqa: E731
    head = f"{'':34}{'entity P':>8}{'R':>8}{'F1':>8}  {'rel. P':>8}{'R':>8}{'F1':>8}"
    return "\n".join([head, *(f"{name:34.34}{cells(entity)}  {cells(relation)}" for name, entity, relation in rows)])


def show(sentence: Sentence, gold: Sentence | None = None, colour: bool = False) -> str:
    """A sentence's entities and relations, one a line, with characters and scores; against `gold`, where it is known:
    = right, + wrong, - missed."""
    lines = [f"\n{sentence.text}"]
    for items, right in (sentence.entities, gold and gold.entities), (sentence.relations, gold and gold.relations):
        marked = [(" " if right is None else "=" if item in right else "+", item) for item in items]
        for mark, item in marked + [("-", item) for item in right or [] if item not in items]:
            score = "" if item.score is None else f"{item.score:.2f}"
            line = f"  {mark} {item.type:16} {score:5} {in_text(sentence, item)}"
            lines.append(f"\033[{PAINT[mark]}m{line}\033[0m" if colour else line)
    return "\n".join(lines)


PAINT = {"=": 32, "+": 31, "-": 33, " ": 0}


def in_text(sentence: Sentence, item: Entity | Relation) -> str:
    """An entity's text and characters; a relation's head and tail."""
    if isinstance(item, Relation):
        return f"{in_text(sentence, item.head)} -> {in_text(sentence, item.tail)}"
    a, b = sentence.chars(item)
    return f'"{sentence.text[a:b]}" [{a}, {b})'


# -- Command line ---------------------------------------------------------------------------------------------------------


def parser_of() -> argparse.ArgumentParser:
    """The command line: a flag for each field of Settings and Config, and what to do with a saved run."""
    usage = "python train.py [--flag value ...]; --help lists the flags"
    shape = lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=128)  # noqa: E731
    parser = argparse.ArgumentParser(usage=usage, description=__doc__, formatter_class=shape, allow_abbrev=False)
    parser.add_argument("--benchmark", action="store_true", help="time and memory beside the encoder's alone; --output: a new JSON file")
    saved = parser.add_argument_group("a saved run")
    saved.add_argument("--load", metavar="RUN", help="the folder of a run")
    saved.add_argument("--predict", metavar="TEXT", nargs="+", help="print the entities and relations of each text")
    saved.add_argument("--evaluate", action="store_true", help="score the run on its --eval-split again")
    for title, kind in (("the run", Settings), ("the model", Config)):
        group = parser.add_argument_group(title)
        for f in dataclasses.fields(kind):
            if f.metadata:
                group.add_argument("--" + f.name.replace("_", "-"), default=argparse.SUPPRESS, help=help_of(f), **shape_of(f))
    return parser


def help_of(f: dataclasses.Field) -> str:
    """A flag's line of help: what it is, its choices, its default, and where the toy corpus or SpERT has another."""
    told = {"default": f.default, "toy": DATASET["toy"].get(f.name), "spert": BASELINE.get(f.name) if f.name != "model" else None}
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


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; 0, or 2 after one line on what is wrong."""
    import transformers

    transformers.logging.set_verbosity_error()  # its load reports name weights that nothing here uses
    transformers.logging.disable_progress_bar()
    given = vars(parser_of().parse_args(arguments))
    start = benchmark if given.pop("benchmark") else train
    asked = [given.pop(name) for name in ("load", "predict", "evaluate")]
    given["ablate"] = tuple(given.get("ablate", ()))
    join_processes()
    return data.command_line(lambda: use(*asked, given, start) if asked != [None, None, False] else start(settings_of(**given)))


def use(folder: str | None, texts: list[str] | None, evaluate: bool, given: dict, start):
    """Predicts with a saved run, or scores it again."""
    if start is benchmark:
        raise DataError("--benchmark times a new model: leave out --load, --predict and --evaluate")
    if folder is None or not texts and not evaluate:
        raise DataError("--load RUN and --predict TEXT or --evaluate go together")
    if fixed := sorted(name for name, value in given.items() if value != () and name not in ("device", "data_dir", "threshold")):
        raise DataError(f"--{fixed[0].replace('_', '-')}: a saved run keeps its own; only --device, --data-dir and --threshold can differ")
    check_range(given)
    run = load(folder, given.get("device", "auto"))
    run.settings.config.threshold = given.get("threshold", run.settings.config.threshold)
    for sentence in run.predict(texts or []):
        print(show(sentence, colour=sys.stdout.isatty()))
    if evaluate:
        s = run.settings
        s.data_dir = given.get("data_dir", s.data_dir)
        result, _ = measure(run, run.encode(corpus_of(s).splits[s.eval_split], f"{s.dataset}, {s.eval_split}, "))
        print(final_table(s, result))


if __name__ == "__main__":
    sys.exit(main())
