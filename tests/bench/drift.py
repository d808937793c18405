"""False alarms and detections of the watch on the embedded world's messages and questions; prints JSON.

    python -m tests.bench.drift [--months 1000] [--repetitions 100]

A month is 30 looks at 500 requests each, drawn without replacement from 16,000 undrifted ones, beside a reference of
770 held-out records, by ten statistics; all months draw from the same requests. The watched classifier is a logistic
regression on words, since the test does not depend on the model. Detections are single looks at 500 requests, at the
level of a look at which labels are tested too.
"""

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import ks_2samp
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from pipeline import tokenizer
from pipeline.data.sources import world
from pipeline.data.sources.world.records import tables
from pipeline.watching import drift, spending
from pipeline.watching.observations import Facts, Observation, Vocabulary, folded_words, observe

SIZES = {"seed": 7, "people": 16, "documents": 0, "preferences": 0, "planted": [], "noise": None, "retold": 0}
NOTHING: dict[str, Any] = {"words": 0, "people": 0, "spam": None, "labels": 0}
REFERENCE, WINDOW, POOL = 770, 500, 16_000
CASES: dict[str, tuple[str, dict[str, float]]] = {
    "none": ("labelled", {}),
    "new words in 30 % of the messages": ("labelled", {"words": 0.3}),
    "new words in 10 % of the messages": ("labelled", {"words": 0.1}),
    "new people in the messages that name one, 6 %": ("labelled", {"people": 1.0}),
    "new people in half of the questions": ("instructions", {"people": 0.5}),
    "80 % spam instead of half": ("labelled", {"spam": 0.8}),
    "70 % spam instead of half": ("labelled", {"spam": 0.7}),
    "labels of 20 % changed at unchanged texts": ("labelled", {"labels": 0.2}),
}


def rows(kind: str, count: int, first: int, **amounts: float) -> list[dict[str, Any]]:
    """Records of the world from a number on, drifted by these amounts."""
    of = world.Settings(
        **SIZES, labelled=count if kind == "labelled" else 0, instructions=count if kind == "instructions" else 0,
        tasks=None, doses=None, drift={"first": first, **NOTHING, **amounts},
    )  # fmt: skip
    return [row for found, table in tables(of) if found == kind for row in table.to_pylist()]


class Watched:
    """A classifier of messages, or a model that answers questions, as far as its observations show it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        train = rows(kind, 6000 if kind == "labelled" else 2000, 0)
        texts = [_text(row) for row in train]
        self.tokenizer = tokenizer.train(texts[:1500], 1024, "gpt2")
        self.vocabulary = Vocabulary.of(texts, centre=self._vectors(texts[:300]).mean(0).tolist())
        counts: dict[str, int] = {}
        for text in texts:
            for word in folded_words(text):
                counts[word] = counts.get(word, 0) + 1
        total = sum(counts.values()) + len(counts)
        self.nats = {word: -np.log((count + 1) / total) for word, count in counts.items()}
        self.rare = float(np.log(total))
        self.classifier = make_pipeline(CountVectorizer(ngram_range=(1, 2)), LogisticRegression())
        if kind == "labelled":
            self.classifier.fit(texts, [row["label"] for row in train])

    def observed(self, found: Sequence[dict[str, Any]]) -> list[Observation]:
        """The observations of records as requests."""
        texts = [_text(row) for row in found]
        labels = self.classifier.predict_proba(texts) if self.kind == "labelled" else np.zeros((len(texts), 0))
        vectors = self._vectors(texts)
        made = []
        for text, shares, vector in zip(texts, labels, vectors, strict=True):
            words = folded_words(text)
            known: dict[str, Any] = {}
            if len(shares):
                entropy = float(-(shares * np.log(shares + 1e-12)).sum())
                label = str(self.classifier.classes_[int(shares.argmax())])
                known = {"label": label, "confidence": float(shares.max()), "answer_nats": entropy}
            facts = Facts(
                tokens=len(self.tokenizer.encode(text)), embedding=vector,
                nats_per_token=sum(self.nats.get(word, self.rare) for word in words) / max(1, len(words)), **known,
            )  # fmt: skip
            made.append(observe(text, facts, self.vocabulary))
        return made

    @staticmethod
    def _vectors(texts: Sequence[str]) -> np.ndarray:
        """Hashed bags of words in 32 numbers."""
        vectors = np.zeros((len(texts), 32))
        for row, text in enumerate(texts):
            for word in folded_words(text):
                place = sum(map(ord, word)) * 7919 + len(word)
                vectors[row, place % 32] += 1
        return vectors


def _text(row: dict[str, Any]) -> str:
    return str(row["text"]) if "text" in row else "\n".join(filter(None, (row["instruction"], row["input"])))


def months(count: int, held_out: list[Observation], live: list[Observation]) -> dict[str, Any]:
    """Months without drift in which a look finds some."""
    generator = np.random.default_rng(1)
    alarmed = looks = 0
    began = time.process_time()
    for _ in range(count):
        reference = [held_out[i] for i in generator.permutation(len(held_out))[:REFERENCE]]
        order = generator.permutation(len(live))
        found = False
        for look in range(spending.LOOKS):
            window = [live[i] for i in order[look * WINDOW : (look + 1) * WINDOW]]
            found = found or drift.compare(reference, window, spending.level(look + 1), generator).drifted
            looks += 1
        alarmed += found
    error = float(np.sqrt(0.05 * 0.95 / count))
    return {
        "months": count, "alarmed": alarmed, "share": alarmed / count, "limit": round(0.05 + 2 * error, 4),
        "milliseconds_of_cpu_a_look": round(1e3 * (time.process_time() - began) / looks, 2),
    }  # fmt: skip


def wolf(held_out: list[Observation], live: list[Observation], looks: int = 300) -> dict[str, Any]:
    """Looks at 100 undrifted requests beside 2,000, of which PSI or one of several tests says that they drifted."""
    generator = np.random.default_rng(2)
    names = (
        "characters",
        "words",
        "fertility",
        "unknown_words",
        "confidence",
        "distance",
        "nats_per_token",
        "answer_nats",
    )
    indices = separate = 0
    pool = held_out + live
    for _ in range(looks):
        order = generator.permutation(len(pool))
        old, new = [pool[i] for i in order[:2000]], [pool[i] for i in order[2000:2100]]
        columns = [[np.array([float(getattr(one, name)) for one in part]) for part in (old, new)] for name in names]
        shares = [[np.array([one.label == "spam" for one in part], float) for part in (old, new)]]
        shares += [[np.array([one.language == "tr" for one in part], float) for part in (old, new)]]
        indices += any(_psi(*pair) > 0.1 for pair in [*columns, *shares])
        separate += any(ks_2samp(*pair).pvalue < 0.05 for pair in [*columns, *shares])
    return {"looks": looks, "psi_over_0.1": indices / looks, "any_of_ten_p_under_0.05": separate / looks}


def _psi(old: np.ndarray, new: np.ndarray) -> float:
    edges = np.unique(np.quantile(old, np.linspace(0, 1, 11)))[1:-1]
    parts = [np.bincount(np.searchsorted(edges, part), minlength=len(edges) + 1) / len(part) for part in (old, new)]
    before, after = (np.maximum(part, 1e-4) for part in parts)
    return float(((after - before) * np.log(after / before)).sum())


def detections(watched: dict[str, Watched], repetitions: int) -> dict[str, Any]:
    """Share of looks at 500 drifted requests that find it."""
    generator, level = np.random.default_rng(3), spending.level(1) / 2
    found = {}
    pools: dict[str, list[Observation]] = {}
    for name, (kind, amounts) in CASES.items():
        if kind not in pools:
            held_out = rows(kind, 1200, 7_000_000) if kind == "labelled" else rows(kind, 3000, 0)[2000:]
            pools[kind] = watched[kind].observed(held_out)
        # instructions have no numbers of their own: the later half of them is beyond training and reference
        drifted = rows(kind, 4000 if kind == "labelled" else 6000, 8_000_000, **amounts)
        live = watched[kind].observed(drifted if kind == "labelled" else drifted[3000:])
        hits = 0
        for _ in range(repetitions):
            reference = [pools[kind][i] for i in generator.permutation(len(pools[kind]))[:REFERENCE]]
            window = [live[i] for i in generator.permutation(len(live))[:WINDOW]]
            hits += drift.compare(reference, window, level, generator).drifted
        found[name] = hits / repetitions
    return found


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--months", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=100)
    chosen = parser.parse_args()
    watched = {kind: Watched(kind) for kind in ("labelled", "instructions")}
    held_out = watched["labelled"].observed(rows("labelled", 4000, 2_000_000))
    live = watched["labelled"].observed(rows("labelled", POOL, 3_000_000))
    looked = drift.compare(held_out[:1000], live[:1000], 0.5, np.random.default_rng(1))
    figures = {
        "bench": "drift",
        "statistics": len({one.name for one in looked.statistics}),
        "by_the_book": wolf(held_out, live),
        "found_at_500_requests": detections(watched, chosen.repetitions),
        "without_drift": months(chosen.months, held_out, live),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
