"""Scores in the paper's protocol (§4.1): precision, recall and F1 of entities and of relations."""

from collections import Counter

COUNTS = ("gold", "predicted", "correct")


def scores(gold: list, predicted: list) -> dict:
    """P, R and F1 of entities and relations in percent, with the counts behind them.
    An entity is right by type and span. A relation is right by type and arguments: "strict" with the
    arguments' types, as SpERT and this paper count, "boundaries" without, as DyGIE counts [L23]."""
    keys = {"entity": entity_keys, "strict": strict_keys, "boundaries": boundary_keys}
    table = {}
    for name, keys_of in keys.items():
        table[name] = tally([keys_of(s) for s in gold], [keys_of(s) for s in predicted])
    return {"entity": table.pop("entity"), "relation": table}


def entity_keys(sentence) -> set[tuple]:
    """What makes each entity: type and span."""
    return {(e.type, e.start, e.end) for e in sentence.entities}


def strict_keys(sentence) -> set[tuple]:
    """What makes each relation: type and arguments, with their types."""
    return {(r.type, r.head, r.tail) for r in sentence.relations}


def boundary_keys(sentence) -> set[tuple]:
    """What makes each relation if the types of its arguments do not count."""
    return {(r.type, r.head.start, r.head.end, r.tail.start, r.tail.end) for r in sentence.relations}


def tally(gold: list[set], predicted: list[set]) -> dict:
    """Scores by type, their micro and their macro average, of sets of items (type, …), a set per sentence.
    Macro is the mean of P, R and F1 over the types that are in gold or predicted [L21]."""
    counts = {"gold": Counter(), "predicted": Counter(), "correct": Counter()}
    for gold_items, predicted_items in zip(gold, predicted, strict=True):
        counts["gold"].update(item[0] for item in gold_items)
        counts["predicted"].update(item[0] for item in predicted_items)
        counts["correct"].update(item[0] for item in gold_items & predicted_items)
    by_type = {}
    for kind in sorted(counts["gold"] | counts["predicted"]):
        by_type[kind] = prf(**{name: count[kind] for name, count in counts.items()})
    macro = {}
    for name in ("p", "r", "f1"):
        macro[name] = sum(score[name] for score in by_type.values()) / max(1, len(by_type))
    micro = prf(**{name: count.total() for name, count in counts.items()})
    return {"micro": micro, "macro": macro, "by_type": by_type}


def prf(gold: int, predicted: int, correct: int) -> dict:
    """Precision, recall and F1 in percent, 0 where undefined, with the counts."""
    p, r = 100 * correct / max(1, predicted), 100 * correct / max(1, gold)
    f1 = 200 * correct / max(1, predicted + gold)  # always the harmonic mean of P and R [L31]
    return {"p": p, "r": r, "f1": f1, "gold": gold, "predicted": predicted, "correct": correct}


def all_scores(gold: list, predicted: list, max_width: int) -> dict:
    """The scores, those for each phenomenon of the toy corpus, and why relations were missed."""
    result = scores(gold, predicted)
    for name in sorted({sentence.phenomenon for sentence in gold} - {""}):
        indexes = [k for k, sentence in enumerate(gold) if sentence.phenomenon == name]
        part = scores([gold[k] for k in indexes], [predicted[k] for k in indexes])
        result.setdefault("phenomena", {})[name] = part
    result["missed_relations"] = missed_relations(gold, predicted, max_width)
    return result


def missed_relations(gold: list, predicted: list, max_width: int) -> dict[str, int]:
    """How many gold relations were not found, by cause.
    "width": an argument is too wide to be a candidate [L18]. "argument": an argument was missed or has
    another type. "relation": both arguments were found."""
    causes = dict.fromkeys(("width", "argument", "relation"), 0)
    for right, guess in zip(gold, predicted, strict=True):
        entities = set(guess.entities)
        for relation in set(right.relations) - set(guess.relations):
            arguments = {relation.head, relation.tail}
            if max(entity.end - entity.start for entity in arguments) > max_width:
                causes["width"] += 1
            elif arguments <= entities:
                causes["relation"] += 1
            else:
                causes["argument"] += 1
    return causes


def sentence_counts(gold: list, predicted: list, average: str) -> dict:
    """The counts behind the scores, as text with a number for each sentence. A bootstrap draws from them.
    They are kept for each type where the average is macro, else for all types together."""
    counts = {"entity": {}, "relation": {}}
    for index, (right, guess) in enumerate(zip(gold, predicted, strict=True)):
        for task, table in main_tables(scores([right], [guess])).items():
            rows = table["by_type"] if average == "macro" else {"all": table["micro"]}
            for kind, row in rows.items():
                columns = counts[task].setdefault(kind, {name: ["0"] * len(gold) for name in COUNTS})
                for name in COUNTS:
                    columns[name][index] = str(row[name])
    for columns in [*counts["entity"].values(), *counts["relation"].values()]:
        for name in COUNTS:
            columns[name] = " ".join(columns[name])
    return counts


def main_tables(result: dict) -> dict[str, dict]:
    """The two tables by which the paper is scored: entities, and relations with their arguments' types."""
    return {"entity": result["entity"], "relation": result["relation"]["strict"]}
