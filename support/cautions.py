"""What a user should know: words that the encoder cannot read, relations that will be or are lost."""

from support.checkpoints import digest_of


def unknown_words(encoded, unknown_id: int) -> int:
    """How many words of an encoded sentence have an unknown wordpiece."""
    count = 0
    for start, end in zip(encoded.starts, encoded.ends):
        count += unknown_id in encoded.input_ids[start:end]
    return count


def second_types_of_pairs(sentence, symmetric: tuple[str, ...] = ()) -> int:
    """How many relations join a pair that an earlier relation joins. Symmetric types are not counted."""
    relations = [relation for relation in sentence.relations if relation.type not in symmetric]
    return len(relations) - len({(relation.head, relation.tail) for relation in relations})


def cautions(train: list, tokenizer, settings) -> list[str]:
    """The warnings of a run: what it loses of its encoded training sentences."""
    lines = []
    if not any(encoded.sentence.entities for encoded in train):
        lines.append("train has no entities, so there is nothing to learn")
    words = sum(len(encoded.sentence.words) for encoded in train)
    unknown = sum(unknown_words(encoded, tokenizer.unk_token_id) for encoded in train)
    if unknown > words / 10:
        share = f"{100 * unknown / words:.0f} % of the words of train"
        lines.append(f"{share} are {tokenizer.unk_token} to this encoder: does it know the language?")
    relations = sum(len(encoded.sentence.relations) for encoded in train)
    surplus = sum(second_types_of_pairs(encoded.sentence, settings.symmetric) for encoded in train)
    if surplus and settings.relation_loss != "sigmoid-bce":
        limit = 200 * (relations - surplus) / (2 * relations - surplus)
        reason = f"{surplus:,} relations of train are a second type of their pair; a Softmax holds one"
        lines.append(f"{reason}, so F1 cannot pass {limit:.2f}: --relation-loss sigmoid-bce holds several")
    return lines


def crowd_cautions(sentences: list, most: int) -> list[str]:
    """A line for each predicted sentence whose entities are not paired, since they are more than `most`."""
    reason = f"over {most}: no relations between them are predicted; a hardly trained model has so many"
    many = [sentence for sentence in sentences if len(sentence.entities) > most]
    return [f"{sentence.id}: {len(sentence.entities):,} entities, {reason}" for sentence in many]


def change_cautions(run, corpus) -> list[str]:
    """A line if the corpus is no longer what the run was trained on: its splits may hold other sentences."""
    train = corpus.train + corpus.dev if run.settings.train_on_dev else corpus.train
    if run.trained_on in ("", digest_of(train)):  # a run of an earlier version does not say
        return []
    return [f"{corpus.name} has changed since: the run may have been trained on some of these sentences"]
