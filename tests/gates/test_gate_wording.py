"""If these fail, a page of a gate mixes two languages, or says in Turkish something else than in English."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import config, files, wording
from pipeline.config.params import Bound, Params, Waiver
from pipeline.gates import _page, _run, _verdict, _wording, model, raw, samples, tokens
from pipeline.gates._rules import Example, Expectation, Frame, Tally, suite, zero
from pipeline.gates._wording import PLAIN, Said
from pipeline.paths import CODE
from tests.gates.builders import GATES, Raw, Samples, Tokens, all_failed
from tests.prose import english, fields, prose

ENGLISH, TURKISH = _wording.load("en"), _wording.load("tr")
SENTENCES = yaml.safe_load((_wording.FOLDER / "gate_sentences.tr.yaml").read_text(encoding="utf-8"))
BASELINE = {
    "accuracy": 0.9, "baseline_accuracy": 0.8, "majority_accuracy": 0.5, "examples": 1200.0, "only_model_right": 9.0,
    "only_baseline_right": 3.0,
}  # fmt: skip
RIDGE = {
    "rmse": 0.5, "baseline_rmse": 0.75, "mean_rmse": 1.5, "examples": 1200.0, "model_closer": 9.0,
    "baseline_closer": 3.0,
}  # fmt: skip
LANGUAGE = {"loss_nats": 2.5, "unigram_entropy_nats": 6.0, "distinct_2": 0.5, "repetition_share": 0.1, "empty_share": 0}
ATTRIBUTES = {"sex": {"groups": {"women": ["kadın"], "men": ["adam"]}, "min_share": 0.2}}
BOUNDS = {
    "accuracy": Bound(at_least=0.95, at_most=None), "rmse": Bound(at_least=None, at_most=1.5),
    "loss_nats": Bound(at_least=0.1, at_most=3.0), "acuracy": Bound(at_least=0.5, at_most=None),
    "zzz": Bound(at_least=0.5, at_most=None),
}  # fmt: skip


def model_expectations(metrics: Mapping[str, float], folder: Path) -> tuple[list[Expectation], dict[str, Frame]]:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.json").write_text(str(dict(metrics)).replace("'", '"'), encoding="utf-8")
    frames = model.profile(folder, BOUNDS)
    return model.expectations(model.Settings.model_validate(GATES["model"]), "base", BOUNDS, frames), frames


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, _verdict.Judgement]:
    """Every gate on whole data, with every expectation failed on every row."""
    folder = tmp_path_factory.mktemp("gates")
    data = Samples(Tokens(Raw())).write(folder / "data")
    settings = {
        "raw": GATES["raw"] | {"attributes": ATTRIBUTES},
        "tokens": GATES["tokens"],
        "samples": GATES["samples"],
    }
    found = {}
    for gate, of in (("raw", raw), ("tokens", tokens), ("samples", samples)):
        chosen = of.Settings.model_validate(settings[gate])
        found[gate] = all_failed(gate, of.profile(chosen, data), of.expectations(chosen))
    for name, metrics in {"classifier": BASELINE | LANGUAGE, "regression": RIDGE}.items():
        expectations, frames = model_expectations(metrics, folder / name)
        found[name] = all_failed(name, frames, expectations)
    return found


def test_pages_have_the_same_keys_and_fields_in_both_languages() -> None:
    ours, theirs = ENGLISH.words.table, TURKISH.words.table
    assert set(ours) == set(theirs)
    assert {key for key in ours if fields(ours[key]) != fields(theirs[key])} == set()


def test_every_sentence_of_a_gate_has_a_turkish_one_with_its_fields(judged: dict[str, _verdict.Judgement]) -> None:
    used: set[str] = set()
    for judgement in judged.values():
        for one in judgement.expectations:
            for text in (one.statement, one.params_key, one.finding or PLAIN):
                if isinstance(text, Said):
                    used.add(text.key)
                    assert fields(SENTENCES[text.key]) <= set(text.values), text
                elif " " in text:
                    used.add(text)
                    assert fields(SENTENCES[text]) == fields(text), text
    assert set(SENTENCES) - used == {"no reason", "{n} more labels"}, "sentences that no gate says"


def test_a_turkish_page_has_no_english(judged: dict[str, _verdict.Judgement]) -> None:
    for name, judgement in judged.items():
        page = _page.page(judgement.verdict(TURKISH), TURKISH)
        assert english(page) == [], name
        assert '<html lang="tr">' in page
        assert len(english(_page.page(judgement.verdict()))) > 5, name


def test_an_english_page_has_no_turkish(judged: dict[str, _verdict.Judgement]) -> None:
    for name, judgement in judged.items():
        texts = prose(_page.page(judgement.verdict()))
        turkish = [text for text in texts if set(text) & set("ğışİöüç") and "mojibake" not in text]
        assert all("müşteri" in text for text in turkish), name


def test_values_of_a_turkish_page_are_written_as_in_turkish(judged: dict[str, _verdict.Judgement]) -> None:
    page = _page.page(judged["classifier"].verdict(TURKISH), TURKISH)
    assert "aynı 1.200 ayrılmış kayıtta modelin doğruluğu 0,9" in page
    assert "accuracy en az 0,95" in page
    assert "loss_nats en az 0,1, en çok 3" in page
    assert "accuracy mi demek istediniz?" in page
    assert "base modelinin eğitim eğrisine bakın" in page
    assert "0,1 – 3" in page


def test_a_waiver_and_what_cannot_be_computed_stand_on_a_turkish_page_as_they_were_written() -> None:
    made = Frame(("kind",), ("bad",))
    made.add({"kind": "documents", "bad": Tally(1, [Example("id0", "file.csv:1", "the text of a record")])})
    rows = suite("gates.raw", None, [("frame", "bad", zero("key"), "no text has two labels")])
    waiver = Waiver(
        gate="raw", expectation=rows[0].expectation, column="bad", reason="it is known to all", until="2031-02-28"
    )
    verdict = _verdict.judge("raw", {"frame": made}, rows, [waiver]).verdict(TURKISH)
    page = _page.page(verdict, TURKISH)
    assert "Muafiyetin son günü 28.02.2031" in page
    assert "it is known to all" in page
    assert "1 kural muaf tutuldu; toplam 1 kural." in page
    assert english(page) == []


def test_labels_beyond_those_listed_and_no_reasons_have_turkish_words() -> None:
    assert TURKISH.shown(Said("1,200 more labels", "{n} more labels", n=1200)) == "1.200 etiket daha"
    assert TURKISH.shown(Said("none", "no reason")) == "neden yok"
    assert ENGLISH.shown(Said("none", "no reason")) == "none"


def test_a_sentence_without_a_turkish_one_stays_english() -> None:
    assert TURKISH.sentence("a rule of one's own") == "a rule of one's own"
    assert TURKISH.sentence(Said("own 3", "own {n}", n=3)) == "own 3"


def test_judge_data_writes_an_english_verdict_and_a_page_in_the_language_of_the_report(tmp_path: Path) -> None:
    """Lost otherwise: the registry, the terminal and the flow would read sentences of two languages."""
    read = config.load(CODE / "params.yaml").model_copy(update={"gates": GATES, "waivers": []})
    made = Raw()
    made.add("labelled", "write to a@mail.example about the house and the river")
    data = made.write(tmp_path / "data")
    verdicts = {}
    for language in ("en", "tr"):
        verdicts[language] = _run.judge_data("raw", in_language(read, language), data=data, reports=tmp_path / language)
    assert verdicts["en"] == verdicts["tr"]
    folders = [tmp_path / language / "gates/raw" for language in ("en", "tr")]
    written = [files.read_json(folder / "verdict.json")["results"] for folder in folders]
    assert written[0] == written[1]
    pages = [(folder / "page.html").read_text(encoding="utf-8") for folder in folders]
    assert "1 of 25 records hold an e-mail address" in pages[0]
    assert "25 kaydın 1 tanesinde e-posta adresi var" in pages[1]
    assert english(pages[1]) == []


def in_language(params: Params, language: str) -> Params:
    changed: dict[str, Any] = {"report": params.report.model_copy(update={"language": language})}
    return params.model_copy(update=changed)


def test_dates_have_the_format_of_the_language() -> None:
    assert [one.words.date("2031-02-28") for one in (ENGLISH, TURKISH)] == ["2031-02-28", "28.02.2031"]
    assert TURKISH.words.date("bir gün") == "bir gün"
    assert wording.Words("en", {}).language == "en"
