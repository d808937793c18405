"""Bases of records for the model card: lost otherwise, a withdrawn consent hides behind its source's."""

from pipeline.data.consent import bases, forgotten

SOURCES = {
    "mail": {
        "licence": "own", "consent": "contract", "rows": {"labelled": 10, "documents": 5},
        "consents": {"contract": 8, "withdrawn": 2},
    },
    "books": {"licence": "CC0-1.0", "consent": "public-domain", "rows": {"documents": 7}},
    "empty": {"licence": None, "consent": None, "rows": {}},
}  # fmt: skip


def test_bases_count_every_record_once() -> None:
    found = [tuple(one) for one in bases(SOURCES)]
    assert found == [
        ("books", "public-domain", 7, "CC0-1.0", "source"),
        ("empty", "", 0, "", "source"),
        ("mail", "contract", 8, "own", "record"),
        ("mail", "withdrawn", 2, "own", "record"),
        ("mail", "contract", 5, "own", "source"),
    ]
    assert sum(one.records for one in bases(SOURCES)) == 22


def test_forgotten_is_unknown_without_a_list_and_summed_with_one() -> None:
    counts = {"rows_in": 3, "kept": 1, "rejected": 0, "sampled_out": 0}
    assert forgotten({"a": {"labelled": counts}}) is None
    assert forgotten({"a": {"labelled": counts | {"forgotten": 2}}, "b": {"documents": counts | {"forgotten": 1}}}) == 3
