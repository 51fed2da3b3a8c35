"""An embedded corpus like ADE, made by a seeded grammar. Three of four sentences show a problem of §1.

span      The type of a compound depends on its head noun: a "cough syrup" is a Drug, a "syrup cough" an
          Adverse-Effect.
local     A pair is related if most test results between its spans are positive. Other results stand near:
          "Aspirin tested positive, negative and positive for rash, and lithium tested negative for tremor."
sentence  A word elsewhere decides: "Rash in a patient on aspirin: rechallenge refuted the suspicion."
          Such a word also decides about a substance: "given" makes it a Drug, "measured" no entity.
"""

import random

DRUGS = (
    "aspirin,lithium,warfarin,heparin,insulin,digoxin,morphine,codeine,quinine,phenytoin,gemcitabine,"
    "cisplatin,tamoxifen,clozapine,ibuprofen,rifampicin,vancomycin,amiodarone,interferon alfa,gold salts,"
    "low dose methotrexate"
).split(",")
EFFECTS = (
    "rash,tremor,nausea,delirium,anemia,jaundice,vertigo,seizures,deafness,gout,psoriasis,hepatitis,"
    "hyponatremia,pulmonary toxicity,acute renal failure,loss of taste,severe optic nerve atrophy,"
    "swelling of the left hand"
).split(",")
SYMPTOMS = "itch,cough,wart,acne,burn,fever,cramp".split(",")
FORMS = "gel,syrup,cream,patch,spray,tablet,powder".split(",")
PROVES, REFUTES = ["confirmed", "proved"], ["refuted", "excluded"]
GIVES, MEASURES = ["given", "infused"], ["measured", "checked"]

PATTERNS = {
    "span": [
        "we report on {compound} in a {adjective} {person} .",
        "a {adjective} {person} told us of {compound} .",
        "{compound} was the topic of this {adjective} letter .",
        "in the {adjective} {person} , {compound} came first .",
    ],
    "local": [
        "{drug_a} tested {result_a} for {effect_a} , and {drug_b} tested {result_b} for {effect_b} .",
        "{drug_a} tested {result_a} for {effect_a} , "
        "but {effect_b} came with {result_b} tests for {drug_b} .",
        "while {effect_a} came with {result_a} tests for {drug_a} , "
        "{drug_b} tested {result_b} for {effect_b} .",
        "in a {adjective} {person} {effect_a} came with {result_a} tests for {drug_a} , "
        "and {effect_b} with {result_b} tests for {drug_b} .",
    ],
    "sentence": [
        "{effect_a} in a patient on {drug_a} : rechallenge {verdict} the suspicion .",
        "as {verdict} by a later rechallenge , {effect_a} came with {drug_a} .",
        "a patient on {drug_a} had {effect_a} , and later tests {verdict} our first idea .",
        "{substance} was what had to be {handled} in this {adjective} {person} .",
        "as {handled} twice a day , {substance} was normal in a {adjective} {person} .",
    ],
    "": [
        "{drug_a} - induced {effect_a} is usually a dramatic condition .",
        "severe {toxicity} was suspected in a {adjective} {person} .",
        "the patient received {drug_a} for {number} days .",
        "there was no history of {effect_a} after {number} years .",
        "the {drug_a} level was normal on day {number} .",
    ],
}
WORDS = {
    "verdict": PROVES + REFUTES,
    "handled": GIVES + MEASURES,
    "adjective": ["young", "tall", "frail", "healthy"],
    "person": ["woman", "man", "child", "nurse"],
    "number": [str(n) for n in range(2, 31)],
    "substance": ["glucose", "potassium", "calcium", "iron", "zinc", "oxygen"],
}
COMPOUNDS = ["{} {}", "new {} {}", "{} {} type two", "{} {} at night"]


def read(data_dir=None, fold: int = 0, seed: int = 2020, sizes=(600, 100, 400)) -> dict:
    """The records of the three splits; no sentence is in two of them. It needs no file."""
    rng = random.Random(seed)
    phenomena = list(PATTERNS)
    records: dict[str, dict] = {}
    while len(records) < sum(sizes):  # a sentence that exists already is not counted
        number = len(records)
        record = make_record(rng, phenomena[number % len(phenomena)], f"toy-{number}")
        records.setdefault(" ".join(record["tokens"]), record)
    made = list(records.values())
    train, dev, _ = sizes
    return {"train": made[:train], "dev": made[train : train + dev], "test": made[train + dev :]}


def make_record(rng: random.Random, phenomenon: str, id: str) -> dict:
    """A pattern with its slots filled. An effect and the drug of its letter may be related."""
    pattern = rng.choice(PATTERNS[phenomenon])
    nouns = rng.sample([rng.choice(SYMPTOMS), rng.choice(FORMS)], 2)  # the second is the head
    filled = {slot: rng.choice(words) for slot, words in WORDS.items()}
    filled["compound"] = rng.choice(COMPOUNDS).format(*nouns)
    filled["drug_a"], filled["drug_b"] = rng.sample(DRUGS, 2)
    filled["effect_a"], filled["effect_b"] = rng.sample(EFFECTS, 2)
    filled["result_a"], filled["result_b"] = make_results(rng), make_results(rng)
    filled["toxicity"] = f"{filled['drug_a']} toxicity"
    types = dict.fromkeys(["drug_a", "drug_b"], "Drug")
    types |= dict.fromkeys(["effect_a", "effect_b", "toxicity"], "Adverse-Effect")
    types["compound"] = "Drug" if nouns[1] in FORMS else "Adverse-Effect"
    if filled["handled"] in GIVES:
        types["substance"] = "Drug"
    words, entities, index_of_slot = [], [], {}
    for part in pattern.split():
        start, slot = len(words), part.strip("{}")
        words += part.format(**filled).split()
        if slot in types:
            index_of_slot[slot] = len(entities)
            entities.append({"type": types[slot], "start": start, "end": len(words)})
        if slot == "toxicity":  # the drug in it is an entity, too
            index_of_slot["drug_a"] = len(entities)
            entities.append({"type": "Drug", "start": start, "end": len(words) - 1})
    words[0] = words[0][0].upper() + words[0][1:]
    relations = []
    for effect, drug in (("effect_a", "drug_a"), ("effect_b", "drug_b"), ("toxicity", "drug_a")):
        if effect in index_of_slot and drug in index_of_slot and says_so(pattern, filled, drug[-1]):
            head, tail = index_of_slot[effect], index_of_slot[drug]
            relations.append({"type": "Adverse-Effect", "head": head, "tail": tail})
    record = {"tokens": words, "entities": entities, "relations": relations}
    return {**record, "orig_id": id, "phenomenon": phenomenon}


def says_so(pattern: str, filled: dict[str, str], letter: str) -> bool:
    """Whether the test results of this letter, or the verdict, say that effect and drug are related."""
    if f"{{result_{letter}}}" in pattern:
        results = filled[f"result_{letter}"]
        return results.count("positive") > results.count("negative")
    return "{verdict}" not in pattern or filled["verdict"] in PROVES


def make_results(rng: random.Random) -> str:
    """Three, five or seven test results; the kind that prevails does so by one."""
    more, fewer = rng.sample(["positive", "negative"], 2)
    k = rng.choice([1, 2, 3])
    results = rng.sample([more] * (k + 1) + [fewer] * k, 2 * k + 1)
    return f"{' , '.join(results[:-1])} and {results[-1]}"
