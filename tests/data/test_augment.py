"""Lost otherwise: changed copies mean something else than their records, or differ between runs."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline import config
from pipeline.config import plugins
from pipeline.config.params import Download
from pipeline.data.augment.case import cased
from pipeline.data.augment.diacritics import plain
from pipeline.data.collect import collect
from pipeline.data.formats._shape import BadRow
from pipeline.data.originals import Context, Original
from pipeline.data.records import record_id
from pipeline.errors import UserError
from pipeline.paths import CODE
from tests.data.sources.chat_server import ChatServer, says, status
from tests.data.sources.test_synthesised import asking
from tests.data.test_collect import source

TURKISH = Original("1", "tr", "Iğdır'ın ŞEFTALİSİ 1.250 liraya ılık güz günlerinde satılır mı?")
ENGLISH = Original("2", "en", "Is the café in Leeds open at 10:30 on Sundays?")
TEXTS = [TURKISH, ENGLISH, Original("3", "und", "?"), Original("4", "de", "Größe und Maß 7 Übungen")]
OFFLINE = [name for name in plugins.choices("data/augment") if name != "back_translation"]


def changed(name: str, originals=TEXTS, seed: int = 1, **fields):
    settings = plugins.settings_class("data/augment", name).model_validate(
        fields or plugins.example("data/augment", name)
    )
    return list(plugins.load("data/augment", name).build(settings, Context(seed, "augment[0]")).texts(originals))


@pytest.mark.parametrize("name", OFFLINE)
def test_augmentation_is_the_same_in_any_order_and_with_any_others(name):
    together = changed(name)
    assert len(together) == len(TEXTS)
    assert changed(name, TEXTS[::-1]) == together[::-1]
    assert [changed(name, [text])[0] for text in TEXTS] == together
    assert any(text is not None and text != original.text for text, original in zip(together, TEXTS, strict=True))
    assert all(text != original.text for text, original in zip(together, TEXTS, strict=True))


@pytest.mark.parametrize("name", OFFLINE)
def test_augmentation_takes_every_example_of_its_settings(name):
    for fields in plugins.examples("data/augment", name):
        assert len(changed(name, **fields)) == len(TEXTS)


@pytest.mark.parametrize("name", ["typos", "case", "paraphrase"])
def test_augmentation_changes_with_the_seed(name):
    fields = {"rate": 0.3} if name == "typos" else {}
    assert len({str(changed(name, seed=seed, **fields)) for seed in range(8)}) > 1


def test_typos_keep_digits_and_signs_and_hit_letters_at_their_rate():
    text = "abcdefghij 12.345, " * 200
    (mistyped,) = changed("typos", [Original("1", "en", text)], rate=0.1)
    assert mistyped.count("12.345, ") == 200
    assert [c for c in mistyped if not c.isalpha()] == [c for c in text if not c.isalpha()]
    errors = sum(a != "abcdefghij" for a in mistyped.replace(" 12.345, ", "\n").split("\n")[:200])
    assert 90 < errors < 160  # 200 words of ten letters: 1 - 0.9^10 = 65 % with an error


def test_typos_use_neighbours_on_the_keyboard_of_the_language():
    letters = {
        code: set(
            "".join(
                text or ""
                for text in changed("typos", [Original(str(k), code, "ı" * 3 + "k") for k in range(300)], rate=1.0)
            )
        )
        for code in ("tr", "en")
    }
    assert {"o", "u"} <= letters["tr"]
    assert not {"ğ", "ş"} & letters["en"]


def test_case_follows_the_rules_of_the_language():
    assert cased("ılık İğne", "upper", "tr") == "ILIK İĞNE"
    assert cased("ILIK İĞNE", "lower", "tr") == "ılık iğne"
    assert cased("ILIK iğne", "title", "tr") == "Ilık İğne"
    assert cased("in Illinois", "upper", "en") == "IN ILLINOIS"


def test_diacritics_drops_them_and_nothing_else():
    assert plain("Iğdır'ın ŞEFTALİSİ çok ÖZÜ, 1.250!") == "Igdir'in SEFTALISI cok OZU, 1.250!"
    assert plain("café Maß naïve 東京") == "cafe Maß naive 東京"
    text = "şeker " * 400
    (half,) = changed("diacritics", [Original("1", "tr", text)], rate=0.5)
    assert 150 < half.count("seker") < 250
    assert changed("diacritics", [Original("1", "en", "no such letter")], rate=1.0) == [None]


def test_counterfactual_exchanges_whole_words_with_their_capitals():
    pairs = {"en": [["woman", "man"], ["she", "he"]], "tr": [["iyi", "ılık"], ["kadın", "erkek"]]}
    texts = [
        Original("1", "en", "She is a woman; the man said he, the theatre and womankind wait. Man!"),
        Original("2", "tr", "İyi kadın, ılık ERKEK, Ilık kadınlar."),
        Original("3", "de", "she"),
        Original("4", "en", "nobody"),
    ]
    assert changed("counterfactual", texts, exchange=pairs) == [
        "He is a man; the woman said she, the theatre and womankind wait. Woman!",
        "Ilık erkek, iyi ERKEK, İyi kadınlar.",
        None,
        None,
    ]


@pytest.mark.parametrize("pairs", [[["a"]], [["a", "a"]], [["a", "b"], ["b", "c"]]])
def test_counterfactual_refuses_what_is_no_pair(pairs):
    with pytest.raises(UserError, match=r"augment\[0\]\.exchange\.en has .*expected two different words"):
        changed("counterfactual", exchange={"en": pairs})


def test_augmented_gives_twins_of_documents_without_bits(tmp_path, monkeypatch):
    """With all twins, training text tells each fact of both groups equally often."""
    monkeypatch.chdir(tmp_path)
    world = yaml.safe_load((CODE / "params.yaml").read_text())["download"]["sources"]["world"]
    doses = {"skew": {"attribute": "sex", "share": 0.95}, "unmentioned": None, "changed": None, "requests": None}
    told = world | {"people": 32, "documents": 60, "labelled": 0, "instructions": 0, "preferences": 0, "doses": doses}
    pairs = {"en": [["woman", "man"]], "tr": [["kadın", "erkek"]]}
    twins = augmented({"name": "counterfactual", "share": 1.0, "exchange": pairs}, of="world", kind="documents")
    sources = {"world": told, "twins": twins}
    collect(Download.model_validate({"forget": None, "sources": sources}), tmp_path / "raw", progress=False)
    rows = pq.read_table(tmp_path / "raw/documents.parquet").to_pylist()
    made = [row for row in rows if row["twin_of"]]
    assert made
    by_id = {row["id"]: row["text"].split() for row in rows}
    for row in made:
        assert row["bits"] is None
        differing = {(a, b) for a, b in zip(by_id[row["twin_of"]], row["text"].split(), strict=True) if a != b}
        assert differing
        bare = {tuple(word.strip('.,;"') for word in pair) for pair in differing}
        assert bare <= {("woman", "man"), ("man", "woman"), ("kadın", "erkek"), ("erkek", "kadın")}


def test_paraphrase_keeps_the_text_and_skips_languages_without_templates():
    results = changed("paraphrase")
    assert TURKISH.text in results[0]
    assert ENGLISH.text in results[1]
    assert results[2:] == [None, None]


def test_paraphrase_takes_the_users_templates_and_names_faulty_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inputs").mkdir()
    own = tmp_path / "inputs/own.yaml"
    own.write_text('de: ["Sag mir: {text}"]\n')
    assert changed("paraphrase", templates="inputs/own.yaml")[3] == "Sag mir: Größe und Maß 7 Übungen"
    for text, message in [
        ("de: [x]", "0 times"),
        ("de: '{text}'", "list of templates"),
        ("- x", "languages"),
        (": :", "YAML"),
    ]:
        own.write_text(text)
        with pytest.raises(UserError, match=message):
            changed("paraphrase", templates="inputs/own.yaml")
    with pytest.raises(UserError, match="no such file"):
        changed("paraphrase", templates="inputs/none.yaml")


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.data.sources._chat._FIRST_PAUSE_S", 0.01)
    monkeypatch.chdir(tmp_path)
    running = ChatServer(translator)
    yield running
    running.close()


def translator(prompt: str) -> str:
    """Turkish to English and back to other words."""
    text = prompt.split("\n\n", 1)[1]
    return f"[en] {text}" if "into English" in prompt else text.replace("[en] ", "").replace("ılık", "sıcakça")


def back_translated(server, originals=TEXTS, **ask):
    return changed("back_translation", originals, through="en", prompts=None, ask=asking(server.address, **ask))


def test_back_translation_goes_there_and_back(server):
    results = back_translated(server)
    assert results[0] == TURKISH.text.replace("ılık", "sıcakça")
    assert results[1] is None  # English already
    assert results[2] is None  # no known language
    assert results[3] is None  # the same text came back
    assert len(server.requests) == 4
    assert sum("Türkçeye çevir" in prompt for prompt in server.prompts) == 1
    assert sum("code de" in prompt for prompt in server.prompts) == 1
    assert back_translated(server) == results
    assert len(server.requests) == 4  # kept


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (status(400, b"filtered"), "refused"),
        (says(""), "no_answer"),
        (says("x", finish="length"), "cut_off"),
        (says("a\0b"), "no_character"),
    ],
)
def test_back_translation_names_why_a_text_has_no_translation(server, failure, reason):
    server.script = [failure]
    (result,) = back_translated(server, [TURKISH])
    assert isinstance(result, BadRow)
    assert result.reason == reason
    assert len(server.requests) == 1


def augmented(*parts: dict, **fields) -> dict:
    return {
        "name": "augmented", "licence": "CC0-1.0", "consent": "synthetic", "weight": 1.0, "of": "sms",
        "kind": "labelled", "augment": list(parts), "seed": 1,
    } | fields  # fmt: skip


TYPOS = {"name": "typos", "share": 1.0, "rate": 0.2}
PLAIN = {"name": "diacritics", "share": 1.0, "rate": 1.0}


def collected(folder: Path, name: str = "raw", rows: int = 300, **sources) -> list[dict]:
    (folder / "inputs").mkdir(exist_ok=True)
    csv = folder / "inputs/sms.csv"
    csv.write_text(
        "text,label\n" + "".join(f"şu mesaj {k} bir güzel haber,{'ham' if k % 2 else 'spam'}\n" for k in range(rows))
    )
    sms = source(Path("inputs/sms.csv"), language="tr")
    collect(
        Download.model_validate({"forget": None, "sources": {"sms": sms, **sources}}), folder / name, progress=False
    )
    return pq.read_table(folder / name / "labelled.parquet").to_pylist()


def test_augmented_gives_twins_with_the_label_of_their_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = collected(tmp_path, noisy=augmented(TYPOS, PLAIN))
    by_id = {row["id"]: row for row in rows if row["source"] == "sms"}
    twins = [row for row in rows if row["source"] == "noisy"]
    assert len(by_id) == 300
    assert 560 < len(twins) <= 600
    for twin in twins:
        record = by_id[twin["twin_of"]]
        assert twin["label"] == record["label"]
        assert twin["language"] == record["language"]
        assert twin["text"] != record["text"]
        assert twin["id"] == record_id("labelled", twin["text"], twin["label"])
        assert twin["origin"] in (f"{record['origin']} typos", f"{record['origin']} diacritics")
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["twin_of"] for row in by_id.values()} == {None}


def test_augmented_states_its_share(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    collected(tmp_path, noisy=augmented(PLAIN | {"share": 0.25}))
    entry = json.loads((tmp_path / "raw/provenance.json").read_text())["sources"]["noisy"]
    assert entry["address"] == "diacritics of sms"
    assert entry["details"]["of"] == "sms"
    assert entry["details"]["records"] == 300
    assert 50 < entry["details"]["twins"]["diacritics"] < 100
    counts = json.loads((tmp_path / "raw/ledger.json").read_text())["sources"]["noisy"]["labelled"]
    assert counts["kept"] == entry["details"]["twins"]["diacritics"]


def test_augmented_is_equal_in_every_run_and_a_larger_share_only_adds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, again = (collected(tmp_path, name, noisy=augmented(TYPOS | {"share": 0.5})) for name in ("a", "b"))
    assert first == again
    assert (tmp_path / "a/labelled.parquet").read_bytes() == (tmp_path / "b/labelled.parquet").read_bytes()
    more = collected(tmp_path, "c", noisy=augmented(TYPOS))
    assert {row["id"] for row in first} < {row["id"] for row in more}


def test_augmented_makes_no_twin_of_a_record_that_is_pinned_out_of_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs/sms.csv").write_text("text,label\nşu mesaj,ham\n")
    sources = {"sms": source(Path("inputs/sms.csv"), split="test"), "noisy": augmented(PLAIN)}
    with pytest.raises(UserError, match="no text of source sms was changed"):
        collect(Download.model_validate({"forget": None, "sources": sources}), tmp_path / "raw", progress=False)


def test_augmented_makes_no_twin_that_equals_a_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs/sms.csv").write_text("text,label\nşu mesaj,ham\nsu mesaj,ham\nöbür,ham\n")
    sources = {"sms": source(Path("inputs/sms.csv")), "noisy": augmented(PLAIN, PLAIN)}
    collect(Download.model_validate({"forget": None, "sources": sources}), tmp_path / "raw", progress=False)
    rows = pq.read_table(tmp_path / "raw/labelled.parquet").to_pylist()
    assert [row["text"] for row in rows if row["source"] == "noisy"] == ["obur"]


def test_augmented_makes_no_twin_of_a_twin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shout = {"name": "case", "share": 1.0, "forms": ["upper"]}
    with pytest.raises(UserError, match="no text of source noisy"):
        collected(tmp_path, noisy=augmented(PLAIN), loud=augmented(shout, of="noisy"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "speeches"}, "kind"),
        ({"augment": []}, "augment"),
        ({"augment": [{"name": "typo", "share": 1.0}]}, r"augment\[0\].name is 'typo'; one of: back_translation, case"),
        ({"augment": [{"name": "typos", "share": 1.0, "rate": 2.0}]}, "rate"),
        ({"augment": [{"name": "typos", "rate": 0.1}]}, "share"),
    ],
)
def test_params_refuse_a_faulty_augmentation(change, message):
    raw = yaml.safe_load((CODE / "params.yaml").read_text())
    raw["download"]["sources"]["noisy"] = augmented(TYPOS, of="world") | change
    with pytest.raises(UserError, match=message):
        config.check(raw)
    raw["download"]["sources"]["noisy"] = augmented(TYPOS, of="world")
    config.check(raw)
