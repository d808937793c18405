"""Dose responses of the pages, from results of the benches of risks."""

from pathlib import Path

import pytest

from pipeline import files
from pipeline.reporting import risks as shown
from tests.bench import doses, risks


def result(first: int, bias: list[float], mitigated: list[float]) -> dict:
    """A result of tests.bench.risks over some seeds, with the first one's number."""
    models = {"base": {"bias_nats": 0.1}} | {
        name: dict.fromkeys((*risks.limits(), "forgotten_nats_world"), 0.2)
        for name in ("chat", "new", "new-replay", *risks.OTHER_SHARES)
    }
    seeds = range(first, first + len(bias))
    runs = [{"seed": seed, "level": "clean", **models} for seed in seeds]
    for level, values in (("high", bias), ("mitigated", mitigated)):
        runs += [
            {"seed": seed, "level": level, **models, "base": {"bias_nats": value}}
            for seed, value in zip(seeds, values, strict=True)
        ]
    return {"bench": "risks", "runs": runs}


def test_of_risks_joins_seeds_and_names_the_mitigation() -> None:
    table = doses.of_risks([result(1, [2.0, 3.0], [0.5, 0.5]), result(3, [4.0], [0.2])])
    entry = table["bias_nats"]
    assert entry["points"] == [["0.5", 0.1], ["0.95", 3.0]]
    assert entry["seeds"] == 3
    (moved,) = entry["mitigations"]
    assert (moved["name"]["en"], moved["before"], moved["after"]) == ("counterfactual twins", 3.0, 0.4)
    assert table["forgotten_nats"]["points"] == []


def test_of_risks_gives_forgetting_by_the_share_of_other_text() -> None:
    continued = {name: {"forgotten_nats_world": 4 * share} for name, share in risks.OTHER_SHARES.items()}
    run = {"seed": 1, "level": "continued", **continued}
    table = doses.of_risks([{"bench": "risks", "runs": [run]}])
    assert table["forgotten_nats"]["points"] == [["0.0", 0.0], ["0.25", 1.0], ["0.5", 2.0], ["1.0", 4.0]]


def test_of_privacy_takes_tellings_and_the_clean_twin() -> None:
    figures = {
        "twin.exposure_bits": [1.5], "dosed.exposure_bits": [5.0], "private.exposure_bits": [2.0],
        "dosed.exposure_bits_times_1": [1.0], "dosed.exposure_bits_times_8": [8.0],
        "twin.membership_auc": [0.5], "dosed.membership_auc": [0.9],
    }  # fmt: skip
    other = {"dosed.exposure_bits_times_8": [6.0], "dosed.exposure_bits": [9.0]}  # a seed without private training
    table = doses.of_privacy([{"steps": 600, "figures": figures}, {"steps": 600, "figures": other}])
    assert table["exposure_bits"]["points"] == [["clean", 1.5], ["1", 1.0], ["8", 7.0]]
    assert [(one["name"]["en"], one["before"], one["after"]) for one in table["exposure_bits"]["mitigations"]] == [
        ("private training", 5.0, 2.0)
    ]
    assert table["membership_auc"]["points"] == [["clean", 0.5], ["planted", 0.9]]


def test_of_privacy_names_the_updates_of_a_mitigation_that_was_measured_with_fewer() -> None:
    """Before and after are of the same runs; the points are of the longer ones alone."""
    long = {"twin.exposure_bits": [1.5], "dosed.exposure_bits": [8.0], "dosed.exposure_bits_times_8": [8.0]}
    short = {"twin.exposure_bits": [9.0], "dosed.exposure_bits": [5.0], "private.exposure_bits": [2.0]}
    table = doses.of_privacy([{"steps": 600, "figures": long}, {"steps": 240, "figures": short}])
    assert table["exposure_bits"]["points"] == [["clean", 1.5], ["8", 8.0]]
    assert table["exposure_bits"]["seeds"] == 1
    (moved,) = table["exposure_bits"]["mitigations"]
    assert (moved["name"]["en"], moved["before"], moved["after"]) == ("private training (240 updates)", 5.0, 2.0)
    assert moved["name"]["tr"] == "gizli eğitim (240 güncelleme)"


def test_main_writes_what_the_pages_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = doses.ROOT / "pipeline/reporting/doses.json"
    assert target == doses.TARGET == shown._DOSES
    files.write_json(tmp_path / "one.json", result(1, [2.0], [0.5]))
    monkeypatch.setattr(doses, "TARGET", tmp_path / "doses.json")
    monkeypatch.setattr(doses, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["doses", str(tmp_path / "one.json")])
    doses.main()
    monkeypatch.setattr(shown, "_DOSES", tmp_path / "doses.json")
    shown.doses.cache_clear()
    try:
        assert "bias_nats" in shown.doses()
        assert "forgotten_nats" not in shown.doses()
        assert shown.doses()["bias_nats"].mitigations[0].after == 0.5
    finally:
        shown.doses.cache_clear()


def test_limits_of_the_profile_separate_the_clean_twin_from_the_highest_dose() -> None:
    """Lost otherwise: a limit that was moved by hand and that the measured dose response contradicts."""
    measured = shown.doses()
    for metric, limit in risks.limits().items():
        points = dict(measured[metric].points)
        clean, *_, highest = points.values()
        assert clean < limit < highest, metric
