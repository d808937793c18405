"""Requests, ratings and labels of the journal as traces and assessments of MLflow.

Everything may be repeated: the id of a trace is a hash of the experiment's and the request's, and the assessments of a
trace are made equal to the ratings that stand (created, updated or deleted), found by rater and form. Importing this
imports mlflow.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from mlflow.entities import AssessmentSource, Expectation, Feedback, Span, TraceInfo, TraceLocation, TraceState
from mlflow.entities.assessment import Assessment
from mlflow.tracing.client import TracingClient

from pipeline.segments import Entry
from pipeline.tracking import artifact_store
from pipeline.tracking.delivery_errors import GoneError, translated
from pipeline.tracking.journal_box import About
from pipeline.tracking.mlflow_store import Delivery

_PREVIEW = 1000  # characters
_RATING, _NUMBER, _USER, _RATER = "tohum.rating", "tohum.n", "tohum.user", "tohum.rater."
_LABEL = "label"
_PAGE = 100


class Traces:
    """The traces of one experiment."""

    def __init__(self, uri: str, experiment: str) -> None:
        self._uri, self._delivery = uri, Delivery(uri, experiment, kind="genai_development")
        self._client: TracingClient | None = None
        self._experiment = ""

    def connect(self) -> str:
        """Connects, and returns the store's identity.

        Raises:
            AwayError: the store cannot be reached.
        """
        self._experiment = self._delivery.experiment_id()
        if self._client is None:
            artifact_store.connect(self._uri)
            self._client = TracingClient(tracking_uri=self._uri)
        return self._delivery.store

    def send(self, entries: Sequence[Entry], about: Mapping[str, About]) -> int:
        """Delivers entries: requests first, then what people said of theirs and earlier ones, then erasures.

        Args:
            entries: the next entries of the journal.
            about: of each request that a rating or a label among them is about.

        Returns:
            The number of traces and of requests with another set of assessments.
        """
        done = 0
        with translated(self._uri):
            for entry in entries:
                if entry["kind"] == "request" and entry["consent"] is not None:
                    self._trace(entry)
                    done += 1
            for request, said in about.items():
                done += self._assess(trace_id(self._experiment, request), said)
            for entry in entries:
                if entry["kind"] == "erasure":
                    self._erase(entry["user"], entry["n"])
        return done

    def _trace(self, entry: Entry) -> None:
        assert self._client is not None
        identity, started = trace_id(self._experiment, entry["id"]), _nanoseconds(entry["time"])
        asked = entry["messages"] if "messages" in entry else entry.get("text", "")
        answers = [answer["text"] for answer in entry["answers"]]
        said: Any = entry["label"] if entry.get("label") is not None else answers[0] if len(answers) == 1 else answers
        tags = {
            "mlflow.traceName": entry["model"], "tohum.request": entry["id"], _USER: entry["user"],
            _NUMBER: str(entry["n"]), "tohum.consent": entry["consent"], "tohum.model_sha256": entry["model_sha256"],
            "tohum.task": entry["task"], "tohum.version": str(entry.get("version") or ""),
        }  # fmt: skip
        self._client.start_trace(
            TraceInfo(
                trace_id=identity,
                trace_location=TraceLocation.from_experiment_id(self._experiment),
                request_time=started // 1_000_000,
                state=TraceState.OK,
                request_preview=_shown(asked)[:_PREVIEW],
                response_preview=_shown(said)[:_PREVIEW],
                client_request_id=entry["id"],
                execution_duration=0,
                trace_metadata={"mlflow.trace.user": entry["user"]},
                tags=tags,
            )
        )
        span = {
            "trace_id": _base64(identity.removeprefix("tr-")),
            "span_id": _base64(hashlib.sha256(identity.encode()).hexdigest()[:16]),
            "parent_span_id": None,
            "name": entry["model"],
            "start_time_unix_nano": started,
            "end_time_unix_nano": started,
            "events": [],
            "status": {"code": "STATUS_CODE_OK", "message": ""},
            "attributes": {
                "mlflow.traceRequestId": json.dumps(identity),
                "mlflow.spanType": json.dumps("LLM"),
                "mlflow.spanInputs": json.dumps({"input": asked, "settings": entry.get("settings") or {}}),
                "mlflow.spanOutputs": json.dumps(said),
            },
        }
        self._client.log_spans(self._experiment, [Span.from_dict(span)])

    def _assess(self, identity: str, said: About) -> bool:
        """Adds, updates or deletes a trace's assessments until they are the valid ones.

        False where there is no such trace, or nothing to do.
        """
        client = self._client
        assert client is not None
        try:
            with translated(self._uri):
                held = {_slot(one): one for one in client.get_trace_info(identity).assessments if _is_ours(one)}
        except GoneError:
            return False  # without consent, or erased
        wanted = {_slot(one): one for one in _assessments(said)}
        changed = False
        for slot, one in wanted.items():
            before = held.get(slot)
            if before is None:
                client.log_assessment(identity, one)
            elif _content(before) != _content(one):
                client.update_assessment(identity, str(before.assessment_id), one)
            else:
                continue
            if slot[0] != _LABEL:
                client.set_trace_tag(identity, f"{_RATER}{slot[0]}", "1")
            changed = True
        for slot, one in held.items():
            if slot not in wanted and (one.metadata or {})[_RATING] in said.known:
                client.delete_assessment(identity, str(one.assessment_id))
                changed = True
        return changed

    def _erase(self, user: str, number: int) -> None:
        """Deletes the traces of a user's earlier requests, and the user's assessments of other traces."""
        client = self._client
        assert client is not None
        own = [info.trace_id for info in self._found(_USER, user) if int(info.tags[_NUMBER]) < number]
        for first in range(0, len(own), _PAGE):
            client.delete_traces(self._experiment, trace_ids=own[first : first + _PAGE])
        for info in self._found(f"{_RATER}{user}", "1"):
            for one in client.get_trace_info(info.trace_id).assessments:
                if _is_ours(one) and one.source.source_id == user and int((one.metadata or {})[_NUMBER]) < number:
                    client.delete_assessment(info.trace_id, str(one.assessment_id))

    def _found(self, tag: str, value: str) -> list[TraceInfo]:
        """All traces with a tag."""
        assert self._client is not None
        found: list[TraceInfo] = []
        token = None
        while True:
            page = self._client.search_traces(
                locations=[self._experiment], filter_string=f"tags.`{tag}` = '{value}'", max_results=_PAGE,
                page_token=token, include_spans=False,
            )  # fmt: skip
            found += [trace.info for trace in page]
            if not (token := page.token):
                return found


def trace_id(experiment: str, request: str) -> str:
    """The trace of a request in an experiment: `tr-` and 32 hexadecimal digits of a SHA-256 of both ids."""
    return "tr-" + hashlib.sha256(f"{experiment}\0{request}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _assessments(said: About) -> Iterator[Assessment]:
    for rating in said.ratings:
        source = AssessmentSource(source_type="HUMAN", source_id=rating["rater"])
        metadata = {_RATING: rating["id"], _NUMBER: str(rating["n"])}
        value = rating["value"]
        if rating["form"] == "correction":
            yield Expectation(name="correction", value=value, source=source, metadata=metadata)
        else:
            value = value == "up" if rating["form"] == "thumb" else value
            yield Feedback(name=rating["form"], value=value, source=source, metadata=metadata)
    if said.label is not None:
        source = AssessmentSource(source_type="HUMAN", source_id=_LABEL)
        yield Expectation(name="label", value=said.label, source=source, metadata={_RATING: _LABEL, _NUMBER: "0"})


def _is_ours(one: Assessment) -> bool:
    return _RATING in (one.metadata or {})


def _slot(one: Assessment) -> tuple[str, str]:
    """Rater and form: of one of them one assessment stands."""
    return str(one.source.source_id), str(one.name)


def _content(one: Assessment) -> tuple[Any, ...]:
    given = one.feedback or one.expectation
    return given.value if given else None, (one.metadata or {}).get(_RATING)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _base64(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()


def _nanoseconds(time: str) -> int:
    return int(datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() * 1000) * 1_000_000
