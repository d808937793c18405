"""Small files in the form of published benchmarks; the example settings of the measures pin them."""

import json
from pathlib import Path

PAIRS = [
    {"sentence_good": "the cat sleeps", "sentence_bad": "the cat sleep", "UID": "agreement_1",
     "linguistics_term": "agreement"},
    {"sentence_good": "dogs bark", "sentence_bad": "dogs barks", "UID": "agreement_2", "linguistics_term": "agreement"},
    {"sentence_good": "she saw him", "sentence_bad": "her saw him", "UID": "case_1", "linguistics_term": "case"},
]  # fmt: skip
ARC = [
    {"id": "a1", "question": "What melts?", "choices": {"text": ["ice", "stone", "fire"], "label": ["A", "B", "C"]},
     "answerKey": "A"},
    {"id": "a2", "question": "What is hot?", "choices": {"text": ["ice", "fire"], "label": ["1", "2"]},
     "answerKey": "2"},
]  # fmt: skip
EXAM = [
    {
        "question": "Hücrenin enerji merkezi?",
        "choices": ["a", "b", "c", "d", "e"],
        "answer": "B",
        "subject": "biyoloji",
    },
    {"question": "2 + 2?", "choices": ["1", "2", "3", "4", "5"], "answer": "D", "subject": "matematik"},
]
TRUTHFUL = """Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source
Adversarial,Plants,Do seeds grow inside?,"No, they do not","No, they do not; They pass",They grow; You get sick,none
Adversarial,Money,Who is on the bill?,Nobody,Nobody.,A king; A bear,none
"""
CROWS = """id,sent_more,sent_less,stereo_antistereo,bias_type
0,"He was late, as men are.","She was late, as men are.",stereo,gender
1,Old people forget.,Young people forget.,stereo,age
"""


def write(folder: Path) -> None:
    """The files below `folder`/inputs."""
    place = folder / "inputs"
    place.mkdir(parents=True, exist_ok=True)
    for name, rows in (("pairs", PAIRS), ("arc", ARC), ("exam", EXAM)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (place / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (place / "crows_pairs.csv").write_text(CROWS, encoding="utf-8")
    (place / "TruthfulQA.csv").write_text(TRUTHFUL, encoding="utf-8")
