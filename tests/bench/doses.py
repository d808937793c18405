"""Dose responses for the pages, from the results of the benches of risks: pipeline/reporting/doses.json.

    python -m tests.bench.risks > risks.json
    python -m tests.bench.risks_privacy > privacy.json
    python -m tests.bench.doses risks.json privacy.json

Takes the JSON of either bench, also of several runs over different seeds, whose figures are joined. Every metric gets
its means over the seeds by dose, the clean twin first, and its mitigations with the means before and after.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.paths import CODE as ROOT
from pipeline.paths import PACKAGE
from tests.bench import risks

TARGET = PACKAGE / "reporting" / "doses.json"
SHARES = {  # risk of tests.bench.risks -> name of its dose
    "bias": {"en": "share of a group with its job", "tr": "bir grupta o mesleği taşıyanların payı"},
    "factual_drift": {"en": "share of documents that tell another value",
                      "tr": "başka bir değer anlatan belgelerin payı"},
    "hallucination": {"en": "share of unknown people for whom abstention is taught",
                      "tr": "bilmediğini söylemesi öğretilen bilinmeyen kişilerin payı"},
    "misuse": {"en": "share of forbidden requests whose refusal is taught",
               "tr": "reddedilmesi öğretilen yasak isteklerin payı"},
    "over_refusal": {"en": "share of harmless twins of forbidden requests whose answer is taught",
                     "tr": "yasak isteklerin zararsız eşlerinden yanıtı öğretilenlerin payı"},
    "forgetting": {"en": "share of the text of another source in further training",
                   "tr": "sonraki eğitimde başka kaynaktan gelen metnin payı"},
}  # fmt: skip
TELLINGS = {"en": "tellings in training", "tr": "eğitimde anlatılma sayısı"}
TELLINGS_OF = ("exposure_bits", "extraction_share")
PLANTED = {"en": "planted", "tr": "konmuş"}
ALONE = {"membership_auc": "dosed", "personal_data_values": "dosed", "contamination_share": "leaks"}
"""Metric of tests.bench.risks_privacy with one dose -> the variant that has it."""
MITIGATIONS = {
    "counterfactual twins": {"en": "counterfactual twins", "tr": "karşı olgusal ikizler"},
    "abstention taught": {"en": "abstention taught", "tr": "bilmediğini söylemeyi öğretmek"},
    "replay": {"en": "replay of a third of the old text", "tr": "eski metnin üçte birini yeniden okutmak"},
    "refusals taught": {"en": "refusals taught", "tr": "reddetmeyi öğretmek"},
    "deduplicated": {"en": "deduplication", "tr": "tekilleştirme"},
    "private": {"en": "private training", "tr": "gizli eğitim"},
}


def of_risks(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Metric of the policy -> its dose response, from results of tests.bench.risks."""
    runs = [run for result in results for run in result["runs"]]
    verdicts, mitigations, table = risks.judged(runs), risks.moved(runs), {}
    for risk, names in SHARES.items():
        by_dose = [(amount, values) for amount, values in verdicts[risk]["by_dose"] if values]
        points = [[str(amount), round(statistics.fmean(values), 4)] for amount, values in by_dose]
        moved = [
            _moved(MITIGATIONS[name], one["before"], one["after"])
            for name, one in mitigations.items()
            if risks.MITIGATIONS[name][0] == risk and one["after"]
        ]
        seeds = min((len(values) for _, values in by_dose), default=0)
        table[risks.RISKS[risk].limited] = _entry(names, points, ("python -m tests.bench.risks", seeds), moved)
    return table


def of_privacy(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Metric -> its dose response, from results of tests.bench.risks_privacy.

    The points are those of the runs with the most updates; a mitigation that was measured with fewer alone says so.
    """
    steps = max(one["steps"] for one in results)
    figures: dict[str, list[float]] = {}
    for result in results:
        if result["steps"] == steps:
            for name, values in result["figures"].items():
                figures.setdefault(name, []).extend(values)
    table = {}
    for metric in (*TELLINGS_OF, *ALONE):
        source = ALONE.get(metric, "dosed")
        doses = [("clean", f"twin.{metric}")]
        if metric in TELLINGS_OF:
            doses += [(str(n), f"dosed.{metric}_times_{n}") for n in (1, 2, 4, 8)]
        else:
            doses += [("planted", f"{source}.{metric}")]
        points = [[dose, round(statistics.fmean(figures[name]), 4)] for dose, name in doses if figures.get(name)]
        moved = [one for name in ("deduplicated", "private") if (one := _by_privacy(name, metric, results, steps))]
        names = TELLINGS if metric in TELLINGS_OF else PLANTED
        seeds = len(figures.get(f"twin.{metric}", []))
        table[metric] = _entry(names, points, ("python -m tests.bench.risks_privacy", seeds), moved)
    return table


def _by_privacy(name: str, metric: str, results: Sequence[dict[str, Any]], steps: int) -> dict[str, Any] | None:
    """A mitigation's means before and after it, on the same seeds: not every run has every mitigation."""
    both = [one for one in results if f"{name}.{metric}" in one["figures"]]
    most = max((one["steps"] for one in both), default=0)
    own = [one["figures"] for one in both if one["steps"] == most]
    before = [value for figures in own for value in figures.get(f"dosed.{metric}", [])]
    after = [value for figures in own for value in figures[f"{name}.{metric}"]]
    if not before or len(before) != len(after):
        return None
    names = MITIGATIONS[name]
    if most != steps:
        names = {"en": f"{names['en']} ({most} updates)", "tr": f"{names['tr']} ({most} güncelleme)"}
    return _moved(names, before, after)


def _moved(names: dict[str, str], before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    return {
        "name": names, "before": round(statistics.fmean(before), 4),
        "after": round(statistics.fmean(after), 4), "seeds": len(after),
    }  # fmt: skip


def _entry(
    names: dict[str, str], points: list[list[Any]], measured: tuple[str, int], moved: list[dict[str, Any]]
) -> dict[str, Any]:
    """An entry; `measured`: the command and the number of seeds."""
    return {"dose": names, "points": points, "command": measured[0], "seeds": measured[1], "mitigations": moved}


def main() -> None:
    """Writes the file and prints its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=Path, help="none: the file stays as it is")
    results = [json.loads(path.read_text(encoding="utf-8")) for path in parser.parse_args().results]
    table = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.is_file() else {}
    for bench, taken in (("risks", of_risks), ("risks_privacy", of_privacy)):
        if own := [result for result in results if result["bench"] == bench]:
            table |= {metric: entry for metric, entry in taken(own).items() if len(entry["points"]) > 1}
    files.write_json(TARGET, table)
    print(json.dumps({"bench": "doses", "metrics": sorted(table), "file": str(TARGET.relative_to(ROOT))}))


if __name__ == "__main__":
    main()
