"""The random inputs of the proof show what an implementation may stumble over."""

from collections import Counter

from hypothesis import Phase, given, settings

from tests.inputs import cases, each, joined


def features_of(case):
    """Whether a case has each feature that an implementation may stumble over."""
    tuples = [(*head, *tail) for _, _, (head, tail) in joined(case)]
    mirrors = [(b, (tail, head)) for b, _, (head, tail) in each(case.pairs)]
    return {
        "sentences of different lengths": len(set(case.lengths)) > 1,
        "a sentence of one word, one wordpiece": 2 in case.lengths,
        "a span as wide as can be": any(6 in widths for widths in case.widths),
        "a sentence without a span beside one with some": [] in case.spans and any(case.spans),
        "no span at all": not any(case.spans),
        "spans but no pair": any(case.spans) and not any(case.pairs),
        "a pair and its mirror": any(mirror in case.pairs[b] for b, mirror in mirrors),
        "overlap": any(a < c < b < d for a, b, c, d in tuples),
        "one span in another": any(a < c and d < b for a, b, c, d in tuples),
        "nested spans that begin together": any(a == c for a, b, c, d in tuples),
        "adjacent spans: nothing between": any(b == c for a, b, c, d in tuples),
        "a head, some wordpieces, a tail": any(b + 1 < c for a, b, c, d in tuples),
        "a tail, some wordpieces, a head": any(d + 1 < a for a, b, c, d in tuples),
    }


def test_of_a_hundred_random_inputs_three_or_more_show_each_feature():
    shown = Counter()

    @settings(max_examples=100, phases=[Phase.generate], derandomize=True)
    @given(case=cases())
    def count(case):
        shown.update(features_of(case))

    count()
    assert min(shown.values()) >= 3, shown
