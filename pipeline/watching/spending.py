"""Error rate over looks: the level of each test, so that a month of looks at undrifted requests seldom has an alarm.

The rate of a period is spent in parts (Lan & DeMets 1983, "Discrete Sequential Boundaries for Clinical Trials",
Biometrika 70, section 2: the parts of all looks sum to at most the rate). Boundaries of O'Brien & Fleming save it for
the last look, since a trial's data accumulate; here each look reads new requests and drift may begin at any time, so
the parts are equal. Their sum bounds the probability of an alarm (Bonferroni), however looks depend on each other, for
example by one reference or by windows that overlap.
"""

RATE = 0.05
"""Probability, at most, of a warning or an alarm within a period without drift."""
LOOKS = 30
"""Looks of a period that share four fifths of the rate: one a day."""
DAYS = 30
"""Length of a period, from its first look."""
_OF_FIRST = 0.8


def level(look: int, rate: float = RATE) -> float:
    """The part of the rate that a look may spend; the parts of any number of looks sum to at most the rate.

    Args:
        look: its number in the period, from 1. The first LOOKS spend equal parts; the k-th one after them spends
            (1 - 0.8) rate / (k (k + 1)), a series with the sum 0.2 rate, so that more frequent looks stay valid.
        rate: of the period.
    """
    if look <= LOOKS:
        return _OF_FIRST * rate / LOOKS
    later = look - LOOKS
    return (1 - _OF_FIRST) * rate / (later * (later + 1))
