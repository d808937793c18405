"""The user's own files: found, checked, mapped as params say, and refused in a sentence otherwise."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.recipe import Part
from pipeline.data import judgements
from pipeline.data.conversations import earlier
from pipeline.data.sources import _inputs, files
from pipeline.errors import UserError
from tests.data.reading import CSV, JSON, JSONL, SEMICOLON, TXT


def test_files_map_labels_columns_and_split_as_in_params(read):
    rows = read(
        "a.csv",
        "Label,Text\n0,hi\n1,buy\n",
        columns={"text": "Text", "label": "Label"},
        labels={"0": "ham", "1": "spam"},
        split="validation",
    )
    assert [(r["label"], r["split"], r["language"]) for r in rows] == [
        ("ham", "validation", "en"),
        ("spam", "validation", "en"),
    ]


def test_files_read_split_and_language_from_columns(read):
    data = "text,label,part,lang\nmerhaba,a,test,tr\nhello,a,train,en\nx,a,dev,en\n"
    rows = read("a.csv", data, columns={"split": "part", "language": "lang"}, language="auto")
    assert [(r["split"], r["language"]) for r in rows] == [("test", "tr"), ("train", "en")]
    assert read.reasons() == [(4, "unknown_split")]


def test_files_accept_number_labels_only_where_mapped(read):
    data = '{"text": "a", "label": 1}\n{"text": "b", "label": 2}\n{"text": "c", "label": true}\n'
    rows = read("a.jsonl", data, format=JSONL, labels={"1": "spam", "0": "ham"})
    assert [(r["text"], r["label"]) for r in rows] == [("a", "spam")]
    assert read.reasons() == [(2, "not_text"), (3, "not_text")]


def test_files_read_a_pattern_in_the_order_of_names(read, tmp_path):
    for name in ("b/2.txt", "a/1.txt", "a/skip.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    rows = read.read(f"{tmp_path}/**/*.txt", "documents", format=TXT)
    assert [(r["text"], r["origin"]) for r in rows] == [("a/1.txt", "a/1.txt:1"), ("b/2.txt", "b/2.txt:1")]


def test_files_leave_a_missing_input_column_empty(read):
    rows = read(
        "a.jsonl",
        '{"question": "2+2?", "answer": "4"}\n',
        "instructions",
        format=JSONL,
        columns={"instruction": "question", "output": "answer"},
    )
    assert (rows[0]["instruction"], rows[0]["input"], rows[0]["output"]) == ("2+2?", "", "4")


def test_files_reject_preferences_with_equal_answers(read):
    pairs = [{"instruction": "q", "input": "", "chosen": a, "rejected": "no"} for a in ("yes", "no")]
    assert len(read("a.json", json.dumps(pairs, indent=1), "preferences", format=JSON)) == 1
    assert read.reasons() == [(8, "equal_pair")]


def test_files_refuse_a_missing_file_and_list_the_folder(read, tmp_path):
    (tmp_path / "mesages.csv").write_text("x")
    with pytest.raises(
        UserError, match=r"messages\.csv: no such file; .*'mesages\.csv'.*download\.sources\.mine\.path"
    ):
        read.read(str(tmp_path / "messages.csv"))
    with pytest.raises(UserError, match="is a folder; expected a file or a pattern"):
        read.read(str(tmp_path))
    with pytest.raises(UserError, match="no file matches"):
        read.read(f"{tmp_path}/*.parquet")
    with pytest.raises(UserError, match="there is no folder"):
        read.read(f"{tmp_path}/none/a.csv")


def test_files_refuse_a_wrong_sha256_before_reading(read, tmp_path):
    data = b"text,label\nhi,ham\n"
    right = hashlib.sha256(data).hexdigest()
    assert len(read("a.csv", data, sha256=right)) == 1
    with pytest.raises(UserError, match=f"sha256 is {right}; expected {'0' * 64}"):
        read("a.csv", data, sha256="0" * 64)
    (tmp_path / "b.csv").write_bytes(data)
    assert len(read.read(f"{tmp_path}/*.csv", sha256={"a.csv": right, "b.csv": right})) == 2
    with pytest.raises(UserError, match="expected one for each of"):
        read.read(f"{tmp_path}/*.csv", sha256=right)


def test_files_outside_inputs_are_refused_unless_pinned(read, tmp_path, monkeypatch):
    """Lost otherwise: such a file is edited, `dvc status` says up to date, and the models are those of the old text."""
    (tmp_path / "inputs/own").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for folder in ("inputs/own", "elsewhere"):
        (tmp_path / folder / "a.csv").write_text("text,label\nmerhaba,ham\n", encoding="utf-8")
    (tmp_path / "inputs/link").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_inputs, "INPUTS", Path("inputs"))
    outside = ("elsewhere/a.csv", "../a.csv", "inputs/../elsewhere/*.csv", f"{tmp_path}/elsewhere/a.csv", "a.csv",
               "inputs/link/a.csv", "inputs/link/*.csv", "inputs/l*/*.csv")  # fmt: skip
    for path in outside:
        with pytest.raises(ValueError, match="outside inputs/, where DVC would not see a change"):
            read.read(path)
    for path in ("inputs/own/a.csv", "inputs/o*/*.csv", f"{tmp_path}/inputs/own/a.csv"):
        assert len(read.read(path)) == 1
    sha256 = hashlib.sha256((tmp_path / "elsewhere/a.csv").read_bytes()).hexdigest()
    assert len(read.read("elsewhere/a.csv", sha256=sha256)) == 1
    assert len(read.read("inputs/link/a.csv", sha256=sha256)) == 1


def test_files_provenance_names_path_and_hash(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"hi")
    entry = files.Settings.model_validate(
        {
            "path": str(path),
            "sha256": None,
            "kind": "documents",
            "columns": {},
            "labels": {},
            "language": "und",
            "split": None,
            "format": TXT,
        }
    )
    assert files.provenance(entry) == {
        "address": str(path),
        "sha256": hashlib.sha256(b"hi").hexdigest(),
        "revision": None,
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"columns": {"body": "x"}}, "columns names ['body']"),
        ({"kind": "documents", "labels": {"a": "b"}}, "labels is for kind labelled"),
        ({"split": "test", "columns": {"split": "s"}}, "keep one of them"),
        ({"language": "Turkish"}, "download.sources.mine.language"),
        ({"sha256": "abc"}, "download.sources.mine.sha256"),
        ({"format": {"name": "cvs"}}, "format.name is 'cvs'; one of: arrow, csv, json, jsonl, parquet, tsv, txt, xlsx"),
        ({"format": CSV | {"delimeter": ";"}}, "did you mean 'delimiter'?"),
        ({"format": TXT | {"separator": "--"}}, "separator is a line's text with `documents: separator`"),
        ({"path": None}, "download.sources.mine.path"),
    ],
)
def test_files_settings_refuse_contradictions(fields, expected):
    """Refused when params.yaml is read, before a stage writes anything."""
    whole = {
        "name": "files",
        "path": "inputs/a.csv",
        "sha256": None,
        "kind": "labelled",
        "columns": {},
        "labels": {},
        "language": "en",
        "split": None,
        "format": CSV,
    } | fields
    with pytest.raises(UserError) as error:
        Part.model_validate(whole).settings("data/sources", "download.sources.mine")
    assert expected in str(error.value)


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
def test_files_read_lists_of_messages_as_conversations(read, tmp_path, form):
    """Lost otherwise: a chat log would have to be cut into questions and answers by hand, or would lose its turns."""
    said = [{"role": role, "content": text} for role, text in
            (("user", "Kim?"), ("assistant", "Ayşe"), ("user", "Ne zaman?"), ("assistant", "dün"))]  # fmt: skip
    records = [{"log": said}, {"log": said[:2]}, {"log": said[:3]}]
    columns = {"messages": "log"}
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
        rows = read.read(
            str(tmp_path / "a.parquet"),
            "instructions",
            format={"json": JSON, "jsonl": JSONL, "parquet": {"name": "parquet"}}[form],
            columns=columns,
        )
    else:
        text = json.dumps(records) if form == "json" else "".join(json.dumps(one) + "\n" for one in records)
        rows = read(
            f"a.{form}",
            text,
            "instructions",
            format={"json": JSON, "jsonl": JSONL, "parquet": {"name": "parquet"}}[form],
            columns=columns,
        )
    assert [(r["instruction"], r["output"]) for r in rows] == [("Ne zaman?", "dün"), ("Kim?", "Ayşe")]
    assert earlier(rows[0]["history"]) == ("", (("Kim?", "Ayşe", True),))
    assert [reason for _, reason in read.reasons()] == ["not_a_conversation"]


def test_files_settings_refuse_messages_beside_their_columns(read):
    with pytest.raises(ValueError, match=r"columns names messages, which replace instruction, input, output"):
        read("a.jsonl", "{}", "instructions", format=JSONL, columns={"messages": "m", "output": "o"})


@pytest.mark.parametrize(
    ("value", "label"),
    [("1", "pos"), ("1.0", "pos"), ("true", "yes"), ("[1]", "pos"), ('["1"]', "pos"), ('"1"', "pos")],
)
def test_files_read_labels_as_params_name_them(read, value, label):
    rows = read("a.jsonl", f'{{"text": "a", "label": {value}}}\n', format=JSONL, labels={"1": "pos", "true": "yes"})
    assert [row["label"] for row in rows] == [label]


@pytest.mark.parametrize(
    ("value", "reason"), [("[1, 1]", "several_labels"), ("[]", "several_labels"), ("1.5", "not_text"), ("null", "null")]
)
def test_files_reject_labels_that_are_not_one_label(read, value, reason):
    read(
        "a.jsonl", f'{{"text": "a", "label": {value}}}\n{{"text": "a", "label": 1}}\n', format=JSONL, labels={"1": "p"}
    )
    assert read.reasons() == [(1, reason)]


@pytest.mark.parametrize(
    ("value", "separator", "label"),
    [
        ('["b", "a", "b"]', None, '["a", "b"]'),
        ("[]", None, "[]"),
        ('"[\\"ş\\"]"', None, '["ş"]'),
        ('"b; a ;; b"', ";", '["a", "b"]'),
        ('""', ";", "[]"),
        ('["a;b"]', ";", '["a;b"]'),
    ],
)
def test_files_read_several_labels_of_lists_and_of_text_with_separators(read, value, separator, label):
    rows = read(
        "a.jsonl", f'{{"text": "a", "label": {value}}}\n', format=JSONL, label_form="several", label_separator=separator
    )
    assert [row["label"] for row in rows] == [label]


def test_files_name_several_labels_as_params_name_them(read):
    rows = read(
        "a.jsonl", '{"text": "a", "label": [1, 2]}\n', format=JSONL, label_form="several", labels={"1": "b", "2": "a"}
    )
    assert [row["label"] for row in rows] == ['["a", "b"]']


@pytest.mark.parametrize(("value", "label"), [("3", "3"), ("3.50", "3.5"), ('" -2e3 "', "-2000"), ("0.1", "0.1")])
def test_files_read_numbers_and_their_text_as_one_spelling(read, value, label):
    """Equal numbers must give equal records, whatever the file writes."""
    rows = read("a.jsonl", f'{{"text": "a", "label": {value}}}\n', format=JSONL, label_form="number")
    assert [row["label"] for row in rows] == [label]


@pytest.mark.parametrize(
    ("form", "value", "reason"),
    [
        ("several", '"a, b"', "not_a_list"),
        ("several", "null", "not_a_list"),
        ("several", '["a", 3]', "not_text"),
        ("several", '["a", " "]', "empty"),
        ("number", '"3,5"', "not_a_number"),
        ("number", "true", "not_a_number"),
        ("number", '"nan"', "not_a_number"),
        ("number", '"1_000"', "not_a_number"),
        ("number", "null", "not_a_number"),
        ("number", "[1]", "not_a_number"),
    ],
)
def test_files_reject_labels_that_are_no_list_or_no_number(read, form, value, reason):
    good = '["a"]' if form == "several" else "1"
    lines = f'{{"text": "a", "label": {value}}}\n{{"text": "b", "label": {good}}}\n'
    read("a.jsonl", lines, format=JSONL, label_form=form)
    assert read.reasons() == [(1, reason)]


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("documents", {"label_form": "several"}, "label_form several is for kind labelled"),
        ("labelled", {"label_separator": ","}, "with label_form several"),
        ("labelled", {"label_form": "several", "label_separator": " "}, "a sign that is no space"),
        ("labelled", {"label_form": "number", "labels": {"1": "one"}}, "labels names labels, and label_form is number"),
    ],
)
def test_files_settings_refuse_label_forms_that_contradict_other_settings(read, kind, changes, words):
    with pytest.raises(ValueError, match=words):
        read("a.jsonl", "{}", kind, format=JSONL, **changes)


ASKED, SAID, WORSE = (
    {"role": r, "content": c} for r, c in (("user", "Kim?"), ("assistant", "Ayşe"), ("assistant", "?"))
)


@pytest.mark.parametrize(
    ("kind", "columns", "row", "expected"),
    [
        (
            "instructions",
            {"messages": "c"},
            {"c": [{"from": "human", "value": "Kim?"}, {"from": "gpt", "value": "Ayşe"}]},
            {"instruction": "Kim?", "input": "", "output": "Ayşe"},
        ),
        (
            "instructions",
            {"messages": "c"},
            {"c": json.dumps([ASKED, SAID])},
            {"instruction": "Kim?", "output": "Ayşe"},
        ),
        (
            "instructions",
            {"instruction": "p", "output": "c"},
            {"p": [ASKED], "c": [SAID]},
            {"instruction": "Kim?", "input": "", "output": "Ayşe"},
        ),
        (
            "preferences",
            {"instruction": "p"},
            {"p": [ASKED], "chosen": [SAID], "rejected": [WORSE]},
            {"instruction": "Kim?", "input": "", "chosen": "Ayşe", "rejected": "?"},
        ),
        (
            "preferences",
            {"chosen": "chosen", "rejected": "rejected"},
            {"chosen": [ASKED, SAID], "rejected": [ASKED, WORSE]},
            {"instruction": "Kim?", "input": "", "chosen": "Ayşe", "rejected": "?"},
        ),
        (
            "preferences",
            {"chosen": "chosen", "rejected": "rejected"},
            {"chosen": "\n\nHuman: Kim?\n\nAssistant: Ayşe", "rejected": "\n\nHuman: Kim?\n\nAssistant: ?"},
            {"instruction": "Kim?", "chosen": "Ayşe", "rejected": "?"},
        ),
        ("documents", {"messages": "c"}, {"c": [ASKED, SAID]}, {"text": "Kim?\nAyşe"}),
        ("documents", {"text": "c"}, {"c": [ASKED, SAID]}, {"text": "Kim?\nAyşe"}),
    ],
)
def test_files_read_conversations_in_every_shape(read, kind, columns, row, expected):
    (record,) = read("a.jsonl", json.dumps(row), kind, format=JSONL, columns=columns)
    assert {name: record[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("kind", "columns", "row", "reason"),
    [
        (
            "preferences",
            {"chosen": "c", "rejected": "r"},
            {"c": [ASKED, SAID], "r": [{**ASKED, "content": "Ne?"}, WORSE]},
            "not_a_pair",
        ),
        ("preferences", {"chosen": "c", "rejected": "r"}, {"c": "Ayşe", "r": "?"}, "not_a_conversation"),
        ("preferences", {"chosen": "c", "rejected": "r"}, {"c": [ASKED, SAID], "r": [ASKED, SAID]}, "equal_pair"),
        (
            "instructions",
            {"instruction": "p", "output": "c"},
            {"p": [ASKED], "c": [SAID], "input": "not"},
            "not_a_conversation",
        ),
        ("instructions", {"messages": "c"}, {"c": [ASKED, SAID], "tools": [{"name": "x"}]}, "tools"),
        ("documents", {"messages": "c"}, {"c": [ASKED, {**SAID, "content": None}]}, "not_a_conversation"),
    ],
)
def test_files_reject_conversations_that_cannot_be_read_whole(read, kind, columns, row, reason):
    with pytest.raises(UserError, match=reason):
        read("a.jsonl", json.dumps(row), kind, format=JSONL, columns=columns)


def test_files_reject_a_row_that_offers_tools_beside_prompt_and_completion(read):
    """The answer rests on tools that the record does not say; dropped silently it would be learned without them."""
    rows = [{"prompt": "Hava?", "completion": "Güneşli", "tools": [{"name": "weather"}]},
            {"prompt": "Kim?", "completion": "Ayşe", "tools": []}, {"prompt": "Ne?", "completion": "Elma"}]  # fmt: skip
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    columns = {"instruction": "prompt", "output": "completion"}
    made = read("a.jsonl", text, "instructions", format={"name": "jsonl", "encoding": "utf-8"}, columns=columns)
    assert [row["output"] for row in made] == ["Ayşe", "Elma"]
    assert [reason for _, reason in read.reasons()] == ["tools"]


CHOICES = {"instruction": "soru", "first": "cevap_a", "second": "cevap_b", "choice": "tercih"}
CHOSEN = "soru;cevap_a;cevap_b;tercih\nBir?;Evet, olur.;Hayır.;A\nİki?;x;y;b\nÜç?;x;y;berabere\nDört?;x;y;cevap_a\n"


def test_files_read_choices_as_preferences_and_count_ties(read):
    log: list[str] = []
    made = read("a.csv", CHOSEN, "preferences", format=SEMICOLON, columns=CHOICES, language="tr", notes=log)
    assert [(row["instruction"], row["chosen"], row["rejected"]) for row in made] == [
        ("Bir?", "Evet, olur.", "Hayır."), ("İki?", "y", "x"), ("Dört?", "x", "y"),
    ]  # fmt: skip
    assert log == ["a.csv: 1 ties left out: neither answer is preferred"]
    assert read.reasons() == []
    assert made[1]["prompt_id"] == judgements.prompt_id("iki?", "tr"), "a prompt's judgements would be split apart"


def test_files_read_choices_as_ratings_with_their_ties(read):
    columns = CHOICES | {"prompt": CHOICES["instruction"]}
    del columns["instruction"]
    made = read("a.csv", CHOSEN, "ratings", format=SEMICOLON, columns=columns)
    assert [row["verdict"] for row in made] == ["choice:0", "choice:1", "choice:tie", "choice:0"]
    assert (json.loads(made[0]["answers"]), made[0]["rater"]) == (["Evet, olur.", "Hayır."], "unknown")


def test_files_read_thumbs_as_ratings(read):
    text = "prompt,answer,thumb,rater\nWhat?,Yes.,👍🏽,u-1\nWhat?,No.,down,u-1\nWho?,Me.,beğendim,\nWho?,You.,0,u-2\n"
    made = read("a.csv", text, "ratings", columns={})
    assert [(row["verdict"], row["rater"]) for row in made] == [
        ("thumb:up", "u-1"), ("thumb:down", "u-1"), ("thumb:up", "unknown"), ("thumb:down", "u-2"),
    ]  # fmt: skip
    assert made[0]["prompt_id"] == made[1]["prompt_id"] != made[2]["prompt_id"]


def test_files_take_the_users_words_for_a_judgement_before_their_own(read):
    text = "prompt,answer,stars\nWhat?,Yes.,5\nWhat?,No.,1\nWhat?,Hm.,3\n"
    columns, labels = {"thumb": "stars"}, {"5": "up", "4": "up", "2": "down", "1": "down"}
    made = read("a.csv", text, "ratings", columns=columns, labels=labels)
    assert [row["verdict"] for row in made] == ["thumb:up", "thumb:down"]
    assert read.reasons() == [(4, "unknown_judgement")]


def test_files_reject_judgements_that_say_nothing(read):
    text = "soru;cevap_a;cevap_b;tercih\nBir?;x;y;??\nİki?;x;y;\nÜç?;x;x;A\nDört?;x;y;A\n"
    made = read("a.csv", text, "preferences", format=SEMICOLON, columns=CHOICES)
    assert [row["instruction"] for row in made] == ["Dört?"]
    assert read.reasons() == [(2, "unknown_judgement"), (3, "unknown_judgement"), (4, "equal_pair")]
    with pytest.raises(ValueError, match="each of its 1 rows is a tie"):
        read("b.csv", "soru;cevap_a;cevap_b;tercih\nBir?;x;y;eşit\n", "preferences", format=SEMICOLON, columns=CHOICES)


def test_files_refuse_a_mapping_that_judges_nothing(read):
    with pytest.raises(ValueError, match="labels names left; expected the file's value: first or second or tie"):
        read("a.csv", CHOSEN, "preferences", format=SEMICOLON, columns=CHOICES, labels={"A": "left"})
    with pytest.raises(ValueError, match=r"no column 'thumb' \(our thumb\)"):
        read("a.csv", "prompt,answer\na,b\n", "ratings", columns={})
    with pytest.raises(ValueError, match=r"columns\.choice is .*expected a column"):
        read("a.csv", CHOSEN, "preferences", format=SEMICOLON, columns=CHOICES | {"choice": "{tercih}!"})


@pytest.mark.parametrize(
    ("cell", "side", "thumb"),
    [("A", "first", None), ("answer_b", "second", None), ("2", "second", None), (1, "first", "up"), (0, None, "down"),
     ("tie (bothbad)", "tie", None), ("Model A is better", "first", None), ("eşit", "tie", None), (True, None, "up"),
     ("İkinci", "second", None), ("fark yok", "tie", None), ("thumbs up", None, "up"), ("👎", None, "down"),
     ("Beğenmedim", None, "down"), ("a or b", None, None), ("maybe", None, None), ("", None, None), (None, None, None),
     ([1], None, None), ("=", "tie", None), ("+1", None, "up"), (-1, None, "down"), ("-2", None, None)],
)  # fmt: skip
def test_judgements_are_read_in_both_languages(cell, side, thumb):
    assert judgements.choice_of(cell, {}, {"first": "answer_a", "second": "answer_b"}) == side
    assert judgements.thumb_of(cell, {}) == thumb
