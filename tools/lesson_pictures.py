"""The pictures of `tutorial.ipynb`, as small PNGs with a text for those who do not see them."""

import io
import textwrap
from base64 import b64encode
from html import escape

import matplotlib.pyplot as plt
import torch
from IPython.display import display
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from tools.lesson import ABLATED, PHENOMENA

plt.rcParams.update({"font.size": 9, "figure.constrained_layout.use": True})
DPI, COLOURS = 80, 16  # few, so that the notebook stays small
LINES = [("#000000", "-"), ("#0072b2", "--"), ("#d55e00", "-."), ("#009e73", ":")]  # told apart in print, too
CURVES = {"loss": "L of (11), training", "entity_f1": "entity F1, dev", "relation_f1": "relation F1, dev"}
HUES = {"Drug": "#f2c744", "Adverse-Effect": "#7cc7f0"}
BARS = [("#555555", ""), ("#e69f00", "//"), ("#ffffff", "||"), ("#56b4e9", ".."), ("#ffffff", "--")]
BARS += [("#ffffff", "xx")]


def show_figure(fig, alt: str):
    """Displays a figure as a PNG. `alt` says what it shows.
    It is there as an HTML image, which has this text, and bare, for viewers that drop images in HTML."""
    drawn, small = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, dpi=DPI)
    plt.close(fig)
    image = Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(small, "PNG", optimize=True)
    png = b64encode(small.getvalue()).decode()
    html = f'<img alt="{escape(alt)}" src="data:image/png;base64,{png}">'
    display({"text/html": html, "image/png": png, "text/plain": alt}, raw=True)


def draw_heat(ax, rows, labels: list[str], words: list[str], title: str = "", with_bar=True, most=None):
    """Weights as shades of grey, 0 white and `most` black (by default their maximum), a row for each label;
    with a bar that says which shade is what."""
    rows = torch.as_tensor(rows).float().numpy()
    most = most or max(1e-9, float(rows.max()))
    shades = ax.imshow(rows, cmap="Greys", vmin=0, vmax=most, aspect="auto")
    ax.set_xticks(range(len(words)), words, rotation=60, ha="right")
    ax.set_yticks(range(len(labels)), labels)
    ax.set_title(title, loc="left")
    if with_bar:
        ax.figure.colorbar(shades, ax=ax, fraction=0.03, pad=0.01)


def show_heat(rows, labels: list[str], words: list[str], title: str, alt: str, height: float = 2.5):
    """One picture of weights, or of masks, over the words of a sentence."""
    fig, ax = plt.subplots(figsize=(8, height))
    draw_heat(ax, rows, labels, words, title)
    show_figure(fig, alt)


def show_lattice(sentence, spans: list[tuple[int, int]]):
    """The spans of a sentence, a row for each first word, a column for each last one; entities are named."""
    words = sentence.words
    grid = 0.25 * lattice_of(spans, (len(words), len(words)))
    fig, ax = plt.subplots(figsize=(6.4, 4.4))
    draw_heat(ax, grid, words, words, f"{len(spans)} spans of {len(words)} words", with_bar=False, most=1.0)
    ax.set_xlabel("last word")
    ax.set_ylabel("first word")
    for entity in sentence.entities:
        ax.scatter(entity.end - 1, entity.start, marker="s", color="#0072b2", zorder=2)
        ax.annotate(entity.type, (entity.end - 1, entity.start), xytext=(8, -3), textcoords="offset points")
    alt = f"A triangle of {len(spans)} grey squares, one for each span; the gold entities are marked in it."
    show_figure(fig, alt)


def show_beside(yours, expected, labels: list[str], words: list[str]):
    """What an answer makes, beside what is expected, both from 0 to 1; spans are drawn as a lattice.
    What cannot be drawn is shown in words."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 1.2 + 0.22 * len(labels)))
    shape, titles = (len(labels), len(words)), ["yours", "expected"]
    if are_spans(yours) and yours != expected and sorted(yours) == sorted(expected):
        titles[0] = "yours: the same in another order"
    for ax, title, result in zip(axes, titles, (yours, expected)):
        if isinstance(result, list):
            result = lattice_of(result, shape) if are_spans(result) else f"no spans: {result}"[:200]
        if isinstance(result, torch.Tensor) and result.shape[-2:] == shape:
            draw_heat(ax, result.detach().reshape(-1, *shape)[0], labels, words, title, most=1.0)
            continue
        if isinstance(result, torch.Tensor):
            result = f"a tensor of shape {[*result.shape]}"
        ax.text(0, 0.5, textwrap.fill(str(result), 60), va="center", fontsize=8)
        ax.set_title(title, loc="left")
        ax.axis("off")
    show_figure(fig, "Two pictures of the same kind: what your function makes, and what is expected.")


def are_spans(answer) -> bool:
    """Whether an answer is a list of pairs of whole numbers."""
    if not isinstance(answer, list):
        return False
    return all(isinstance(span, tuple) and [*map(type, span)] == [int, int] for span in answer)


def lattice_of(spans: list[tuple[int, int]], shape: tuple[int, int]):
    """Spans as a grid, a row for each first word, a column for each last one. In words, if one is outside."""
    grid = torch.zeros(shape)
    for start, end in spans:
        if not (0 <= start < end <= shape[1]):
            return f"there is no span ({start}, {end}) in {shape[1]} words"
        grid[start, end - 1] = 1.0
    return grid


def show_sentence(sentence):
    """A sentence of one line: entities on coloured ground, relations as arrows from head to tail."""
    fig, ax = plt.subplots(figsize=(0.088 * (len(sentence.text) + 2), 1.3))
    for word, (start, end) in zip(sentence.words, sentence.offsets):
        ax.text((start + end) / 2, 0, word, ha="center", va="center", family="monospace", fontsize=10)
    for entity in sentence.entities:
        start, end = sentence.chars(entity)
        box = Rectangle((start, -0.5), end - start, 1, color=HUES.get(entity.type, "#8fd3a8"), zorder=0)
        ax.add_patch(box)
        ax.text((start + end) / 2, -0.9, entity.type, ha="center", va="center", fontsize=8)
    for relation in sentence.relations:
        head, tail = [sum(sentence.chars(entity)) / 2 for entity in (relation.head, relation.tail)]
        bend = 0.2 if tail < head else -0.2
        arrow = {"arrowstyle": "->", "connectionstyle": f"arc3,rad={bend}"}
        ax.annotate("", (tail, 0.5), (head, 0.5), arrowprops=arrow)
        ax.text((head + tail) / 2, 1.75, relation.type, ha="center", va="bottom", fontsize=8)
    ax.set_xlim(-1, len(sentence.text) + 1)
    ax.set_ylim(-1.2, 2.6)
    ax.axis("off")
    entities = [sentence.text[slice(*sentence.chars(e))] + f" is {e.type}" for e in sentence.entities]
    show_figure(fig, f"{sentence.text} Marked: {'; '.join(entities)}; {len(sentence.relations)} relation(s).")


def show_curves(histories: dict[str, list[dict]], alt: str):
    """Loss and scores of each epoch, a line for each model."""
    fig, axes = plt.subplots(1, 3, figsize=(9, 2.6))
    for (label, epochs), (colour, line) in zip(histories.items(), LINES):
        for ax, (score, title) in zip(axes, CURVES.items()):
            numbers = [epoch["epoch"] for epoch in epochs]
            ax.plot(numbers, [epoch[score] for epoch in epochs], line, color=colour, label=label)
            ax.set_title(title, loc="left")
            ax.set_xlabel("epoch")
    axes[0].set_yscale("log")
    axes[1].legend()
    show_figure(fig, alt)


def show_weights(records: dict[str, dict], number: str, kind: str, height: float = 3.0):
    """One equation's weights over the words of a sentence, for each model before and after training."""
    labels, rows = [], []
    for name, record in records.items():
        before, after = record["shown"][kind]["weights"][number]
        labels += [f"{name}, before", f"{name}, after"]
        rows += [before, after]
    pieces = record["shown"][kind]["pieces"]
    alt = f"Weights of ({number}) over the wordpieces of one sentence, for {', '.join(records)}: "
    alt += "before training, and after it."
    show_heat(rows, labels, pieces, f"weights of ({number})", alt, height)


def show_ablations(scores: dict[str, dict[str, list[float]]]):
    """Mean and standard deviation of F1 for each phenomenon, a bar for each model of Tables 3 and 4."""
    fig, axes = plt.subplots(1, 3, figsize=(9.5, 3.2), sharey=True)
    for ax, (phenomenon, task) in zip(axes, PHENOMENA.items()):
        for k, (label, (colour, hatch)) in enumerate(zip(ABLATED, BARS)):
            f1 = torch.tensor(scores[phenomenon][label])
            spread = f1.std().item()
            ax.bar(k, f1.mean(), yerr=spread, capsize=4, color=colour, edgecolor="black", hatch=hatch)
            ax.text(k, f1.mean() + spread + 2, f"{f1.mean():.0f}", ha="center")
        ax.set_xticks(range(len(ABLATED)), list(ABLATED), rotation=40, ha="right")
        ax.set_title(f"{phenomenon}: {task} F1", loc="left")
        ax.set_ylim(0, 115)
    show_figure(fig, "Bars of F1 for each phenomenon and each model; the table below has the numbers.")


# -- The map -------------------------------------------------------------------------------------------------

BOXES = {  # text, centre; a box is 2.2 wide
    "X": ("B_S = [X_0 … X_n]\nthe encoder", 4.8, 7),
    "H_s": ("(1) H_s: its ends", 1, 5.6),
    "F_s": ("(2) F_s: its words,\nweighed by α", 3.4, 5.6),
    "T_s": ("(3) T_s: F_s attends\nto the sentence", 3.4, 4.3),
    "W": ("W: its width", 1, 4.3),
    "R_s": ("(4) R_s", 2.2, 3.1),
    "y_s": ("(5) y_s → filtration:\nthe entities E", 2.2, 1.9),
    "H_r": ("(6) H_r: both spans", 7.4, 5.6),
    "F_r": ("(7) F_r: H_r attends\nto the words between", 6.2, 4.3),
    "T_r": ("(8) T_r: H_r attends\nto the sentence", 8.6, 4.3),
    "R_r": ("(9) R_r", 7.4, 3.1),
    "y_r": ("(10) y_r → filtration:\nthe relations", 7.4, 1.9),
    "L": ("(11) L = 0.4 L^s + 0.6 L^r", 4.6, 0.7),
}
ARROWS = "X-H_s X-F_s F_s-T_s H_s-R_s T_s-R_s W-R_s R_s-y_s R_s-H_r "
ARROWS += "H_r-F_r H_r-T_r F_r-R_r T_r-R_r R_r-y_r y_s-L y_r-L"


def show_map():
    """The whole model: a box for each equation, with its number."""
    fig, ax = plt.subplots(figsize=(8.6, 5.2))
    for arrow in ARROWS.split():
        (_, x, y), (_, to_x, to_y) = [BOXES[name] for name in arrow.split("-")]
        start, end = (x, y - 0.4), (to_x, to_y + 0.4)
        if arrow == "R_s-H_r":  # the only one that goes up: between the two halves
            ax.plot([x + 1.13, 4.8, 4.8], [y, y, to_y], color="#555555", lw=1)
            start, end = (4.8, to_y), (to_x - 1.13, to_y)
        if arrow == "H_s-R_s":  # past the box of W
            start, end = (x + 1.15, y - 0.4), (to_x, to_y + 0.4)
        ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "#555555"})
    for name, (text, x, y) in BOXES.items():
        colour = {"s": "#f4e6b8", "W": "#f4e6b8", "r": "#cfe7f7"}.get(name[-1], "#eeeeee")
        box = FancyBboxPatch((x - 1.1, y - 0.38), 2.2, 0.76, boxstyle="round,pad=0.03", fc=colour)
        ax.add_patch(box)
        ax.text(x, y, text, ha="center", va="center", fontsize=8.5)
    ax.text(2.2, 6.55, "§3.1  each span s", ha="center", fontsize=10)
    ax.text(7.7, 6.55, "§3.2  each pair ⟨s_1, s_2⟩ of E ⊗ E", ha="center", fontsize=10)
    ax.set_xlim(-0.3, 9.9)
    ax.set_ylim(0.2, 7.5)
    ax.axis("off")
    show_figure(fig, "The model as boxes, one for each equation; the list of equations above says the same.")
