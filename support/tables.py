"""Tables of scores, as text and as Markdown."""

from support.errors import printable
from support.files import name_of
from support.scores import main_tables

CAUSES = {
    "width": "an argument is too wide",
    "argument": "an argument missed or mistyped",
    "relation": "the relation itself",
}


def introduction(run, method: str, splits: dict[str, list]) -> str:
    """What a run trains, and on what, in words."""
    encoder = sum(weight.numel() for weight in run.model.encoder.parameters())
    above = sum(weight.numel() for weight in run.model.parameters()) - encoder
    sizes = ", ".join(f"{len(encoded):,} of {split}" for split, encoded in splits.items() if encoded)
    types = f"{len(run.entity_types)} entity types, {len(run.relation_types)} relation types"
    model = f"{method}: {above:,} parameters and {encoder:,} of {run.settings.encoder}, on {run.device}"
    return f"{model}\n{name_of(run.settings.dataset)}: {sizes}; {types}"


def final_table(settings, method: str, result: dict, printed: list[dict]) -> str:
    """All scores of a run in the layout of the paper's Table 1, then in words what the figures hide.
    `printed` are the paper's own figures for this method, for entities and for relations, if it has any."""
    name = f"{name_of(settings.dataset)}, {settings.eval_split}"
    entity, relation = main_tables(result).values()
    rows = []
    for average in ("micro", "macro"):
        scores = [table[average] if table["by_type"] else None for table in (entity, relation)]
        rows.append((f"{name}, {average}", *scores))
    rows.append(("  relations by boundaries, micro", None, result["relation"]["boundaries"]["micro"]))
    for phenomenon, part in result.get("phenomena", {}).items():
        micro = [table["micro"] for table in main_tables(part).values()]
        rows.append((f"  phenomenon: {phenomenon}", *micro))
    rows += [(f"  entity: {kind}", scores, None) for kind, scores in entity["by_type"].items()]
    rows += [(f"  relation: {kind}", None, scores) for kind, scores in relation["by_type"].items()]
    if printed and settings.eval_split == "test":
        rows.append((f"the paper, {method}", *printed))
    rows = [(printable(title), *scores) for title, *scores in rows]
    width = max(34, *(len(title) + 1 for title, _, _ in rows))  # titles are never cut, so all differ
    lines = [f"{'':{width}}{'entity P':>8}{'R':>8}{'F1':>8}  {'rel. P':>8}{'R':>8}{'F1':>8}"]
    lines += [f"{title:{width}}{cells_of(left)}  {cells_of(right)}".rstrip() for title, left, right in rows]
    return "\n".join([*lines, *map(printable, remarks(settings.eval_split, result))])


def cells_of(scores: dict | None) -> str:
    """P, R and F1 in three cells; blank where there is neither gold nor a prediction."""
    if not scores or not scores.get("gold", 1) + scores.get("predicted", 1):
        return " " * 24
    return "".join(f"{scores[name]:8.2f}" if name in scores else " " * 8 for name in ("p", "r", "f1"))


def remarks(split: str, result: dict) -> list[str]:
    """In words: why relations were missed, types never predicted, scores that say nothing without gold."""
    lines, missed = [], result["missed_relations"]
    if any(missed.values()):
        reasons = ", ".join(f"{CAUSES[cause]} {count}" for cause, count in missed.items())
        lines.append(f"relations missed: {reasons}")
    for task, table in main_tables(result).items():
        if not table["micro"]["gold"]:
            lines.append(f"{split} has no gold {task}: no recall, no F1 can be measured")
        never = [kind for kind, part in table["by_type"].items() if part["gold"] and not part["predicted"]]
        if never:
            lines.append(f"never predicted, though {split} has some: {task} {', '.join(never)}")
    return lines


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {printable(' | '.join(cells))} |" for cells in [heads, ["---"] * len(heads), *rows])
