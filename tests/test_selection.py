"""What of a prediction is kept: least scores, overlaps, symmetric relations."""

import dataclasses
import itertools
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import Entity, Relation, Sentence
from support.selection import select, undirected
from test_spanrel import annotated


def select_by(sentence, flat=False, entities=0.0, relations=0.0, symmetric=()):
    """What is kept by these settings."""
    least = dict(least_entity_score=entities, least_relation_score=relations)
    return select(sentence, SimpleNamespace(flat=flat, symmetric=symmetric, **least))


def scored(rng, n=6):
    """A sentence of n letters with scored entities and relations."""
    entities, relations = annotated(rng, n)
    new = {e: dataclasses.replace(e, score=rng.randrange(4) / 4) for e in entities}
    pairs = [Relation(r.type, new[r.head], new[r.tail], rng.randrange(4) / 4) for r in relations]
    return Sentence("s", list("abcdef"[:n]), list(new.values()), pairs)


@given(rng=st.randoms(use_true_random=False))
def test_the_likeliest_of_overlapping_entities_are_kept_with_their_relations(rng):
    sentence = scored(rng)
    entities, relations = list(sentence.entities), list(sentence.relations)
    flat = select_by(sentence, flat=True)
    kept = flat.entities
    assert kept == [e for e in entities if e in kept]
    assert not any(a.start < b.end and b.start < a.end for a, b in itertools.combinations(kept, 2))
    for e in entities:
        places = set(range(e.start, e.end))
        rivals = [other for other in kept if places & set(range(other.start, other.end))]
        rank = (-e.score, entities.index(e))  # of equals the first
        assert e in kept or any((-other.score, entities.index(other)) < rank for other in rivals)
    assert flat.relations == [r for r in relations if r.head in kept and r.tail in kept]
    assert (flat.id, flat.words, flat.text) == (sentence.id, sentence.words, sentence.text)
    assert sentence.entities == entities and sentence.relations == relations
    assert select_by(sentence) == sentence


def test_a_likelier_entity_takes_the_relations_of_those_it_overlaps_with_it():
    a, b, c = Entity("A", 0, 2, score=0.7), Entity("A", 1, 3, score=0.8), Entity("A", 3, 4, score=0.6)
    relations = [Relation("R", a, c, 0.9), Relation("R", b, c, 0.9), Relation("R", c, b, 0.9)]
    flat = select_by(Sentence("s", list("abcd"), [a, b, c], relations), flat=True)
    assert flat.entities == [b, c] and flat.relations == relations[1:]


@given(rng=st.randoms(use_true_random=False), least=st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 1.0])] * 2))
def test_what_scores_less_than_the_least_score_goes_with_its_relations(rng, least):
    sentence = scored(rng)
    kept = select_by(sentence, entities=least[0], relations=least[1])
    assert kept.entities == [e for e in sentence.entities if e.score >= least[0]]
    likely = [r for r in sentence.relations if r.score >= least[1]]
    assert kept.relations == [r for r in likely if min(r.head.score, r.tail.score) >= least[0]]


def test_entities_that_were_given_stay_whatever_the_least_score():
    a, b = Entity("A", 0, 1), Entity("A", 1, 2)
    sentence = Sentence("s", ["a", "b"], [a, b], [Relation("R", a, b, 0.4), Relation("R", b, a, 0.6)])
    kept = select_by(sentence, entities=0.9, relations=0.5)
    assert kept.entities == [a, b] and kept.relations == sentence.relations[1:]


@pytest.mark.parametrize("scores, best", [((0.4, 0.6), 0.6), ((0.6, 0.4), 0.6), ((None, None), None)])
def test_both_orders_of_a_symmetric_pair_are_one_relation_the_likelier(scores, best):
    a, b = Entity("A", 0, 1), Entity("B", 2, 3)
    both = [Relation("R", b, a, scores[0]), Relation("R", a, b, scores[1]), Relation("Q", b, a)]
    sentence = undirected(Sentence("s", ["a", "b", "c"], [b, a], both), ("R",))
    assert sentence.relations == [Relation("R", a, b), Relation("Q", b, a)]
    assert sentence.relations[0].score == best and sentence.entities == [b, a]


def test_two_types_of_one_span_have_one_order_too():
    a, b = Entity("A", 0, 1), Entity("B", 0, 1)
    sentence = Sentence("s", ["a"], [a, b], [Relation("R", b, a), Relation("R", a, b)])
    assert undirected(sentence, ("R",)).relations == [Relation("R", a, b)]


@given(rng=st.randoms(use_true_random=False))
def test_the_order_of_a_symmetric_pair_does_not_matter(rng):
    sentence = scored(rng)
    types = tuple({r.type for r in sentence.relations})
    turned = [dataclasses.replace(r, head=r.tail, tail=r.head) for r in sentence.relations]
    other = undirected(dataclasses.replace(sentence, relations=turned), types)
    assert other.relations == undirected(sentence, types).relations
    assert undirected(sentence, ()) == sentence
