"""What a user should know before a run: words that the encoder cannot read, relations that will be lost."""


def unknown_words(encoded, unknown_id: int) -> int:
    """How many words of an encoded sentence have an unknown wordpiece."""
    count = 0
    for start, end in zip(encoded.starts, encoded.ends):
        count += unknown_id in encoded.input_ids[start:end]
    return count


def second_types_of_pairs(sentence) -> int:
    """How many relations join a pair that another relation joins, too."""
    pairs = {(relation.head, relation.tail) for relation in sentence.relations}
    return len(sentence.relations) - len(pairs)


def cautions(train: list, tokenizer, one_type: bool) -> list[str]:
    """What of the encoded sentences of train is lost. With `one_type`, a pair holds one relation type."""
    lines = []
    words = sum(len(encoded.sentence.words) for encoded in train)
    unknown = sum(unknown_words(encoded, tokenizer.unk_token_id) for encoded in train)
    if unknown > words / 10:
        share = f"{100 * unknown / words:.0f} % of the words of train"
        lines.append(f"{share} are {tokenizer.unk_token} to this encoder: does it know the language?")
    relations = sum(len(encoded.sentence.relations) for encoded in train)
    surplus = sum(second_types_of_pairs(encoded.sentence) for encoded in train)
    if surplus and one_type:
        limit = 200 * (relations - surplus) / (2 * relations - surplus)
        reason = f"{surplus:,} relations of train are a second type of their pair; a Softmax holds one"
        lines.append(f"{reason}, so F1 cannot pass {limit:.2f}: --relation-loss sigmoid-bce holds several")
    return lines
