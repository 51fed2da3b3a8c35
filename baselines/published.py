"""The figures that the paper prints: F1 in percent, or P, R and F1, for entities and for relations."""

from support.tables import final_table

# The tables by number, corpus and model. A model is an attention, with what is ablated from it, or a rival.
PRINTED = {
    1: {
        "ace05": {"Multi-turn QA": "84.7 84.9 84.8 | 64.8 56.2 60.2", "DyGIE": "88.4 | 63.2",
                  "multihead": "89.32 89.86 89.59 | 71.22 60.19 65.24"},
        "conll04": {"Multi-turn QA": "89.0 86.6 87.8 | 69.2 68.2 68.9",  # P and R give 68.7 [L31]
                    "spert": "88.25 89.64 88.94 | 73.04 70.00 71.47",
                    "multihead": "90.11 90.36 90.23 | 76.96 71.88 74.33"},
        "ade": {"Relation-Metric": "86.16 88.08 87.11 | 77.36 77.25 77.29",
                "spert": "88.99 89.59 89.28 | 77.77 79.96 78.84",
                "multihead": "89.88 91.32 90.59 | 79.56 81.93 80.73"},
    },
    2: {
        "ace05": {"multihead": "89.59 | 65.24", "dot": "87.94 | 62.88",
                  "general": "88.66 | 63.56", "additive": "89.07 | 64.53"},
        "conll04": {"multihead": "90.23 | 74.33", "dot": "88.23 | 70.89",
                    "general": "88.96 | 73.48", "additive": "89.17 | 71.36"},
        "ade": {"multihead": "90.59 | 80.73", "dot": "88.15 | 77.31",
                "general": "89.93 | 80.14", "additive": "89.68 | 79.75"},
    },
    3: {
        "ace05": {"multihead": "88.10 | 62.13", "multihead without span-specific": "86.78 | 60.21",
                  "multihead without span-sentence": "87.57 | 61.12",
                  "multihead without span-specific and span-sentence": "85.80 | 59.00"},
    },
    4: {
        "ace05": {"multihead": "88.10 | 62.13", "multihead without local": "87.96 | 60.56",
                  "multihead without relation-sentence": "88.21 | 61.77",
                  "multihead without local and relation-sentence": "87.91 | 59.66"},
    },
}


def printed_row(number: int, dataset: str, model: str) -> list[list[str]]:
    """The figures of one row as they are printed, for entities and for relations; [] if there is no row."""
    row = PRINTED[number].get(dataset, {}).get(model)
    return [part.split() for part in row.split("|")] if row else []


def printed_scores(number: int, dataset: str, model: str) -> list[dict[str, float]]:
    """The figures of one row as numbers, by "p", "r" and "f1", for entities and for relations."""
    parts = printed_row(number, dataset, model)
    return [dict(zip(("f1", "r", "p"), map(float, reversed(figures)))) for figures in parts]


def method_of(settings) -> str:
    """The model by its name in the paper's tables, with what is ablated."""
    name = "spert" if settings.model == "spert" else settings.attention
    return f"{name} without {' and '.join(settings.ablate)}" if settings.ablate else name


def average_of(settings) -> str:
    """How the paper averages over types: macro for ADE, else micro (§4.4) [L21]."""
    return "macro" if settings.dataset == "ade" else "micro"


def table_of(settings, result: dict) -> str:
    """All scores of a run, above the row that the paper prints for its model in Table 1 or 2."""
    dataset, method = settings.dataset, method_of(settings)
    printed = printed_scores(1, dataset, method) or printed_scores(2, dataset, method)
    return final_table(settings, method, result, printed)
