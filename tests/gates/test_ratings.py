"""If these fail, a few accounts decide what a model learns, or honest raters are stopped."""

from math import comb
from pathlib import Path

import pytest

from pipeline.gates import raw
from pipeline.gates.profiles.ratings import COLUMNS, at_least_by_chance
from tests.gates.builders import GATES, Raw, entry, failed, verdict_on
from tests.gates.rated import Vote, crowd, rows

SETTINGS = raw.Settings.model_validate(GATES["raw"])
EXPECTATIONS = [one for one in raw.expectations(SETTINGS) if one.frame == "ratings"]


def judged(votes: list[Vote], data: Path) -> dict:
    made = Raw()
    made.rate(rows(votes))
    frames = {"ratings": raw.profile(SETTINGS, made.write(data))["ratings"]}
    return verdict_on("raw", frames, EXPECTATIONS)


def profiled(votes: list[Vote], data: Path) -> dict:
    made = Raw()
    made.rate(rows(votes))
    (row,) = raw.ratings.profile(5, made.write(data) / "raw").rows
    return row


@pytest.mark.parametrize("seed", range(5))
def test_gate_stops_a_brigade_of_five_percent_of_raters(seed: int, tmp_path: Path) -> None:
    against = profiled(crowd(seed, "against"), tmp_path / "against")
    loud = profiled(crowd(seed, "loud"), tmp_path / "loud")
    assert against["opposing_raters"] == 5
    assert loud["top_share"] > SETTINGS.ratings.max_top_share
    assert loud["opposing_raters"] == 0
    assert against["opposing_group"] >= 5


def test_gate_finds_a_noisy_brigade_as_a_group(tmp_path: Path) -> None:
    found = [profiled(crowd(seed, "noisy"), tmp_path / str(seed)) for seed in range(6)]
    assert sum(row["opposing_group"] > 0 for row in found) > sum(row["opposing_raters"] > 0 for row in found)


def test_gate_names_the_raters_of_a_brigade(tmp_path: Path) -> None:
    verdict = judged(crowd(7, "against"), tmp_path)
    assert failed(verdict) == {"opposing_raters", "opposing_group"}
    assert not verdict["passed"]
    found = entry(verdict, "opposing_raters")
    assert sorted(record["id"] for record in found["records"]) == [f"u-{number:03}" for number in range(5)]
    assert "against the majority of the other raters" in str(found)


def test_gate_passes_clean_twins_of_a_brigade(tmp_path: Path) -> None:
    bounds = SETTINGS.ratings
    for seed in range(24):
        row = profiled(crowd(seed), tmp_path / str(seed))
        assert row["opposing_raters"] <= bounds.max_opposing_raters, seed
        assert row["opposing_group"] <= bounds.max_opposing_group, seed
        assert row["top_share"] <= bounds.max_top_share
        assert row["rater_share"] <= bounds.max_rater_share
        assert row["against_share"] <= bounds.max_against_share
        assert row["self_contradiction_share"] == 0.0
    assert judged(crowd(0), tmp_path / "judged")["passed"]


def test_gate_lets_one_person_rate_alone(tmp_path: Path) -> None:
    votes = [("u-1", prompt, verdict) for prompt in range(30) for verdict in ("choice:0", "thumb:up")]
    assert judged(votes, tmp_path)["passed"]


def test_gate_counts_a_tie_and_a_correction_for_no_side(tmp_path: Path) -> None:
    votes = [("u-1", 1, "choice:0"), ("u-2", 1, "choice:0"), ("u-3", 1, "choice:tie"), ("u-4", 1, "correction")]
    row = profiled(votes, tmp_path)
    assert (row["ratings"], row["raters"], row["compared"], row["against"]) == (4, 4, 2, 0)


def test_ratings_profile_has_no_row_without_ratings(tmp_path: Path) -> None:
    frame = raw.ratings.profile(5, Raw().write(tmp_path) / "raw")
    assert frame.rows == []
    assert set(COLUMNS) == set(frame.columns)


@pytest.mark.parametrize(("against", "judged"), [(0, 5), (5, 5), (31, 40), (600, 1000)])
def test_chance_is_the_binomial_tail(against: int, judged: int) -> None:
    exact = sum(comb(judged, k) for k in range(against, judged + 1)) / 2**judged
    assert at_least_by_chance(against, judged) == pytest.approx(exact, rel=1e-9)


def test_gate_finds_personal_data_in_ratings(tmp_path: Path) -> None:
    made = Raw()
    made.rate([row | {"correction": "ask me@mail.example"} for row in rows([("u-1", 1, "correction")])])
    (ratings,) = [
        row for row in raw.profile(SETTINGS, made.write(tmp_path))["records"].rows if row["kind"] == "ratings"
    ]
    assert (ratings["rows"], ratings["personal_email"], ratings["personal_iban"]) == (1, 1, 0)
