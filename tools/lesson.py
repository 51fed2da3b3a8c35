"""The models of `tutorial.ipynb`: what they learned, over all test sentences and several seeds.

    python -m tools.lesson --seeds 0 1 2 3 4    trains them all, a quarter of an hour; writes docs/lesson.json
    python -m tools.lesson --execute            runs the notebook, and notes in it which code made its outputs
    python -m tools.lesson --solutions FILE     writes the notebook with our answers, and beside it a rubric

A record is what one training run found: its curves, scores, and rates over the test sentences."""

import contextlib
import copy
import functools
import hashlib
import inspect
import io
import itertools
import json
import statistics
import sys
import tempfile
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import torch
from torch.utils.benchmark import Timer

import data
import spanrel
import train
from corpora import toy
from support.errors import InputError, run_program
from support.files import read_text, write_file
from support.flags import make_parser
from support.scores import main_tables

HERE = Path(__file__).resolve().parent.parent
STORED, NOTEBOOK = HERE / "docs/lesson.json", HERE / "tutorial.ipynb"
EPOCHS = 8
FLAGS = {  # of each model that the lesson trains
    "multihead": {},
    "dot": {"attention": "dot"},
    "general": {"attention": "general"},
    "additive": {"attention": "additive"},
    "swapped": {"span_weight": 0.6, "relation_weight": 0.4},
    "fast": {"lr": 1e-2, "head_lr": 1e-2},
    "unmasked": {},
}
RUNNING = "Gemcitabine-induced pulmonary toxicity is usually a dramatic condition."  # the running sentence
VERDICTS = {*toy.PROVES, *toy.REFUTES}
NOUNS = {*toy.SYMPTOMS, *toy.FORMS}
SHOWN = {"compound": ["2b"], "verdict": ["3", "8"], "counted": ["7"]}  # equations, by the kind of sentence
PHENOMENA = {"span": "entity", "local": "relation", "sentence": "relation"}  # what each one is measured by
ABLATED = {  # what `--ablate` takes away, by its label
    "full model": [],
    "− span-specific": ["span-specific"],
    "− T_s": ["span-sentence"],
    "− F_r": ["local"],
    "− T_r": ["relation-sentence"],
    "− T_s − T_r": ["span-sentence", "relation-sentence"],
}


# -- What a cell prints --------------------------------------------------------------------------------------


def signature(function):
    """Prints the name of a function, its arguments with their shapes, and the shape of its result."""
    inside = inspect.signature(function)
    print(f"{inspect.unwrap(function).__name__}(")
    for name, parameter in inside.parameters.items():
        print(f"    {name}: {getattr(parameter.annotation, '__name__', parameter.annotation)}")
    print(f") -> {getattr(inside.return_annotation, '__name__', '')}")


def body(thing):
    """Prints the source of a function."""
    print(textwrap.dedent(inspect.getsource(inspect.unwrap(thing))))


def numbers(tensor, most: int = 4):
    """Prints the shape of a tensor and its first numbers."""
    first = [round(number, 3) for number in tensor.flatten()[:most].tolist()]
    print(f"shape {tuple(tensor.shape)}, begins {first}")


# -- Where attentions look -----------------------------------------------------------------------------------


@dataclass
class Look:
    """The weights of a sentence's gold spans, and of its first pair, over its wordpieces."""

    pieces: list[str]
    starts: list[int]  # the first wordpiece of each word
    weights: dict[str, torch.Tensor]  # by equation; a row for each span, or one row for the pair


def look(run: train.Run, sentences: list[data.Sentence]) -> list[Look]:
    """α of (2b) and the weights of (3) of the gold spans, and those of (7) and (8) of a pair of them.
    The pair is the first relation's, else the first and the last span. Heads are averaged."""
    model = run.model.eval()
    batch = run.batch([gold_example(encoded) for encoded in run.encode(sentences)])
    N = batch.input_ids.shape[1]
    with torch.no_grad():
        X = model.embed(batch.input_ids, batch.attention_mask, batch.is_token)
        V = spanrel.token_scores(X, model.mlp)
        alpha = spanrel.token_weights(V, spanrel.mask_inside(batch.spans, N))
        F_s = spanrel.span_specific(alpha, X)
        R_s = model.represent_spans(X, batch.is_token, batch.spans, batch.widths)
        H_r = spanrel.relation_tuple(R_s, batch.pairs, model.ffnn_pair)
        B_S = batch.is_token[:, None]
        B_c = spanrel.mask_between(batch.spans, batch.pairs, N)
        weights = {"2b": alpha}
        weights["3"] = model.attention_s.weights(F_s, X, B_S).mean(1)
        weights["7"] = model.attention_c.weights(H_r, X, B_c).mean(1)
        weights["8"] = model.attention_S.weights(H_r, X, B_S).mean(1)
    looks = []
    for b, example in enumerate(batch.examples):
        ids = example.encoded.input_ids
        rows = {"2b": len(example.spans), "3": len(example.spans), "7": 1, "8": 1}
        own = {number: weights[number][b, : rows[number], : len(ids)] for number in rows}
        looks.append(Look(run.tokenizer.convert_ids_to_tokens(ids), example.encoded.starts, own))
    return looks


def gold_example(encoded: data.Encoded) -> data.Example:
    """The gold spans of a sentence, and one pair of them."""
    entities = encoded.sentence.entities
    spans = [(entity.start, entity.end) for entity in entities]
    pair = (0, len(spans) - 1)
    if encoded.sentence.relations:
        relation = encoded.sentence.relations[0]
        pair = (entities.index(relation.head), entities.index(relation.tail))
    return data.Example(encoded, spans, [0] * len(spans), [pair], [{0}], len(spans))


def word_index(sentence: data.Sentence, words: set[str]) -> list[int]:
    """Which words of a sentence are among some words."""
    return [k for k, word in enumerate(sentence.words) if word.lower() in words]


def verdict_sentences(sentences: list[data.Sentence]) -> list[data.Sentence]:
    """Those in which one word decides whether the two entities are related."""
    return [s for s in sentences if s.phenomenon == "sentence" and word_index(s, VERDICTS)]


def compound_sentences(sentences: list[data.Sentence]) -> list[data.Sentence]:
    """Those whose only entity is a compound of two nouns, of which the second one decides its type."""
    return [s for s in sentences if s.phenomenon == "span"]


def counted_sentences(sentences: list[data.Sentence]) -> list[data.Sentence]:
    """Those with a relation that most of the words between decide."""
    return [s for s in sentences if s.phenomenon == "local" and s.relations]


def shown_sentences(sentences: list[data.Sentence]) -> dict[str, data.Sentence]:
    """The sentences whose weights the lesson shows, by what they are for."""
    wide = [s for s in compound_sentences(sentences) if s.entities[0].end - s.entities[0].start == 3]
    return {
        "compound": wide[0],
        "verdict": verdict_sentences(sentences)[0],
        "counted": counted_sentences(sentences)[0],
    }


def rates(run: train.Run, sentences: list[data.Sentence]) -> dict[str, float]:
    """What the attentions of a model do, over all sentences of a kind, in percent or in words."""
    measured = {"2b": [], "3": [], "8": [], "7 words": []}
    compounds = compound_sentences(sentences)
    for sentence, seen in zip(compounds, look(run, compounds)):
        _, head_noun = word_index(sentence, NOUNS)
        measured["2b"].append(100.0 * (seen.weights["2b"][0].argmax() == seen.starts[head_noun]))
    verdicts = verdict_sentences(sentences)
    for sentence, seen in zip(verdicts, look(run, verdicts)):
        decides = seen.starts[word_index(sentence, VERDICTS)[0]]
        for number in ("3", "8"):
            for row in seen.weights[number]:
                measured[number].append(100.0 * (row.argmax() == decides))
    counted = counted_sentences(sentences)
    for seen in look(run, counted):
        (row,) = seen.weights["7"]
        measured["7 words"].append(torch.special.entr(row).sum().exp())
    return {name: round(statistics.mean(map(float, values)), 1) for name, values in measured.items()}


# -- Training ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def in_place(**functions):
    """Within it the model and its training call these functions in the place of ours with the same name."""
    with contextlib.ExitStack() as stack:
        for module, name in itertools.product((spanrel, data, train), functions):
            if hasattr(module, name):
                stack.enter_context(patch.object(module, name, functions[name]))
        yield


def softmax_of_all(score, mask):
    """`masked_softmax`, but without its mask."""
    return score.softmax(-1)


def sparing(answers: dict) -> dict:
    """The answers, spared what no exercise mentions: where there is no span or no pair, ours answer."""
    spared = {}
    for name, answer in answers.items():
        ours = next(getattr(module, name) for module in (spanrel, data, train) if hasattr(module, name))
        spared[name] = functools.partial(answer_or_ours, answer, ours) if callable(answer) else answer
    return spared


def answer_or_ours(answer, ours, *inputs):
    """What an answer makes of inputs, or ours if one of them is empty."""
    is_empty = any(isinstance(value, torch.Tensor) and not value.numel() for value in inputs)
    return ours(*inputs) if is_empty else answer(*inputs)


FUNCTIONS = {"unmasked": {"masked_softmax": softmax_of_all}}  # of the models that are not all ours


class EpochBar(io.StringIO):
    """Takes what `train.fit` prints, and shows a bar of its epochs in the notebook until the last is over."""

    def __init__(self):
        from IPython.display import display  # only a notebook has it

        super().__init__()
        self.over = 0
        self.shown = display({"text/html": "", "text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str) -> int:
        """Moves the bar when an epoch is over."""
        if text.startswith(f"epoch {self.over + 1}  "):
            self.over += 1
            bar, words = f'<progress max="{EPOCHS}" value="{self.over}"></progress>', f"epoch {self.over}"
            is_last = self.over == EPOCHS
            shown = {"text/html": "" if is_last else bar, "text/plain": "" if is_last else words}
            self.shown.update(shown, raw=True)
        return super().write(text)


def settings_of(name: str, seed: int) -> train.Settings:
    """The settings of one of the lesson's models."""
    return train.settings_of(seed=seed, epochs=EPOCHS, device="cpu", **FLAGS[name])


@dataclass
class Trained:
    """A model of the lesson and what was found of it. Where the record was stored, `run` is None."""

    record: dict
    run: train.Run | None = None
    encoded: list[data.Encoded] | None = None  # the test sentences


def train_model(name: str, seed: int, output=None, **functions) -> Trained:
    """Trains one of the lesson's models, and scores it on the test sentences.
    `functions` stand in the place of ours; `output` takes what training prints."""
    with in_place(**FUNCTIONS.get(name, {}), **sparing(functions)):
        run, splits = train.begin(settings_of(name, seed))
        test = [encoded.sentence for encoded in splits["test"]]
        shown = list(shown_sentences(test).values())
        record = {"model": name, "seed": seed, "flags": train.flags_of(run.settings)}
        record["before"] = rates(run, test)
        looks_before = look(run, shown)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(output or io.StringIO()):
            train.fit(run, splits, Path(folder))
            lines = (Path(folder) / "history.jsonl").read_text().splitlines()
        record["history"] = [history_line(json.loads(line)) for line in lines]
        result, _ = train.evaluate(run, splits["test"])
        record["f1"] = f1_of(result)
        record["after"] = rates(run, test)
        record["shown"] = shown_weights(looks_before, look(run, shown))
        if name == "multihead":
            (read,) = run.predict([RUNNING])
            record["read"] = read.to_record()
            record["result"] = rounded(result)
            bare = replace(run, model=copy.deepcopy(run.model))
            bare.model.width.weight.data.zero_()  # W of (4) is 0 then
            record["without width"] = f1_of(train.evaluate(bare, splits["test"])[0])
    return Trained(record, run, splits["test"])


def shown_weights(before: list[Look], after: list[Look]) -> dict[str, dict]:
    """The wordpieces of each shown sentence, and the weights of its equations before and after training."""
    shown = {}
    for (kind, equations), *looks in zip(SHOWN.items(), before, after):
        rows = {}
        for number in equations:
            rows[number] = [rounded(seen.weights[number][0].tolist()) for seen in looks]
        shown[kind] = {"pieces": looks[0].pieces, "weights": rows}
    return shown


def history_line(line: dict) -> dict:
    """What the curves show of an epoch."""
    names = ("epoch", "loss", "entity_f1", "relation_f1")
    return {name: round(line[name], 4) for name in names}


def rounded(value, digits: int = 3):
    """The same with numbers rounded, in lists and dicts, too."""
    if isinstance(value, dict):
        return {name: rounded(part, digits) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part, digits) for part in value]
    return round(value, digits) if isinstance(value, float) else value


def f1_of(result: dict) -> dict[str, float]:
    """F1 of entities and relations, and of what each phenomenon of the toy corpus is made for."""
    f1 = {task: table["micro"]["f1"] for task, table in main_tables(result).items()}
    for phenomenon, task in PHENOMENA.items():
        f1[phenomenon] = main_tables(result["phenomena"][phenomenon])[task]["micro"]["f1"]
    return rounded(f1, 1)


def scores_with(run: train.Run, represent_spans, encoded: list[data.Encoded]) -> dict:
    """Scores of a run whose R_s come from `represent_spans(model, X, is_token, spans, widths)`."""
    other = copy.copy(run)
    other.model = copy.copy(run.model)  # with the same weights
    other.model.represent_spans = functools.partial(represent_spans, run.model)
    return train.evaluate(other, encoded)[0]


def train_or_read(name: str, seed: int, quick: bool) -> Trained:
    """One of the lesson's models: trained now, or, if `quick`, what is stored of it."""
    if not quick:
        trained = train_model(name, seed, EpochBar())
        print(f"{name}: trained for {EPOCHS} epochs; F1 on test: {in_words(trained.record['f1'])}")
        return trained
    for record in stored_records():
        if (record["model"], record["seed"]) == (name, seed):
            print(f"{name}: read from docs/{STORED.name}; F1 on test: {in_words(record['f1'])}")
            return Trained(record)
    raise InputError(f"docs/{STORED.name} has no model {name} of seed {seed}")


def in_words(f1: dict[str, float]) -> str:
    """Scores in a line, such as "entity 95.2, relation 80.5"."""
    return ", ".join(f"{name} {value:.1f}" for name, value in f1.items())


def layer_inputs(B: int = 8, N: int = 40, D: int = 384):
    """Random inputs of the first layer of (5), T_s, F_s, X, W, spans and the layer, for all spans of
    `B` sentences with `N` wordpieces, and a width of `D`: as with a small pretrained encoder."""
    spans = torch.tensor(data.enumerate_spans(N, 10)).expand(B, -1, -1)
    T_s, F_s = torch.randn(2, B, spans.shape[1], D)
    X, W = torch.randn(B, N, D), torch.randn(B, spans.shape[1], 50)
    return T_s, F_s, X, W, spans, torch.nn.Linear(4 * D + 50, 192)


def layer_of_the_whole(T_s, F_s, X, W, spans, linear):
    """The first layer of (5) as the paper has it, of R_s."""
    return linear(spanrel.span_representation(T_s, F_s, spanrel.span_ends(X, spans), W))


@torch.no_grad()
def milliseconds(function, *inputs) -> float:
    """The median time of a call."""
    timer = Timer("function(*inputs)", globals={"function": function, "inputs": inputs})
    return 1000 * timer.blocked_autorange(min_run_time=1).median


# -- What is said of the models ------------------------------------------------------------------------------


@functools.lru_cache(1)
def stored_records() -> list[dict]:
    """The records of docs/lesson.json."""
    return json.loads(read_text(STORED))


def values(name: str, group: str, figure: str) -> list[float]:
    """One figure of a model's records, a value for each stored seed."""
    return [record[group][figure] for record in stored_records() if record["model"] == name]


def seeds_table(title: str, records: dict[str, dict], group: str, figure: str) -> str:
    """A figure in this run, and over the stored seeds. A line for each model."""
    seeds = len(values(next(iter(records)), group, figure))
    lines = [f"{title:44} this run   {seeds} seeds: mean ± sd    lowest to highest"]
    for name, record in records.items():
        live, stored = record[group][figure], values(name, group, figure)
        mean, spread = statistics.mean(stored), statistics.stdev(stored)
        figures = f"{live:8.1f} {mean:15.1f} ± {spread:4.1f} {min(stored):13.1f} to {max(stored):.1f}"
        lines.append(f"    {name:40} {figures}")
    return "\n".join(lines)


def best_in(names: list[str], group: str, figure: str) -> str:
    """In how many of the stored seeds each model has the highest figure."""
    columns = {name: values(name, group, figure) for name in names}
    seeds = len(next(iter(columns.values())))
    wins = dict.fromkeys(names, 0)
    for k in range(seeds):
        best = max(names, key=lambda name: columns[name][k])
        wins[best] += 1
    parts = [f"{name} in {count}" for name, count in wins.items() if count]
    return f"the highest of {seeds} seeds: {', '.join(parts)}"


def difference(title: str, live: tuple[float, float], stored: tuple[list, list]) -> str:
    """How one figure differs from another with the same seed: in this run, and over the stored seeds."""
    steps = [changed - usual for changed, usual in zip(*stored)]
    lower = sum(step < 0 for step in steps)
    average = f"{statistics.mean(steps):+.1f} on average ({min(steps):+.1f} to {max(steps):+.1f})"
    stored_runs = f"over {len(steps)} stored seeds {average}, below 0 in {lower} of them"
    return f"{title}: {live[0] - live[1]:+.1f} in this run; {stored_runs}"


def ablation_scores() -> dict[str, dict[str, list[float]]]:
    """F1 over seeds for each phenomenon and each model of `ABLATED`, from docs/results.json."""
    scores = {}
    label_of = {" ".join(parts): label for label, parts in ABLATED.items()}
    for record in json.loads(read_text(HERE / "docs/results.json")):
        if not record["flags"].keys() <= {"seed", "ablate"}:  # another corpus or encoder
            continue
        label = label_of.get(" ".join(record["flags"].get("ablate", [])))
        for phenomenon, task in PHENOMENA.items():
            if label:
                f1 = main_tables(record["phenomena"][phenomenon])[task]["micro"]["f1"]
                scores.setdefault(phenomenon, {}).setdefault(label, []).append(f1)
    return scores


# -- The command ---------------------------------------------------------------------------------------------


def code_digest(cells: list[dict]) -> str:
    """What identifies the code of a notebook."""
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()[:16]


def execute_notebook(file: Path = NOTEBOOK):
    """Runs a notebook from top to bottom, in its place. Its metadata then names the code of its outputs."""
    import nbclient
    import nbformat

    notebook = nbformat.read(file, as_version=4)
    folder = {"metadata": {"path": str(HERE)}}
    nbclient.NotebookClient(
        notebook, timeout=1200, record_timing=False, coalesce_streams=True, resources=folder
    ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # its times
    notebook.metadata["outputs_of_code"] = code_digest(notebook.cells)
    write_file(file, nbformat.writes(notebook).rstrip("\n").encode() + b"\n")


def write_records(seeds: list[int], file: Path = STORED):
    """Trains each model of the lesson with each seed, and writes what was found, a record a line.
    The records of other seeds stay."""
    stored = json.loads(read_text(file)) if file.exists() else []
    records = {(record["seed"], record["model"]): record for record in stored}
    for seed, name in itertools.product(seeds, FLAGS):
        records[seed, name] = train_model(name, seed).record
        print(f"seed {seed}, {name}: {in_words(records[seed, name]['f1'])}", flush=True)
        in_order = sorted(records.values(), key=lambda record: record["seed"])
        lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in in_order)
        write_file(file, f"[\n{lines}\n]\n".encode())


def main(arguments: list[str] | None = None) -> int:
    """Trains the lesson's models, executes the notebook, or writes its solutions."""
    usage = "python -m tools.lesson --seeds SEED [SEED ...] | --execute | --solutions FILE [--hidden]"
    parser = make_parser(__doc__, usage)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--seeds", metavar="SEED", nargs="+", type=int, help="train with these seeds")
    action.add_argument("--execute", action="store_true", help="run the notebook from top to bottom")
    action.add_argument("--solutions", metavar="FILE", help="write a solved notebook, and a rubric beside it")
    parser.add_argument("--hidden", action="store_true", help="with --solutions: checks that nbgrader hides")

    def act():
        given = parser.parse_args(arguments)
        if "hidden" in given and "solutions" not in given:
            raise InputError("--hidden goes with --solutions FILE")
        if "seeds" in given:
            write_records(given.seeds)
        elif "execute" in given:
            execute_notebook()
        else:
            from tools.solutions import write_solutions  # the notebook does without, if checks are hidden

            write_solutions(NOTEBOOK, Path(given.solutions), "hidden" in given)

    return run_program(act)


if __name__ == "__main__":
    sys.exit(main())
