"""The page "What was learned from judgement": both languages in a headless Chromium, hostile answers, every picture."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import files, frontier, outcomes
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.evaluation import judgement
from pipeline.outcomes import Outcomes
from pipeline.reporting import judgement_page, model_page, report
from tests import reports
from tests.browser import opened
from tests.prose import english

PROMPTS = 60


def measured(turned: bool) -> tuple[dict[str, float], dict[str, Any], list[dict[str, Any]]]:
    """Metrics, details and outcomes of measure judgement as they are for a model that was trained from a chat model."""
    generator = np.random.default_rng(1)
    pool = {"true": generator.random((PROMPTS, 64)), "judge": generator.normal(size=(PROMPTS, 64))}
    rewards = {name: values[:, :4] + 0.2 for name, values in pool.items()}
    settings = judgement.Settings(split="test", max_records=None, parent="base", judge=None, samples=4, max_tokens=8,
                                  pool=64)  # fmt: skip
    details, metrics = judgement._frontier(settings, pool, rewards)
    rows = [{"id": str(i), "language": ("tr", "en")[i % 2]} for i in range(PROMPTS)]
    won = np.clip(generator.normal(0.7, 0.2, PROMPTS), 0, 1)
    wins = {name: judgement.win_interval(won, rows, f"{name}_win_rate") for name in pool}
    for name, values in rewards.items():
        metrics |= {f"{name}_reward": values.mean(), f"{name}_reward_parent": pool[name].mean(),
                    f"{name}_win_rate": wins[name]["rate"]}  # fmt: skip
    metrics |= {"kl_nats": 3.2, "kl_log_ratio_nats": 3.1, "answer_tokens": 9.5}
    kl = [0.0, 0.2, 0.5, 1, 2, 4, 8, 16, 32]
    distance = np.sqrt(kl[1:])
    gain = {"judge": 0.2 * distance, "true": distance * (0.25 - (0.15 if turned else 0.03) * np.log(distance))}
    curves = {}
    for name, mean in gain.items():
        gains = np.append(0.0, mean)[:, None] + 0.02 * generator.standard_normal((9, PROMPTS))
        curve = frontier.fit(kl, gains)
        curves[name] = curve._asdict() | {"turns": curve.turns}
    points = [{"update": 10 * i, "kl_nats": kl[i], "answer_tokens": 9.0}
              | {f"{name}_reward": 0.4 + float(np.append(0.0, mean)[i]) for name, mean in gain.items()}
              for i in range(9)]  # fmt: skip
    samples = [
        {"question": f"Soru {i}?", "answer": reports.HOSTILE, "before": "</td><img src=x onerror=alert(1)>",
         "true_reward": 0.8, "true_reward_before": 0.4, "judge_reward": 1.0, "judge_reward_before": -1.0}
        for i in range(12)
    ]  # fmt: skip
    found = {"parent": "base", "kl_error_nats": 0.1, "wins": wins, "samples": samples, "frontier": details,
             "along": {"points": points, "curves": curves}}  # fmt: skip
    return metrics, found, [outcomes.plain(Outcomes("true_win_rate", rows, won.tolist()))]


def write(language: str, turned: bool = True) -> Params:
    """The files of a graph whose chat model was measured by judgement."""
    params = reports.write(language)
    metrics, details, values = measured(turned)
    folder = Path("reports/evaluation/chat-full")
    files.write_json(folder / "metrics.json", files.read_json(folder / "metrics.json") | metrics)
    files.write_json(folder / "details.json", files.read_json(folder / "details.json") | {"judgement": details})
    files.write_table(folder / "outcomes.parquet", outcomes.table({"judgement": values}))
    heads = '"step","train_loss_nats","validation_loss_nats","validation_reward","validation_kl_nats"'
    rows = "\n".join(f"{i},2.0,-0.{i},0.{i},{i}.5" for i in range(1, 9))
    files.write_text(Path("reports/training/chat-full.csv"), f"{heads}\n{rows}\n")
    params.evaluations["chat-full"].measures["judgement"] = {}
    return params


def rendered(params: Params) -> str:
    return judgement_page.render(params, {model["name"]: model for model in report.all_models(params)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page in both languages, and in English without a turning point."""
    folder = tmp_path_factory.mktemp("judgement")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, language, turned in (("en", "en", True), ("tr", "tr", True), ("rising", "en", False)):
            files.write_text(folder / f"{name}.html", rendered(write(language, turned)))
    return folder


def test_page_is_readable_in_both_languages_and_schemes(folder: Path) -> None:
    with opened(folder / "browser") as tab:
        for language, width, scheme in (("en", 400, "light"), ("tr", 400, "dark"), ("en", 1200, "dark")):
            tab.open(folder / f"{language}.html", width, scheme)
            found = tab.errors(), tab.beyond_the_edge(), tab.poor_contrast()
            assert found == ([], 0, []), (language, width, scheme)
        assert all(marked for _, marked in tab.tabbed())


def test_page_shows_hostile_answers_as_text_and_says_what_the_pictures_show(folder: Path) -> None:
    page = (folder / "en.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert page.count("&lt;script&gt;alert(1)") == 12
    assert len(re.findall(r'<svg role="img" aria-label="[^"]{20,}"', page)) == 3
    assert page.count("<figcaption>") == 3
    assert "truth: a turning point is found at a KL of" in page
    assert "judge: no turning point is found" in page
    assert "preferred to that of base in" in page
    assert "truth: no turning point is found" in (folder / "rising.html").read_text(encoding="utf-8")


def test_turkish_page_has_no_english(folder: Path) -> None:
    page = (folder / "tr.html").read_text(encoding="utf-8")
    assert english(page) == []
    assert "dönüm noktası bulundu" in page


def test_report_links_the_page_only_where_a_recipe_learns_from_judgement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = write("en")
    link = f'href="models/{judgement_page.FILE}"'
    assert link in report.render(params)
    model_page.write(params)
    assert (Path("reports/models") / judgement_page.FILE).is_file()
    plain = reports.write("en")
    assert link not in report.render(plain)
    model_page.write(plain)
    assert not (Path("reports/models") / judgement_page.FILE).exists()
    with pytest.raises(UserError, match="tohum profile preferences"):
        judgement_page.render(plain, {})
