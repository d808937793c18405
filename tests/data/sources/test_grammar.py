"""The grammar engine: sampling, exact scoring and enumeration are three readings of one distribution."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.sources.world.grammar import (
    Choice,
    Let,
    Node,
    Sequence,
    Text,
    enumerate_texts,
    first_mention,
    log2p,
    repeat,
    sample,
    template,
)

LEAVES = st.sampled_from(["", "a", "b", "ab", "ba", "aab"]).map(Text)


def _grow(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    several = st.lists(st.tuples(children, st.floats(0.1, 5)), min_size=1, max_size=3)
    return st.one_of(
        several.map(lambda pairs: Choice([node for node, _ in pairs], [weight for _, weight in pairs])),
        st.lists(children, min_size=1, max_size=3).map(Sequence),
        st.tuples(children, st.dictionaries(st.integers(0, 2), st.floats(0.1, 5), min_size=1)).map(
            lambda two: repeat(*two)
        ),
        children.map(lambda node: Let(["a", "b", ""], lambda value: Sequence([value, node, value]), [1, 2, 3])),
    )


GRAMMARS = st.recursive(LEAVES, _grow, max_leaves=6)


def ambiguous() -> Node:
    """Texts with several derivations: splits of a run of letters, a hidden latent, equal options."""
    run = Choice(["a", "aa", "aaa", "a"], [1, 2, 1, 1])
    hidden = Let([1, 2, 3], lambda n: Sequence(["a" * n, Choice(["", "b"], [n, 1])]), [3, 2, 1])
    return Sequence([Choice(["", "a"]), run, repeat(Choice([run, hidden]), {0: 1, 1: 2, 2: 1})])


@settings(max_examples=150, deadline=None)
@given(GRAMMARS)
def test_log2p_sums_all_derivations(grammar: Node) -> None:
    """Otherwise `bits` in the data, and so the distance of a model from the optimum, are wrong."""
    texts = enumerate_texts(grammar)
    assert math.isclose(math.fsum(texts.values()), 1, abs_tol=1e-12)
    for text, p in texts.items():
        assert math.isclose(2 ** log2p(grammar, text), p, rel_tol=1e-12, abs_tol=1e-15)


def test_log2p_counts_ambiguous_derivations() -> None:
    """A parser that took the best derivation only would understate what a perfect model knows."""
    grammar = ambiguous()
    texts = enumerate_texts(grammar)
    assert len(texts) > 20
    assert math.fsum(2 ** log2p(grammar, text) for text in texts) == pytest.approx(1, abs=1e-12)
    assert log2p(Choice(["ab", Sequence(["a", "b"])]), "ab") == pytest.approx(0, abs=1e-12)


def test_sample_follows_the_probabilities() -> None:
    """Monte Carlo: a sampler that disagrees with the score would make the world's entropy a fiction."""
    grammar, rng, draws = ambiguous(), random.Random(5), 20_000
    seen = Counter(sample(grammar, rng) for _ in range(draws))
    texts = enumerate_texts(grammar)
    assert set(seen) <= set(texts)
    for text, p in texts.items():
        assert abs(seen[text] - draws * p) < 5 * math.sqrt(draws * p * (1 - p)) + 1


def test_log2p_is_minus_infinity_outside_the_grammar() -> None:
    """A story that was altered must not pass for a sampled one."""
    grammar = Sequence(["On ", Choice(["Monday", "Tuesday"]), "."])
    for text in ("", "On Monday", "On Monday..", "on Monday.", "On Friday."):
        assert log2p(grammar, text) == -math.inf


def test_choice_tells_options_with_a_common_prefix_apart() -> None:
    """Dispatch on leading characters is an index; it may neither lose a derivation nor count one twice."""
    names = ["Ali", "Alican", "A", ""]
    grammar = Choice([Sequence([Choice(names), Choice([" geldi", "can geldi", " gitti"])]), "Alican geldi"], [3, 1])
    texts = enumerate_texts(grammar)
    assert all(math.isclose(2 ** log2p(grammar, text), p, rel_tol=1e-12) for text, p in texts.items())


def test_choice_shortens_leads_for_many_options() -> None:
    """More options than the index holds must still be scored exactly."""
    wide = Choice([Sequence([f"{number:03d}", Choice(["x", "y"])]) for number in range(400)])
    grammar = Choice([Sequence([wide, "!"]), Sequence([wide, "?"])])
    assert log2p(grammar, "123y?") == pytest.approx(-math.log2(1600), abs=1e-12)


def test_template_draws_each_slot_independently() -> None:
    """`{n} and {n}` must not repeat itself."""
    node = template("{n} and {n}{end}", {"n": Choice(["1", "2"]), "end": "."})
    assert enumerate_texts(node) == {f"{a} and {b}.": 0.25 for a in "12" for b in "12"}
    assert enumerate_texts(template("{x}{y}", {"x": "a", "y": "b"})) == {"ab": 1.0}
    with pytest.raises(KeyError):
        template("{unknown}", {})


def test_first_mention_cuts_before_the_first_slot_of_a_latent() -> None:
    """Binding later than the first mention would leave a slot unfilled."""
    assert first_mention("At {time} {q.city} {q}", "q") == ("At {time} ", "{q.city} {q}")
    assert first_mention("{queue} only", "q") == ("{queue} only", "")
