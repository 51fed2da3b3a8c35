"""The corpus card: what is in a corpus, and what training cannot reach, as a table in text."""

import itertools
from collections import Counter
from functools import partial

from corpora.words import rule_of
from support.cautions import second_types_of_pairs, unknown_words
from support.errors import InputError, printable
from support.flags import make_parser


def parse_card_flags(arguments: list[str] | None, names: tuple[str, ...]):
    """What the command line of the card asks for. `names` are the corpora that have a name."""
    parser = make_parser("What a corpus has, or all that is wrong with it.", "python data.py [--flag value]")
    parser.add_argument("--dataset", default="toy", help=f"{', '.join(names)}, or a folder (default: toy)")
    parser.add_argument("--data-dir", default="data", help="where published corpora are kept (default: data)")
    parser.add_argument("--fold", type=int, default=0, help="ADE's fold, 0 to 9 (default: 0)")
    parser.add_argument("--split", default="", help="shares such as 80/10/10 that divide one set")
    parser.add_argument("--show", type=int, default=0, help="sentences of train to print first (default: 0)")
    parser.add_argument("--max-width", type=int, default=10, help="widest span, in words (default: 10)")
    parser.add_argument("--encoder", default=None, help="also count what this encoder cannot read")
    given = parser.parse_args(arguments)
    if given.max_width < 1 or given.show < 0 or given.encoder == "":
        raise InputError("--max-width must be at least 1, --show at least 0, --encoder a name")
    return given


def card(corpus, max_width: int = 10, encoded: list | None = None, tokenizer=None, longest: int = 0) -> str:
    """The table. If `encoded` sentences are given, it also counts what the encoder cannot read.
    The encoder takes at most `longest` wordpieces."""
    splits = list(corpus.splits.values())
    splits.append(corpus.train + corpus.dev + corpus.test)
    rows = [(corpus.name, [*corpus.splits, "all"])]

    def add_row(title, count):
        """`count` is of one sentence; the row has its sums."""
        rows.append((title, [f"{sum(map(count, sentences)):,}" for sentences in splits]))

    def is_wide(entity):
        return entity.end - entity.start > max_width

    def has_wide_argument(relation):
        return is_wide(relation.head) or is_wide(relation.tail)

    add_row("sentences", lambda s: 1)
    add_row("words", lambda s: len(s.words))
    for items in ("entities", "relations"):
        add_row(items, partial(count_items, items, None))
        for kind in sorted(types_in(splits[-1], items)):
            add_row(f"  {kind}", partial(count_items, items, kind))
    trained = {tuple(sentence.words) for sentence in corpus.train}
    others = {id(sentence) for sentence in corpus.dev + corpus.test}
    earlier = {}
    for sentence in splits[-1]:
        earlier.setdefault(tuple(sentence.words), id(sentence))
    train_types = {items: types_in(corpus.train, items) for items in ("entities", "relations")}
    add_row("sentences with overlapping entities", has_overlap)  # [L15]
    add_row("sentences without a relation", lambda s: not s.relations)
    add_row("sentences that stood before", lambda s: earlier[tuple(s.words)] != id(s))
    add_row("also in train", lambda s: id(s) in others and tuple(s.words) in trained)
    add_row("entities, relations given twice", lambda s: s.repeated)
    rows.append(("out of training's reach", []))
    add_row(f"  entities wider than {max_width} words", lambda s: sum(map(is_wide, s.entities)))
    add_row("  relations with such an argument", lambda s: sum(map(has_wide_argument, s.relations)))
    add_row("  second types of a span", second_types)  # [L35]
    add_row("  relations that these lose", relations_of_second_types)
    add_row("  second types of a pair", second_types_of_pairs)
    add_row("  of a type that train lacks", lambda s: unknown_types(s, train_types))
    if encoded:
        of = {id(e.sentence): e for e in encoded}
        unknown = tokenizer.unk_token_id
        if longest < 10**9:  # else the encoder has no limit
            title = f"  sentences of over {longest:,} wordpieces"
            add_row(title, lambda s: len(of[id(s)].input_ids) > longest)
        add_row(f"  words read as {tokenizer.unk_token}", lambda s: unknown_words(of[id(s)], unknown))
    widths = Counter()
    for sentence in splits[-1]:
        widths.update(entity.end - entity.start for entity in sentence.entities)
    by_width = ", ".join(f"{width}: {widths[width]:,}" for width in sorted(widths))
    column = max(40, *(len(printable(title)) + 1 for title, _ in rows))
    lines = []
    for title, numbers in rows:
        lines.append(f"{printable(title):{column}}{''.join(f'{number:>9}' for number in numbers)}".rstrip())
    rule, share = rule_of(corpus.train)
    share = f"{100 * share:.1f} % of the sentences"
    lines.append(f"texts are cut into words by the rule {rule}, which fits {share}")
    lines.append(f"entities by width in words  {by_width}")
    if any(map(second_types_of_pairs, splits[-1])):
        lines.append("a Softmax holds one type of a pair: --relation-loss sigmoid-bce holds several")
    return "\n".join(lines)


def types_in(sentences: list, items: str) -> set[str]:
    """The types of the "entities" or "relations" of some sentences."""
    types = set()
    for sentence in sentences:
        types.update(item.type for item in getattr(sentence, items))
    return types


def count_items(items: str, kind: str | None, sentence) -> int:
    """How many "entities" or "relations" a sentence has, of a type or of all."""
    return sum(kind in (None, item.type) for item in getattr(sentence, items))


def second_types(sentence) -> int:
    """How many entities have the span of another one."""
    return len(sentence.entities) - len({(entity.start, entity.end) for entity in sentence.entities})


def relations_of_second_types(sentence) -> int:
    """How many relations join a span with itself, or a span whose first type is another."""
    first_types = {}
    for entity in sentence.entities:
        first_types.setdefault((entity.start, entity.end), entity)
    count = 0
    for relation in sentence.relations:
        places = {(entity.start, entity.end): entity for entity in (relation.head, relation.tail)}
        count += len(places) < 2 or any(first_types[place] != entity for place, entity in places.items())
    return count


def has_overlap(sentence) -> bool:
    """Whether two entities share a word."""
    entities = sorted(sentence.entities, key=lambda entity: entity.start)
    return any(following.start < entity.end for entity, following in itertools.pairwise(entities))


def unknown_types(sentence, train_types: dict[str, set[str]]) -> int:
    """How many entities and relations have a type that train lacks."""
    entities = sum(entity.type not in train_types["entities"] for entity in sentence.entities)
    return entities + sum(relation.type not in train_types["relations"] for relation in sentence.relations)
