"""How a text is cut into words. Each rule has a name, which a run records and its predictions follow."""

import regex  # its \w has the marks of all scripts, such as Hindi's vowel signs; that of `re` has not

from support.errors import InputError, excerpt

BLANK = r"\s\x1c-\x1f"  # all that `str.split` cuts at
RULES = {
    # Runs of letters, marks and digits, and other characters alone [L36].
    "letters": regex.compile(rf"[\w\p{{N}}]+|[^\w\p{{N}}{BLANK}]"),
    # As newspapers are cut: 's, U.S., Jr., Il-song, $50, 3.5, -- are words; a full stop at the end is one.
    "treebank": regex.compile(
        r"--+|\.\.+|[$'.-]?[\w\p{N}]+(?:[-&.]+[\w\p{N}]+)*(?:\.+(?!\s*$)|-)?"
        rf"|[^\w\p{{N}}{BLANK}]"
    ),
    # As the Penn Treebank is cut: n't, 11,700, 1/2, and/or are words, too, and $ is one of its own.
    "penn": regex.compile(
        r"--+|\.\.+|n't\b|\w+(?=n't\b)|\d[\d,./]*\d"
        r"|['.-]?[\w\p{N}]+?(?:(?=n't\b)|(?:[-&./]+[\w\p{N}]+)*(?:\.+(?!\s*$)|-)?(?![\w\p{N}]))"
        rf"|[^\w\p{{N}}{BLANK}]"
    ),
    # At blanks alone.
    "blanks": regex.compile(rf"[^{BLANK}]+"),
}


def cut_words(text: str, rule: str = "letters") -> list[tuple[int, int]]:
    """The [start, end) of each word of a text, in characters."""
    if rule not in RULES:
        raise InputError(f"words: {excerpt(rule)}; the rules are {', '.join(RULES)}")
    return [match.span() for match in RULES[rule].finditer(text)]


def find_words(words: list[str], text: str) -> list[tuple[int, int]]:
    """The [start, end) of each word in the text that they were cut from; fewer if it is another text."""
    offsets, position = [], 0
    for word in words:
        start = text.find(word, position)
        if start < 0 or text[position:start].strip():  # between words there are only blanks
            break
        position = start + len(word)
        offsets.append((start, position))
    return offsets


def rule_of(sentences: list) -> tuple[str, float]:
    """The rule by which a corpus was cut, and the share of its sentences whose words it finds in their text.
    It is the first rule that fits 99 % of the sentences, else the rule that fits most. "blanks" is taken only
    if every other rule fails in more than a tenth, as it always fits words that are joined by blanks."""
    shares = {}
    for rule in RULES:
        hits = sum(cut_words(s.text, rule) == s.offsets for s in sentences)
        shares[rule] = hits / max(1, len(sentences))
        if shares[rule] >= 0.99:
            break
    others = [rule for rule in shares if rule != "blanks"]
    best = max(others, key=shares.get)
    if shares[best] < 0.9 and shares.get("blanks", 0) > shares[best]:
        best = "blanks"
    return best, shares[best]
