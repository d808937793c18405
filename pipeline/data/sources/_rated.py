"""Records of one line of a journal's snapshot: the request, its ratings, and what these give."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config.recipe import Kind
from pipeline.data import conversations, judgements, language
from pipeline.data.ledger import RowLog
from pipeline.data.records import CONSENT, PROMPT, TIME

if TYPE_CHECKING:
    from pipeline.data.sources.journal import Settings

Record = tuple[Kind, dict[str, Any]]


def records(line: dict[str, Any], settings: "Settings", origin: str, log: RowLog) -> Iterator[Record]:
    """The records of one request; faults go to the log as rejected ratings.

    Args:
        line: as `snapshot.read` checks it.
        settings: the source's.
        origin: file and line.
        log: of the source.
    """
    file, _, number = origin.rpartition(":")
    asked = conversations.prompt(line["messages"]) if "messages" in line else (line["text"], "")
    if isinstance(asked, str) or not asked[0].strip():
        why = asked if isinstance(asked, str) else "the request has no text"
        log.reject("ratings", file, int(number), "not_a_conversation", f"{line['id']}: {why}")
        return
    request = _Request(line, settings, origin, *asked)
    yield from request.own()
    for rating in line["ratings"]:
        if (fault := request.fault(rating)) is not None:
            log.reject("ratings", file, int(number), "not_a_rating", f"{rating['id']} {fault}")
        else:
            yield from request.of(rating)


@dataclass(frozen=True)
class _Request:
    line: dict[str, Any]
    settings: "Settings"
    origin: str
    prompt: str
    history: str

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The answers; of a classifier its label, as text."""
        label = self.line.get("label")
        if label is None or self.line["answers"]:
            return list(self.line["answers"])
        return [{"text": label if isinstance(label, str) else json.dumps(label, ensure_ascii=False)}]

    def own(self) -> Iterator[Record]:
        """The request as a document or an instruction, and its late label as a labelled text."""
        base, answers = self._base(), self.line["answers"]
        bad = any(one["form"] == "correction" or one["value"] == "down" for one in self.line["ratings"])
        answer = answers[0]["text"] if answers else ""
        if self.settings.requests == "documents":
            yield "documents", base | {"text": self.prompt}
        elif self.settings.requests == "instructions" and answer.strip() and not bad:
            yield "instructions", base | {"instruction": self.prompt, "input": "", "output": answer}
        if self.settings.labels and isinstance(self.line.get("late_label"), str):
            yield "labelled", base | {"text": self.prompt, "label": self.line["late_label"]}

    def of(self, rating: dict[str, Any]) -> Iterator[Record]:
        """The rating, and the preferences, the instruction or the labelled text that it gives."""
        base, form = self._base(rating), rating["form"]
        if self.settings.ratings:
            yield "ratings", base | self._rated(rating)
        if form == "choice" and self.settings.choices and rating["value"] != "tie":
            yield from self._preferences(rating["value"], base)
        if form == "correction" and self.settings.corrections:
            if not isinstance(self.line.get("label"), str):
                yield "instructions", base | {"instruction": self.prompt, "input": "", "output": rating["value"]}
            elif self.line.get("late_label") is None or not self.settings.labels:
                yield "labelled", base | {"text": self.prompt, "label": rating["value"]}

    def fault(self, rating: dict[str, Any]) -> str | None:
        """The fault of a rating in words; None if it has none."""
        form, value, n = rating["form"], rating["value"], len(self.answers)
        if form == "choice" and (value == "tie" or (type(value) is int and 0 <= value < n)):
            return None
        if form == "thumb" and value in ("up", "down"):
            return None
        if form == "correction" and isinstance(value, str) and value.strip():
            return None
        return f"is a {form} with the value {value!r:.40}, of {n} answers"

    def _base(self, rating: dict[str, Any] | None = None) -> dict[str, Any]:
        """The columns that all records of a request or a rating share."""
        said = rating or self.line
        code = language.guess(self.prompt) if self.settings.language == "auto" else self.settings.language
        return {
            "language": code,
            "split": self.settings.split,
            "origin": self.origin if rating is None else f"{self.origin} {rating['id']}",
            "history": self.history or None,
            CONSENT: said.get("consent") or self.line["consent"],
            TIME: f"{(said.get('time') or self.line['time'])[:19]}Z",
            PROMPT: judgements.prompt_id(self.prompt, code, self.history),
        }

    def _rated(self, rating: dict[str, Any]) -> dict[str, Any]:
        answers, form = self.answers, rating["form"]
        return {
            "prompt": self.prompt,
            "answers": json.dumps([answer["text"] for answer in answers], ensure_ascii=False),
            "verdict": form if form == "correction" else f"{form}:{rating['value']}",
            "correction": rating["value"] if form == "correction" else "",
            "ids": [answer.get("ids") or [] for answer in answers],
            "logprobs": [answer.get("logprobs") or [] for answer in answers],
            "settings": json.dumps(self.line.get("settings") or {}, sort_keys=True, ensure_ascii=False),
            "model_sha256": self.line["model_sha256"],
            "rater": rating["rater"],
        }

    def _preferences(self, chosen: int, base: dict[str, Any]) -> Iterator[Record]:
        """The chosen answer over each other one with another text."""
        answers = self.line["answers"]
        for other, answer in enumerate(answers):
            if answer["text"] != answers[chosen]["text"]:
                yield (
                    "preferences",
                    base
                    | {
                        "instruction": self.prompt,
                        "input": "",
                        "chosen": answers[chosen]["text"],
                        "rejected": answer["text"],
                        "model_sha256": self.line["model_sha256"],
                        "logprobs": json.dumps([answers[chosen].get("logprobs") or [], answer.get("logprobs") or []]),
                        "origin": f"{base['origin']} over {other}",
                    },
                )
