"""The experiment: train, choose the best epoch on dev, score on test as the paper does; or load and predict.

    python train.py                                toy corpus, tiny encoder, no download, half a minute
    python train.py --dataset ade --fold 0         the paper's run (fetches ADE and bert-base-cased once)
    python train.py --load RUN --predict "Gemcitabine-induced pulmonary toxicity is a dramatic condition."
    python train.py --load RUN --predict FILE --format html > page.html
    python train.py --load RUN --evaluate          scores a saved run again; with --dataset, on another corpus
    python train.py --resume RUN                   goes on with a run that was stopped

From Python: `from train import load; load("runs/…").predict(["…"])`. A help line ends with the flag's
default, unless it is 0 or empty. "toy" marks that of the toy corpus and tiny encoders, "spert" that of SpERT.
"""

import dataclasses
import itertools
import math
import random
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __name__ == "__main__":
    from support.errors import end_quietly

    end_quietly()

import torch
from safetensors.torch import load_file
from torch import Tensor

import data
from baselines import idle_flags, make_model, spert
from baselines.ablations import ABLATIONS, Part
from baselines.published import average_of, method_of, table_of
from baselines.readings import READINGS
from data import Batch, Corpus, Encoded, Example, Sampling, Sentence
from spanrel import Config, SpanRel, joint_loss, relation_loss, span_loss
from support import encoders, folders, pictures
from support.cautions import cautions, change_cautions, crowd_cautions
from support.checkpoints import finish_epoch, go_on, identity_of, load_model
from support.command_line import RANGES, add_actions, change_settings, take_actions
from support.devices import device_of, explain_memory, hardware_of, peak_memory
from support.errors import InputError, excerpt, explain_errors, one_line, read_each, run_program, warn
from support.flags import add_flags, check_values, command_of, make_parser, refuse_idle
from support.processes import build_ahead, gather, join_processes, rank, sum_over_processes, world_size
from support.progress import Progress
from support.scores import all_scores, main_tables, sentence_counts
from support.selection import check_symmetric, select, undirected
from support.tables import introduction

# -- Settings ------------------------------------------------------------------------------------------------


@dataclass
class Settings(Config):
    """All that shapes a run: these fields and those of Config. The comment behind a field is its flag's help.
    (SpERT) marks a value of SpERT [L14]."""

    dataset: str = "toy"  # toy, ade, conll04, ace05, or a folder with train, dev and test
    split: str = ""  # shares such as 80/10/10 that divide a folder without dev and test
    fold: int = 0  # ADE: which of the ten folds is tested (§4.1)
    data_dir: str = "data"  # where corpora are kept; files placed there are used instead of a download
    encoder: str = "bert-base-cased"  # hub name or folder; or random: base, tiny, tiny-1, tiny-2 (§4.2)
    model: Literal["span", "spert"] = "span"  # the paper's model, or its baseline SpERT (§4.3)
    ablate: tuple[Part, ...] = ()  # parts to take away (Tables 3 and 4)
    epochs: int = 20  # passes over the training sentences (SpERT)
    batch_size: int = 8  # sentences in a training step (§4.2)
    lr: float = 1e-4  # peak learning rate of the encoder; SpERT's 5e-5 belongs to its batch of 2 [L14]
    head_lr: float = 5e-4  # peak learning rate of the layers above the encoder [L14]
    warmup: float = 0.1  # share of the steps in which the learning rate rises (SpERT)
    weight_decay: float = 0.01  # weight decay of AdamW; none for biases and layer norms (SpERT)
    clip: float = 1.0  # largest norm of the gradient (SpERT)
    negative_rate: int = 30  # negatives for each gold entity or relation of a sentence (§3.4)
    negative_count: int = 0  # if not 0, replaces the rate: negative spans (and pairs) of each sentence
    pairs_among: Literal["gold", "both"] = "gold"  # negative pairs of gold spans; both: wrong ones, too [L13]
    symmetric: tuple[str, ...] = ()  # relation types without a direction: (a, b) and (b, a) are the same
    train_on_dev: bool = False  # train on train and dev, and keep the last epoch [L14]
    flat: bool = False  # keep only the likeliest of predicted entities that overlap [L37]
    least_entity_score: float = 0.0  # keep predicted entities with at least this score
    least_relation_score: float = 0.0  # keep predicted relations with at least this score
    eval_split: Literal["test", "dev"] = "test"  # split scored at the end; take dev to choose settings
    seed: int = 0  # random seed of weights, order, dropout and negatives
    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast, with the loss in float32
    output: str = ""  # a new folder for the run; without this flag, one under runs/

    def __post_init__(self):  # one order, so that the same run has the same flags
        self.ablate = tuple(sorted(set(self.ablate), key=ABLATIONS.index))
        self.symmetric = tuple(sorted(set(self.symmetric)))


# What replaces the defaults above.
FOR_TOY = dict(encoder="tiny")
FOR_TINY = dict(lr=1e-3, head_lr=1e-3, hidden=64)  # with the small encoders of random weights
FOR_SPERT = {**spert.SETTINGS, **spert.CONFIG}
OTHER_DEFAULTS = {"toy": FOR_TINY | FOR_TOY, "spert": FOR_SPERT}


def settings_of(**given) -> Settings:
    """Makes the settings from flags by name. Flags not given have their defaults."""
    is_spert = given.get("model") == "spert"
    # Later ones override earlier ones: SpERT's defaults, the corpus's, the small encoders', the flags.
    chosen = dict(FOR_SPERT) if is_spert else {}
    chosen |= FOR_TOY if given.get("dataset", "toy") == "toy" else {}
    if given.get("encoder", chosen.get("encoder")) in encoders.TINY_NAMES:
        chosen |= FOR_TINY
    chosen |= given
    if is_spert:  # it has one learning rate
        chosen["head_lr"] = given.get("head_lr", chosen["lr"])
    settings = make_settings(chosen)
    if settings.train_on_dev and settings.eval_split == "dev":
        raise InputError("--eval-split dev and --train-on-dev: the model that is scored would have seen dev")
    refuse_idle(given, idle_flags(settings))
    return settings


def make_settings(values: dict) -> Settings:
    """The settings of these values, if each is one that its field can have."""
    check_values(Settings, values, RANGES)
    return Settings(**values)


def flags_of(settings: Settings) -> dict:
    """The fewest flags that make these settings, without folders, device and chunk. They identify a run."""
    names = {"dataset": settings.dataset, "model": settings.model}
    defaults = dict(vars(settings_of(**names, encoder=settings.encoder)))
    # dataset, model and encoder chose the defaults above; these are their own defaults.
    encoder = settings_of(**names).encoder
    defaults |= {"dataset": Settings.dataset, "model": Settings.model, "encoder": encoder}
    if settings.model == "spert":  # it has one learning rate
        defaults["head_lr"] = settings.lr
    given = {name: getattr(settings, name) for name in (*Settings.__annotations__, *Config.__annotations__)}
    left_out = ("data_dir", "device", "output", "chunk")
    return {name: value for name, value in given.items() if name not in left_out and value != defaults[name]}


# -- A run: a model with all that it needs to read text ------------------------------------------------------


@dataclass
class Run:
    """A model, its tokenizer, its types and the settings it was made with."""

    settings: Settings
    model: SpanRel
    tokenizer: object
    entity_types: list[str]
    relation_types: list[str]
    rule: str = "letters"  # how texts are cut into words, one of `corpora.words.RULES`
    trained_on: str = ""  # a digest of its training sentences

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def encode(self, sentences: list[Sentence], split: str = "") -> list[Encoded]:
        """The sentences in wordpieces. An error names their split."""
        longest = encoders.longest_input(self.tokenizer, self.model.encoder)
        where = f"{self.settings.dataset}, {split}, " if split else ""
        return data.encode(sentences, self.tokenizer, longest, where)

    def autocast(self):
        """bf16 where the settings ask for it, else nothing."""
        is_bf16 = self.settings.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16) if is_bf16 else nullcontext()

    def batch(self, examples: list[Example]) -> Batch:
        """The examples as tensors, on the model's device."""
        batch = data.make_batch(examples, len(self.relation_types) + 1, self.tokenizer.pad_token_id or 0)
        with explain_memory("a batch, on its way to the device", batch, "does another program use it?"):
            return batch.to(self.device)

    def training_batch(self, encoded: list[Encoded], sampling: Sampling) -> Batch:
        """This process's share of some sentences, with their gold and fresh negatives."""
        share, types = encoded[rank() :: world_size()], (self.entity_types, self.relation_types)
        examples = [data.training_example(e, *types, sampling) for e in share or encoded[:1]]
        batch = self.batch(examples)
        if not share:  # all processes must take the step; in this one nothing counts
            batch.is_span[:] = False
            batch.is_pair[:] = False
        return batch

    def prediction_batch(self, encoded: list[Encoded], given_entities: bool = False) -> Batch:
        """Some sentences with all their spans, or with the entities that they have."""
        max_width = self.settings.max_width
        return self.batch([data.prediction_example(e, max_width, given_entities) for e in encoded])

    def predict(self, texts: list | str | dict, given_entities: bool = False) -> list[Sentence]:
        """Each text, taken as one sentence, with the entities and relations that the model finds in it.
        An item can be a text, a list of words, or a record in SpERT's JSON. With `given_entities`, the
        entities of records are taken as they are, and only relations between them are predicted."""
        if isinstance(texts, bytes) or not hasattr(texts, "__iter__"):
            raise InputError(f"predict takes a text, or a list of texts; this is {excerpt(texts)}")
        items = [texts] if isinstance(texts, (str, dict)) else texts
        named = [(item, f"text {k}", f"text {k}", self.rule) for k, item in enumerate(items, 1)]
        inputs = [sentence for sentence, _ in read_each(data.input_sentence, named)]
        return self.annotate(self.encode(inputs), given_entities)

    def annotate(self, encoded: list[Encoded], given_entities: bool = False) -> list[Sentence]:
        """Copies of the sentences with what the model finds, in their order. Each process reads its share."""
        self.model.eval()
        batches = data.batches_of([e for e in encoded if e.sentence.words], 8)
        share, own_batches = [], batches[rank() :: world_size()]
        for batch in build_ahead(lambda part: self.prediction_batch(part, given_entities), own_batches):
            share += self.annotate_batch(batch, given_entities)
        # By identity, as names may repeat. A sentence without words stays without entities.
        found = {id(e): dataclasses.replace(e.sentence, entities=[], relations=[]) for e in encoded}
        for process, sentences in enumerate(gather(share)):
            its_share = itertools.chain(*batches[process :: world_size()])
            found.update(zip(map(id, its_share), sentences))
        annotated = [found[id(e)] for e in encoded]
        warn(crowd_cautions(annotated, self.settings.most_entities))
        return [select(sentence, self.settings) for sentence in annotated]

    def annotate_batch(self, batch: Batch, given_entities: bool = False) -> list[Sentence]:
        """The sentences of a batch with all that the model finds."""
        with self.autocast(), explain_memory("prediction", batch, "a smaller --chunk may help"):
            prediction = self.model.predict(*batch.inputs, batch.is_span, given_entities)
        types = (self.entity_types, self.relation_types)
        return data.predicted_sentences(batch.examples, prediction, *types, given_entities)


def new_run(settings: Settings, corpus: Corpus, revision: str = "") -> Run:
    """An untrained model for the corpus: the encoder that the settings name, new weights above it.
    `revision` is the version of the encoder to take from the hub; without it, the name decides."""
    torch.manual_seed(settings.seed)
    name = settings.encoder
    if revision and not Path(name).exists():
        name = f"{name.partition('@')[0]}@{revision}"
    tokenizer, encoder = encoders.load_encoder(name, [s.words for s in corpus.train])
    types = corpus.types("entities"), corpus.types("relations")
    model = make_model(settings, encoder, *types).to(device_of(settings.device))
    return Run(settings, model, tokenizer, *types, corpus.rule)


def load(folder: str | Path, device: str = "auto") -> Run:
    """A saved run, ready to predict, from its folder or, by a name such as "user/run", from the hub.
    A folder needs no network and no other file. Nothing but safetensors and JSON is read."""
    folder, device = folders.locate_run(folder), device_of(device)
    try:
        encoders.refuse_code(folder)
        description = folders.read_description(folder)
        settings = make_settings(description["settings"])
        types = description["entity_types"], description["relation_types"]
        tokenizer, encoder = encoders.load_tokenizer(folder), dict(description["encoder"])
        weights = folder / "model.safetensors"
        model = load_model(weights, lambda: make_model(settings, encoders.build_encoder(encoder), *types))
        encoders.check_vocabulary(tokenizer, model.encoder)
        rule = description.get("words", Run.rule)  # a run of an earlier version does not say
        Sentence.from_text("", rule=rule)  # is it a rule?
        model.to(device)
    except Exception as error:  # whatever the libraries raise on a file that they cannot read
        raise InputError(f"{folder}: not a whole run: {one_line(error)}") from None
    return Run(settings, model, tokenizer, *types, rule, description.get("trained_on", ""))


def evaluate(run: Run, encoded: list[Encoded]) -> tuple[dict, list[Sentence]]:
    """Scores on some sentences, and the predictions."""
    gold, predicted = [e.sentence for e in encoded], run.annotate(encoded)
    return all_scores(gold, predicted, run.settings.max_width), predicted


# -- Training ------------------------------------------------------------------------------------------------


def train(settings: Settings, resumed: str | None = None, revision: str = "") -> dict:
    """One whole run, or the rest of one. Returns what metrics.json holds."""
    started = time.time()
    run, splits = begin(settings, revision)
    if rank():
        torch.manual_seed(settings.seed + rank())  # a dropout of its own; process 0 goes on with the seed
    folder = Path(resumed) if resumed else folders.new_folder(settings, method_of(settings))
    started -= sum(line["seconds"] for line in folders.read_history(folder))  # before it was stopped
    with folders.explain_interruption(folder), folders.lock(folder, rank()):
        best_epoch = fit(run, splits, folder)
        folders.settle_best(folder, best_epoch)
        run.model.load_state_dict(load_file(folder / "model.safetensors", device=str(run.device)))
        gold = [encoded.sentence for encoded in splits[settings.eval_split]]
        result, predicted = evaluate(run, splits[settings.eval_split])
        if rank():
            return result
        flags, counts = flags_of(settings), sentence_counts(gold, predicted, average_of(settings))
        result |= {"best_epoch": best_epoch, "settings": dataclasses.asdict(settings), "flags": flags}
        result |= {"command": command_of(flags), "hardware": hardware_of(run.device), "by_sentence": counts}
        result |= {"peak_memory": peak_memory(run.device), "seconds": time.time() - started}
        folders.write_results(folder, result, predicted)
    print(pictures.render(list(zip(predicted, gold))[:4], "text", "", sys.stdout.isatty()))
    print(table_of(settings, result))
    cost = f"{result['seconds']:.0f} s, {result['peak_memory'] / 2**30:.1f} GiB"
    print(f"the weights of epoch {best_epoch}; {cost}; the run is in {folder}")
    return result


def begin(settings: Settings, revision: str = "") -> tuple[Run, dict[str, list[Encoded]]]:
    """An untrained model, and the splits that it trains on and is scored on."""
    if settings.encoder in encoders.TINY_NAMES:
        torch.set_num_threads(1)  # its matrices are too small to share: threads would wait for each other
    corpus = corpus_of_run(settings)
    check_symmetric(settings.symmetric, corpus.types("relations"))
    if settings.train_on_dev:
        corpus.train, corpus.dev = corpus.train + corpus.dev, []
    run = new_run(settings, corpus, revision)
    return run, {name: run.encode(part, name) for name, part in corpus.splits.items()}


def corpus_of_run(settings: Settings) -> Corpus:
    """The corpus of a run; relations of symmetric types stand in one order."""
    corpus = data.read_corpus(settings.dataset, settings.data_dir, settings.fold, settings.split)
    for sentences in corpus.splits.values():
        sentences[:] = [undirected(sentence, settings.symmetric) for sentence in sentences]
    return corpus


def fit(run: Run, splits: dict[str, list[Encoded]], folder: Path) -> int:
    """Trains for all epochs, or the rest of them, and returns the best one, whose weights are in `folder`.
    The best epoch is the one with the highest mean of entity and strict relation F1 on dev; the last one
    where there is no dev [L14]."""
    settings = run.settings
    train, dev = splits["train"], splits["dev"]
    optimizer, schedule = make_optimizer(run, settings.epochs * math.ceil(len(train) / settings.batch_size))
    identity = identity_of(run, splits)  # what --resume must find unchanged, test included
    run.trained_on = identity["the split train"]
    history = go_on(folder / folders.CHECKPOINT, run.model, optimizer, schedule, run.device, identity)
    if rank() == 0:  # also of a run that goes on: its corpus may have moved
        folders.write_description(folder, run)
    print(introduction(run, method_of(settings), {"train": train, "dev": dev}), flush=True)
    warn(cautions(train, run.tokenizer, settings))
    for epoch in range(len(history) + 1, settings.epochs + 1):
        started = time.time()
        line = {"epoch": epoch, **train_epoch(run, train, epoch, optimizer, schedule)}
        if dev:
            result, _ = evaluate(run, dev)
            for task, table in main_tables(result).items():
                line[f"{task}_f1"] = table[average_of(settings)]["f1"]
        print("  ".join(f"{name} {value:.4g}" for name, value in line.items()), flush=True)
        history.append({**line, "seconds": time.time() - started})
        finish_epoch(folder, run.model, optimizer, schedule, run.device, identity, history)
    return folders.best_line(history)["epoch"]


def make_optimizer(run: Run, steps: int) -> tuple:
    """AdamW with one rate for the encoder and one for the layers above, which rise, then fall [L14] [L34]."""
    from transformers import get_linear_schedule_with_warmup

    settings, groups = run.settings, {}
    for name, weight in run.model.named_parameters():
        rate = settings.lr if name.startswith("encoder.") else settings.head_lr
        decay = settings.weight_decay if weight.ndim > 1 else 0.0  # none for biases and layer norms
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(weight)
    optimizer = torch.optim.AdamW(groups.values(), fused=True)  # one pass over each weight: faster on a CPU
    return optimizer, get_linear_schedule_with_warmup(optimizer, int(settings.warmup * steps), steps)


def train_epoch(run: Run, train: list[Encoded], epoch: int, optimizer, schedule) -> dict:
    """Trains once on each sentence, in a new order and with new negatives; returns the mean losses."""
    settings, sampling = run.settings, sampling_of(run.settings, epoch)
    parts = data.batches_of(train, settings.batch_size, random.Random(f"{settings.seed} {epoch}"))
    run.model.train()
    sums = torch.zeros(3, device=run.device)
    progress = Progress(parts, f"epoch {epoch}")
    for step, batch in enumerate(build_ahead(lambda part: run.training_batch(part, sampling), progress), 1):
        with folders.explain_step(f"epoch {epoch}, step {step}", batch):
            losses = train_step(run, batch)
            descend(run, losses[0], optimizer)
        schedule.step()
        sums += torch.stack(losses).detach()
        if step % 20 == 0:  # not at each step: reading a value waits for the device
            progress.show(step, f"loss {float(sum_over_processes(sums[0].clone())) / step:.4f}")
    means = (sum_over_processes(sums) / len(parts)).tolist()
    return dict(zip(("loss", "span_loss", "relation_loss"), means))


def train_step(run: Run, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """L, L^s and L^r of a batch (eq. 11), the losses in float32.
    Each process weighs its means by its share of the samples, so that the sum over processes is the mean."""
    settings = run.settings
    with run.autocast():
        z_s, z_r = run.model(*batch.inputs, batch.pairs, batch.arguments)
    samples = torch.stack([batch.is_span.sum(), batch.is_pair.sum()])
    shares = samples / sum_over_processes(samples.clone()).clamp(min=1)
    L_s = shares[0] * span_loss(z_s.float(), batch.t_s, batch.is_span)
    L_r = shares[1] * relation_loss(z_r.float(), batch.t_r, batch.is_pair, READINGS[settings.relation_loss])
    return joint_loss(L_s, L_r, settings.span_weight, settings.relation_weight), L_s, L_r


def descend(run: Run, loss: Tensor, optimizer):
    """Takes one step down the clipped gradient. If its norm is not finite, raises FloatingPointError."""
    loss.backward()
    for weight in run.model.parameters():
        if weight.grad is not None:
            sum_over_processes(weight.grad)
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.settings.clip)
    if not norm.isfinite():
        raise FloatingPointError(f"the loss is {float(loss.detach())}, and its gradient is not finite")
    optimizer.step()
    optimizer.zero_grad()


def sampling_of(settings: Settings, epoch: int) -> Sampling:
    """How negatives are drawn in an epoch."""
    s, count = settings, settings.negative_count or None
    return Sampling(s.max_width, s.negative_rate, count, s.pairs_among, s.symmetric, s.seed, epoch)


# -- Command line --------------------------------------------------------------------------------------------


def make_train_parser():
    """The command line: a flag for each field of Settings and Config, and what to do with a saved run."""
    parser = make_parser(__doc__, "python train.py [--flag value ...]; --help lists the flags")
    add_actions(parser)
    add_flags(parser.add_argument_group("the run"), Settings, OTHER_DEFAULTS)
    add_flags(parser.add_argument_group("the model"), Config, OTHER_DEFAULTS)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status of `run_program`."""
    return run_program(lambda: run_command(vars(make_train_parser().parse_args(arguments))))


def run_command(given: dict):
    """Trains, or does what is asked for with a saved run."""
    encoders.silence_transformers()
    actions = take_actions(given)
    check_values(Settings, given, RANGES)
    join_processes()
    if "load" in actions:
        use_run(actions, given)
    elif "resume" in actions:
        resume(actions["resume"], given)
    else:
        train(settings_of(**given))


def resume(folder: str, given: dict) -> dict:
    """Goes on with a run from its last checkpoint. The weights end up as without the stop."""
    folders.check_unfinished(folder)
    with explain_errors(Path(folder) / "config.json", "what `python train.py` writes"):
        description = folders.read_description(Path(folder))
        settings = make_settings({**description["settings"], **given})
    return train(settings, folder, description.get("encoder_revision", ""))


def use_run(actions: dict, given: dict):
    """Predicts with a saved run, or scores it, or both."""
    run = load(actions["load"], given.pop("device", "auto"))
    refuse_idle(given, idle_flags(run.settings))
    change_settings(run.settings, given)
    blocks = predict_inputs(run, actions)
    if "evaluate" in actions:
        corpus = corpus_of_run(run.settings)  # now, as an error should come before all work
        if "dataset" not in given:
            warn(change_cautions(run, corpus))
        blocks = itertools.chain(blocks, score_split(run, corpus, actions["format"]))
    pictures.print_blocks(blocks, actions["format"], actions["load"])


def score_split(run: Run, corpus: Corpus, form: str):
    """Scores the split that the settings name, when iterated: after the predictions.
    In text it prints the scores and yields nothing, else it yields the sentences."""
    gold = corpus.splits[run.settings.eval_split]
    result, predicted = evaluate(run, run.encode(gold, run.settings.eval_split))
    if form == "text":
        print(table_of(run.settings, result))
    else:
        yield list(zip(predicted, gold))


def predict_inputs(run: Run, actions: dict):
    """(predicted sentence, its gold or None) of each input, 512 at a time: a file may have any length."""
    inputs = data.read_inputs(actions.get("predict", []), run.rule)
    shows_results = actions["format"] in pictures.STREAMED and sys.stdout.isatty()
    progress = Progress(None, "sentences", silent=shows_results)
    while block := list(itertools.islice(inputs, 512)):
        encoded = run.encode([sentence for sentence, _ in block])
        if "given_entities" in actions and not any(e.sentence.entities for e in encoded):
            warn(["--given-entities: no sentence here has entities; only records of a JSON file can"])
        predicted = run.annotate(encoded, "given_entities" in actions)
        yield list(zip(predicted, [gold and undirected(gold, run.settings.symmetric) for _, gold in block]))
        progress.bar.update(len(block))


if __name__ == "__main__":
    sys.exit(main())
