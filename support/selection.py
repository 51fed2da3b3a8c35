"""Which predictions are kept, and how symmetric relations become one."""

import dataclasses

from support.errors import InputError


def select(sentence, settings):
    """A predicted sentence without what the settings leave out: scores too low, overlaps, a relation twice.
    Entities that were given have no score, and are kept."""
    entities = [e for e in sentence.entities if e.score is None or e.score >= settings.least_entity_score]
    if settings.flat and all(entity.score is not None for entity in entities):
        entities = likeliest(entities)
    relations, arguments = [], set(entities)
    for relation in sentence.relations:
        arguments_kept = relation.head in arguments and relation.tail in arguments
        if arguments_kept and relation.score >= settings.least_relation_score:
            relations.append(relation)
    kept = dataclasses.replace(sentence, entities=entities, relations=relations)
    return undirected(kept, settings.symmetric)


def likeliest(entities: list) -> list:
    """The entities that do not overlap a likelier one [L37]."""
    kept, taken = set(), set()
    for entity in sorted(entities, key=lambda e: -e.score):
        words = range(entity.start, entity.end)
        if taken.isdisjoint(words):
            kept.add(entity)
            taken.update(words)
    return [entity for entity in entities if entity in kept]


def undirected(sentence, symmetric: tuple[str, ...]):
    """The sentence with (a, b) and (b, a) as one relation where its type is symmetric; the likelier stays."""
    likeliest_of = {}
    for relation in sentence.relations:
        head, tail = relation.head, relation.tail
        is_turned = (tail.start, tail.end, tail.type) < (head.start, head.end, head.type)
        if is_turned and relation.type in symmetric:
            relation = dataclasses.replace(relation, head=tail, tail=head)
        other = likeliest_of.get(relation)
        if other is None or (relation.score or 0) > (other.score or 0):
            likeliest_of[relation] = relation
    return dataclasses.replace(sentence, relations=list(likeliest_of.values()))


def check_symmetric(symmetric: tuple[str, ...], types: list[str]):
    """Refuses a symmetric type that is none of the relation types of train."""
    if unknown := sorted(set(symmetric) - set(types)):
        known = ", ".join(types) or "none"
        raise InputError(f"--symmetric {', '.join(unknown)}: the relation types of train are {known}")
