"""Sentences with their entities and relations, as text for a terminal, as an SVG picture, as an HTML page."""

import json
from base64 import b64encode
from dataclasses import dataclass, field
from html import escape
from unicodedata import combining, east_asian_width


@dataclass(frozen=True)
class Mark:
    """What is known of a predicted entity or relation: its sign, and how it is drawn."""

    sign: str
    meaning: str
    terminal: int  # the colour in a terminal
    colour: str
    dashes: str


RIGHT = Mark("=", "right, solid", 32, "#222", "")
WRONG = Mark("+", "wrong, dashed", 31, "#c03a00", "5 3")
MISSED = Mark("-", "missed, dotted", 33, "#0060a8", "1 3")
UNKNOWN = Mark(" ", "", 0, "#222", "")  # where gold is not known


def marked(items: list, gold: list | None) -> list[tuple]:
    """(mark, item) of each item, then of those that only gold has."""
    pairs = []
    for item in items:
        pairs.append((UNKNOWN if gold is None else RIGHT if item in gold else WRONG, item))
    return pairs + [(MISSED, item) for item in gold or [] if item not in items]


def marked_items(sentence, gold) -> tuple[list, list]:
    """The marked entities and the marked relations of a sentence; `gold` is the true one, or None."""
    entities = marked(sentence.entities, gold and gold.entities)
    return entities, marked(sentence.relations, gold and gold.relations)


def describe(sentence, item) -> str:
    """Kind, type, score and place of an entity or a relation."""
    score = "" if item.score is None else f"{item.score:.2f}"
    kind, entities = ("relation", [item.head, item.tail]) if hasattr(item, "head") else ("entity", [item])
    places = []
    for entity in entities:
        start, end = sentence.chars(entity)
        places.append(f'"{sentence.text[start:end]}" [{start}, {end})')
    return f"{kind:8}  {item.type:16} {score:5} {' -> '.join(places)}"


def show(sentence, gold=None, colour: bool = False) -> str:
    """A sentence as text, an entity or relation a line; where gold is known: = right, + wrong, - missed."""
    entities, relations = marked_items(sentence, gold)
    lines = [f"\n{sentence.text}"]
    for mark, item in entities + relations:
        line = f"  {mark.sign} {describe(sentence, item)}"
        lines.append(f"\033[{mark.terminal}m{line}\033[0m" if colour else line)
    return "\n".join(lines)


# -- The picture ---------------------------------------------------------------------------------------------

CELL, WIDTH = 8, 800  # pixels: of a character, of a row of words
LANE = 18  # pixels between two arcs, or two brackets, that lie above each other
HUES = ("#f2c744", "#7cc7f0", "#8fd3a8", "#f0a68c", "#c9b6ec", "#d9d36a", "#b8c4cc", "#e8b4d4")
hue_of_type: dict[str, str] = {}  # colours that colour-blind eyes tell apart, in the order of first use


@dataclass
class WordPlace:
    """Where a word stands."""

    row: int
    x: int
    width: int


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


@dataclass
class Row:
    """What is drawn in one row."""

    words: list[str] = field(default_factory=list)
    brackets: list[Line] = field(default_factory=list)
    arcs: list[Line] = field(default_factory=list)


def place_words(sentence) -> list[WordPlace]:
    """Where each word stands, in a monospaced font: wide characters take two cells, accents none."""
    places, row, x, last_end = [], 0, 0, 0
    for word, (start, end) in zip(sentence.words, sentence.offsets):
        cells = 0
        for character in word:
            if not combining(character):
                cells += 2 if east_asian_width(character) in "WF" else 1
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
    lanes: list[list[tuple[int, int]]] = []
    for line in lines:
        left = min(line.start, line.end, line.label_x) - 3
        right = max(line.start, line.end, line.label_x + 7 * len(line.label)) + 3
        line.lane = 0
        while line.lane < len(lanes) and any(left < end and start < right for start, end in lanes[line.lane]):
            line.lane += 1
        if line.lane == len(lanes):
            lanes.append([])
        lanes[line.lane].append((left, right))
    return len(lanes)


def picture(sentence, gold=None) -> str:
    """The sentence as SVG: entities on coloured ground over brackets, relations as arcs to their tails.
    Where gold is known: = and solid is right, + and dashed wrong, - and dotted missed. It holds no script."""
    places = place_words(sentence)
    count = 1 + max((place.row for place in places), default=0)
    rows = [Row() for _ in range(count)]
    for word, place in zip(sentence.words, places):
        fit = f'textLength="{place.width}" lengthAdjust="spacingAndGlyphs"'
        rows[place.row].words.append(f'<text x="{place.x}" {fit}>{escape(word)}</text>')
    entities, relations = marked_items(sentence, gold)
    for marked_entity in entities:
        for row, bracket in brackets_of(marked_entity, places):
            rows[row].brackets.append(bracket)
    for marked_relation in relations:
        for row, arc in arcs_of(marked_relation, places):
            rows[row].arcs.append(arc)
    parts, y = [], 0
    for row in rows:
        drawn, height = draw_row(sentence, row)
        parts.append(f'<g transform="translate(4 {y})">{drawn}</g>')
        y += height
    text = escape(show(sentence, gold).strip())
    size = f'width="{WIDTH + 8}" viewBox="0 0 {WIDTH + 8} {y}"'
    style = "max-width:100%;background:#fff;font:13px monospace"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{text}" {size} style="{style}">'
    return f"{head}{''.join(parts)}</svg>"


def draw_row(sentence, row: Row) -> tuple[str, int]:
    """One row of the picture, and its height: arcs, the short ones lowest; words; brackets."""
    arcs = sorted(row.arcs, key=lambda arc: abs(arc.end - arc.start))
    base = 22 + LANE * stack_lines(arcs)
    parts = []
    height = base + 14 + LANE * stack_lines(row.brackets)
    for line in row.brackets:
        y = base + 6 + LANE * line.lane
        hue = hue_of_type.setdefault(line.item.type, HUES[len(hue_of_type) % len(HUES)])
        box = f'x="{line.start}" y="{base - 13}" width="{line.end - line.start}" height="17"'
        path = f"M{line.start},{y - 3}V{y}H{line.end}V{y - 3}"
        drawn = draw_line(describe(sentence, line.item), path, line, line.label_x, y + 10)
        parts.append(f'<rect {box} fill="{hue}" fill-opacity=".6"/>{drawn}')
    for line in arcs:
        y, foot = base - 22 - LANE * line.lane, base - 14
        path = f"M{line.start},{foot}V{y}H{line.end}" if line.leaves else f"M{line.start},{y}H{line.end}"
        path += f"V{foot}m-3,-5l3,5l3,-5" if line.arrives else ""
        parts.append(draw_line(describe(sentence, line.item), path, line, line.label_x + 3, y - 3))
    parts.append(f'<g transform="translate(0 {base})">{"".join(row.words)}</g>')
    return "".join(parts), height


def draw_line(title: str, path: str, line: Line, x: int, y: int) -> str:
    """A line in the manner of its mark, with its label; a pointer that rests there is shown the title."""
    pen = f'stroke="{line.mark.colour}" stroke-width="1.5" stroke-dasharray="{line.mark.dashes}"'
    label = f'<text x="{x}" y="{y}" font-size="11" fill="{line.mark.colour}">{escape(line.label)}</text>'
    return f'<g><title>{escape(title)}</title><path d="{path}" fill="none" {pen}/>{label}</g>'


def image(sentence) -> str:
    """The picture as an HTML image. Jupyter shows it even in a notebook that it does not trust yet."""
    source = b64encode(picture(sentence).encode()).decode()
    return f'<img alt="{escape(show(sentence).strip())}" src="data:image/svg+xml;base64,{source}">'


PAGE_STYLE = (
    "body{font:14px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "figure{margin:1.5em 0}figcaption{color:#555}"
)


def page(pairs: list[tuple], title: str) -> str:
    """One HTML page of (sentence, its gold or None), in plain ASCII, whatever a terminal can print."""
    legend = ""
    if any(gold for _, gold in pairs):
        legend = "; ".join(f"{mark.sign} {mark.meaning}" for mark in (RIGHT, WRONG, MISSED))
    figures = []
    for sentence, gold in pairs:
        caption = f"<figcaption>{escape(sentence.id)}</figcaption>"
        figures.append(f"<figure>{caption}{picture(sentence, gold)}</figure>\n")
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{PAGE_STYLE}</style>'
    body = f"<h1>{escape(title)}</h1><p>{legend}</p>\n{''.join(figures)}"
    text = f'<!doctype html><html lang="en">{head}\n{body}</html>'
    return text.encode("ascii", "xmlcharrefreplace").decode()


def render(pairs: list[tuple], form: str, title: str, colour: bool) -> str:
    """Sentences, each with its gold or None, as "text", "json" (a list of records) or "html" (a page)."""
    if form == "html":
        return page(pairs, title)
    if form == "json":
        return "[" + ",\n".join(json.dumps(sentence.to_record()) for sentence, _ in pairs) + "]"
    return "\n".join(show(sentence, gold, colour) for sentence, gold in pairs)
