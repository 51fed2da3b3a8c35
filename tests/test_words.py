"""How texts are cut into words."""

from types import SimpleNamespace

import pytest
from helpers import REAL, needs_corpora
from hypothesis import given
from hypothesis import strategies as st

from corpora.words import RULES, cut_words, find_words, rule_of
from data import Sentence, read_corpus

SCRIPTS = ["एस्पिरिन से चकत्ते हुआ", "กินยาแล้ว มีผื่น", "مُحَمَّدٌ كَتَبَ", "na\u0308ive cafe\u0301", "क्\u200dष"]


def words_of(text: str, rule: str) -> list[str]:
    return [text[start:end] for start, end in cut_words(text, rule)]


@pytest.mark.parametrize("rule", RULES)
@given(text=st.text())
def test_every_rule_finds_all_but_the_blanks(rule, text):
    assert "".join(words_of(text, rule)) == "".join(text.split())
    assert cut_words(text, rule) == find_words(words_of(text, rule), text)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("text", SCRIPTS)
def test_marks_belong_to_their_letter_in_all_scripts(rule, text):
    assert words_of(text, rule) == text.split()


def test_letters_cuts_at_each_other_character():
    expected = "5 - HT in 3 . 5 cm² , U . S .".split()
    assert words_of("5-HT in 3.5 cm², U.S.", "letters") == expected


def test_treebank_keeps_what_newspapers_keep():
    text = "On Jan. 5 Kim Il-song's 11,700 men left the U.S. -- or Washington."
    expected = "On Jan. 5 Kim Il-song 's 11 , 700 men left the U.S. -- or Washington .".split()
    assert words_of(text, "treebank") == expected
    assert words_of(" ".join(expected), "treebank") == expected


def test_penn_keeps_what_the_treebank_keeps():
    text = "He didn't pay Kim's $11,700 or 1/2 on Nov. 5, and can't."
    expected = "He did n't pay Kim 's $ 11,700 or 1/2 on Nov. 5 , and ca n't .".split()
    assert words_of(text, "penn") == expected
    assert words_of(" ".join(expected), "penn") == expected


def cut(rule: str, *texts: str) -> list[Sentence]:
    return [Sentence.from_text(text, rule=rule) for text in texts]


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_of_a_corpus_is_the_one_that_it_was_cut_by(rule):
    sentences = cut(rule, "A 5-HT antagonist (new).", "Il-song's U.S. visit isn't 1,000 miles")
    assert rule_of(sentences) == (rule, 1.0)


def test_without_a_rule_for_nearly_all_the_best_one_counts():
    odd = SimpleNamespace(text="rash", offsets=[(0, 2), (2, 4)])
    assert rule_of(cut("treebank", "$5 men", "$7 visit") + [odd]) == ("treebank", 2 / 3)
    assert rule_of([odd]) == ("letters", 0.0)
    assert rule_of([]) == ("letters", 0.0)


@pytest.mark.parametrize("odd, rule", [(5, "letters"), (50, "blanks")])
def test_that_blanks_find_words_that_were_joined_by_blanks_says_little(odd, rule):
    words = [["a", "rash", "."]] * (100 - odd) + [["a", "rash."]] * odd
    sentences = [Sentence(str(k), each) for k, each in enumerate(words)]
    assert rule_of(sentences) == (rule, (100 - odd) / 100 if rule == "letters" else 1.0)


@needs_corpora
@pytest.mark.parametrize("dataset, rule", [("toy", "letters"), ("ade", "letters"), ("conll04", "treebank")])
def test_published_corpora_have_the_rule_that_finds_their_words(dataset, rule):
    corpus = read_corpus(dataset, REAL)
    assert rule_of(corpus.train)[0] == rule
    assert sum(cut_words(s.text, rule) == s.offsets for s in corpus.test) >= 0.99 * len(corpus.test)
