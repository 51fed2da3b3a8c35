"""Sentences with their entities and relations, as text for a terminal, as an SVG picture, as an HTML page."""

import json
import sys
from base64 import b64encode
from collections import defaultdict, namedtuple
from dataclasses import dataclass
from html import escape as escape_html
from unicodedata import combining, east_asian_width

from support.errors import InputError, printable

FORMATS = ("text", "json", "jsonl", "html")
STREAMED = ("text", "jsonl")  # they are printed as they come
MOST_SHOWN = 100_000  # sentences in one page or list: they are all kept before it is printed


def escape(text: str) -> str:
    """A text for a page, without characters that no page may have; its lines stay."""
    return escape_html("\n".join(map(printable, text.split("\n"))))


@dataclass(frozen=True)
class Mark:
    """What is known of a predicted entity or relation: its sign, and how it is drawn."""

    sign: str
    terminal: int  # the colour in a terminal
    colour: str
    dashes: str


RIGHT = Mark("=", 32, "#222", "")
WRONG = Mark("+", 31, "#c03a00", "5 3")
MISSED = Mark("-", 33, "#0060a8", "1 3")
UNKNOWN = Mark(" ", 0, "#222", "")  # where gold is not known


def marked(items: list, gold: list | None) -> list[tuple]:
    """(mark, item) of each item, then of those that only gold has."""
    if gold is None:
        return [(UNKNOWN, item) for item in items]
    right, predicted = set(gold), set(items)
    pairs = [(RIGHT if item in right else WRONG, item) for item in items]
    return pairs + [(MISSED, item) for item in gold if item not in predicted]


def describe(sentence, item) -> str:
    """Kind, type, score and place of an entity or a relation."""
    score = "" if item.score is None else f"{item.score:.2f}"
    kind, entities = ("relation", [item.head, item.tail]) if hasattr(item, "head") else ("entity", [item])
    places = []
    for entity in entities:
        start, end = sentence.chars(entity)
        places.append(f'"{sentence.text[start:end]}" [{start}, {end})')
    return printable(f"{kind:8}  {item.type:16} {score:5} {' -> '.join(places)}")


def show(sentence, gold=None, colour: bool = False) -> str:
    """A sentence as text, a line per entity or relation; where gold is known: = right, + wrong, - missed."""
    marks = marked(sentence.entities, gold and gold.entities)
    marks += marked(sentence.relations, gold and gold.relations)
    lines = [f"\n{printable(sentence.text)}"]
    for mark, item in marks:
        line = f"  {mark.sign} {describe(sentence, item)}"
        lines.append(f"\033[{mark.terminal}m{line}\033[0m" if colour else line)
    return "\n".join(lines)


# -- The picture ---------------------------------------------------------------------------------------------

MOST_DRAWN = 1000  # entities, and relations; to place a line takes a look at all others of its row
CELL, WIDTH = 8, 800  # pixels: of a character, of a row of words
LANE = 18  # pixels between two arcs, or two brackets, that lie above each other
HUES = ("#f2c744", "#7cc7f0", "#8fd3a8", "#f0a68c", "#c9b6ec", "#d9d36a", "#b8c4cc", "#e8b4d4")
hue_of_type: dict[str, str] = {}  # colours that colour-blind eyes tell apart, in the order of first use
WordPlace = namedtuple("WordPlace", "row x width")  # where a word stands; x and width in pixels


@dataclass
class Line:
    """The arc of a relation, or the bracket under an entity, in one row of words: from x to another x."""

    start: int
    end: int
    mark: Mark
    item: object
    leaves: bool = True  # it begins in this row, and not in another
    arrives: bool = True  # it ends in this row
    lane: int = 0

    @property
    def label(self) -> str:
        """Sign and type."""
        return f"{self.mark.sign} {self.item.type}".strip()

    @property
    def label_x(self) -> int:
        """Where the label begins, so that it ends within the picture."""
        return max(0, min(self.start, self.end, WIDTH - 7 * len(self.label)))


def place_words(sentence) -> list[WordPlace]:
    """Where each word stands, in a monospaced font: wide characters take two cells, accents none."""
    places, row, x, last_end = [], 0, 0, 0
    for word, (start, end) in zip(sentence.words, sentence.offsets):
        cells = sum(2 if east_asian_width(letter) in "WF" else 1 for letter in word if not combining(letter))
        width = CELL * max(1, cells)
        x += CELL if start > last_end else 0
        if x and x + width > WIDTH:
            row, x = row + 1, 0
        places.append(WordPlace(row, x, min(width, WIDTH)))
        x, last_end = x + width, end
    return places


def brackets_of(marked_entity, places: list[WordPlace]) -> list[tuple[int, Line]]:
    """(row, bracket) in each row where an entity has words."""
    mark, entity = marked_entity
    words, brackets = places[entity.start : entity.end], []
    for row in sorted({word.row for word in words}):
        inside = [word for word in words if word.row == row]
        brackets.append((row, Line(inside[0].x, inside[-1].x + inside[-1].width, mark, entity)))
    return brackets


def arcs_of(marked_relation, places: list[WordPlace]) -> list[tuple[int, Line]]:
    """(row, arc) of a relation. Between rows it runs to the edge of one and goes on from the other's edge."""
    mark, relation = marked_relation
    head, tail = places[relation.head.start], places[relation.tail.start]
    start = head.x + head.width // 2 + 3  # 3: two arcs at one entity stay apart
    end = tail.x + tail.width // 2 - 3
    if head.row == tail.row:
        return [(head.row, Line(start, end, mark, relation))]
    edge, other_edge = (WIDTH, 0) if head.row < tail.row else (0, WIDTH)
    leaving = Line(start, edge, mark, relation, arrives=False)
    return [(head.row, leaving), (tail.row, Line(other_edge, end, mark, relation, leaves=False))]


def stack_lines(lines: list[Line]) -> int:
    """Puts each line into the first lane that has room for it and its label; returns the number of lanes."""
    placed: list[tuple[int, int, int]] = []  # left, right and lane of the lines so far
    for line in lines:
        left = min(line.start, line.end, line.label_x) - 3
        right = max(line.start, line.end, line.label_x + 7 * len(line.label)) + 3
        taken_lanes = {lane for start, end, lane in placed if left < end and start < right}
        line.lane = min(set(range(len(lines))) - taken_lanes)
        placed.append((left, right, line.lane))
    return max((line.lane + 1 for line in lines), default=0)


def picture(sentence, gold=None) -> str:
    """The sentence as SVG: entities on coloured ground over brackets, relations as arcs to their tails.
    Where gold is known: = and solid are right, + and dashed are wrong, - and dotted are missed.
    At most 1,000 entities and 1,000 relations are drawn; it says how many are not. It has no script."""
    places = place_words(sentence)
    words, brackets, arcs = defaultdict(list), defaultdict(list), defaultdict(list)  # by row
    for word, place in zip(sentence.words, places):
        words[place.row].append((word, place))
    entities = marked(sentence.entities, gold and gold.entities)
    relations = marked(sentence.relations, gold and gold.relations)
    for marked_entity in entities[:MOST_DRAWN]:
        for row, bracket in brackets_of(marked_entity, places):
            brackets[row].append(bracket)
    for marked_relation in relations[:MOST_DRAWN]:
        for row, arc in arcs_of(marked_relation, places):
            arcs[row].append(arc)
    rows, y = "", 0
    for row in range(1 + max((place.row for place in places), default=0)):
        drawn, height = draw_row(sentence, words[row], brackets[row], arcs[row])
        rows += f'<g transform="translate(4 {y})">{drawn}</g>'
        y += height
    for kind, items in (("entities", entities), ("relations", relations)):
        if len(items) > MOST_DRAWN:
            y += LANE
            rows += f'<text x="4" y="{y - 5}">and {len(items) - MOST_DRAWN:,} more {kind}</text>'
    text = escape(show(sentence, gold).strip())
    size = f'width="{WIDTH + 8}" viewBox="0 0 {WIDTH + 8} {y}"'
    style = "max-width:100%;background:#fff;font:13px monospace"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{text}" {size} style="{style}">'
    return f"{head}{rows}</svg>"


def draw_row(sentence, placed_words: list[tuple], brackets: list[Line], arcs: list[Line]) -> tuple[str, int]:
    """One row of the picture, and its height: arcs, the short ones lowest; the placed words; brackets."""
    arcs = sorted(arcs, key=lambda arc: abs(arc.end - arc.start))
    base = 22 + LANE * stack_lines(arcs)
    height = base + 14 + LANE * stack_lines(brackets)
    drawn = ""
    for line in brackets:
        y = base + 6 + LANE * line.lane
        hue = hue_of_type.setdefault(line.item.type, HUES[len(hue_of_type) % len(HUES)])
        box = f'x="{line.start}" y="{base - 13}" width="{line.end - line.start}" height="17"'
        path = f"M{line.start},{y - 3}V{y}H{line.end}V{y - 3}"
        drawn += f'<rect {box} fill="{hue}" fill-opacity=".6"/>'
        drawn += draw_line(sentence, line, path, line.label_x, y + 10)
    for line in arcs:
        y, foot = base - 22 - LANE * line.lane, base - 14
        path = f"M{line.start},{foot}V{y}H{line.end}" if line.leaves else f"M{line.start},{y}H{line.end}"
        path += f"V{foot}m-3,-5l3,5l3,-5" if line.arrives else ""
        drawn += draw_line(sentence, line, path, line.label_x + 3, y - 3)
    drawn += f'<g transform="translate(0 {base})">'
    for word, place in placed_words:
        fit = f'textLength="{place.width}" lengthAdjust="spacingAndGlyphs"'
        drawn += f'<text x="{place.x}" {fit}>{escape(word)}</text>'
    return f"{drawn}</g>", height


def draw_line(sentence, line: Line, path: str, x: int, y: int) -> str:
    """A line in the manner of its mark, with its label at x, y; the mouse shows its item."""
    title = escape(describe(sentence, line.item))
    pen = f'stroke="{line.mark.colour}" stroke-width="1.5" stroke-dasharray="{line.mark.dashes}"'
    label = f'<text x="{x}" y="{y}" font-size="11" fill="{line.mark.colour}">{escape(line.label)}</text>'
    return f'<g><title>{title}</title><path d="{path}" fill="none" {pen}/>{label}</g>'


def image(sentence) -> str:
    """The picture as an HTML image. Jupyter shows it even in a notebook that it does not trust yet."""
    source = b64encode(picture(sentence).encode()).decode()
    return f'<img alt="{escape(show(sentence).strip())}" src="data:image/svg+xml;base64,{source}">'


def page(pairs: list[tuple], title: str) -> str:
    """One HTML page of (sentence, its gold or None), in plain ASCII, whatever a terminal can print."""
    legend = "= right, solid; + wrong, dashed; - missed, dotted" if any(gold for _, gold in pairs) else ""
    style = "body{font:14px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    style += "figure{margin:1.5em 0}figcaption{color:#555}"
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{style}</style>'
    body = f"<h1>{escape(title)}</h1><p>{legend}</p>\n"
    for sentence, gold in pairs:
        caption = f"<figcaption>{escape(sentence.id)}</figcaption>"
        body += f"<figure>{caption}{picture(sentence, gold)}</figure>\n"
    text = f'<!doctype html><html lang="en">{head}\n{body}</html>'
    return text.encode("ascii", "xmlcharrefreplace").decode()


def render(pairs: list[tuple], form: str, title: str, colour: bool) -> str:
    """Sentences, each with its gold or None, as "text", "json" (a list), "jsonl" or "html" (a page)."""
    if form == "html":
        return page(pairs, title)
    if form in ("json", "jsonl"):
        lines = [json.dumps(sentence.to_record()) for sentence, _ in pairs]
        return "\n".join(lines) if form == "jsonl" else "[" + ",\n".join(lines) + "]"
    return "\n".join(show(sentence, gold, colour) for sentence, gold in pairs)


def print_blocks(blocks, form: str, title: str):
    """Prints blocks of (sentence, its gold or None): each as it comes, or all in one list or page."""
    shown, is_terminal = [], sys.stdout.isatty()
    for pairs in blocks:
        if form in STREAMED:
            print(render(pairs, form, "", is_terminal), flush=True)
        else:
            shown += pairs
        if len(shown) > MOST_SHOWN:
            raise InputError(f"--format {form} holds {MOST_SHOWN:,} sentences at most; jsonl has no limit")
    if form not in STREAMED:
        count = f"{len(shown):,} sentence{'' if len(shown) == 1 else 's'}"
        print(render(shown, form, f"{title}: {count}", is_terminal))
