"""Records of use: consented requests, ratings and late labels in the journal, counts without text of every request.

An entry is on disk before the answer's last byte is sent (pipeline/data/journal.py); a disk that refuses it makes the
answer an error. Counts are for the watch (pipeline/watching/observations.py); one that is not written is only logged.
"""

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline.config.serving import Serving
from pipeline.data.journal import Journal, NotKeptError, pseudonym, read, secret
from pipeline.errors import UserError
from pipeline.paths import JOURNAL, OBSERVATIONS, WATCH
from pipeline.serving.errors import ApiError
from pipeline.serving.metrics import Metrics
from pipeline.serving.models import Loaded, Slot
from pipeline.watching.observations import Facts, ObservationLog, Vocabulary, asked_text, observe
from pipeline.watching.vocabulary import CHARACTERS_SEEN

_LOG = logging.getLogger("tohum.serving")
_WRITERS = 32  # entries that wait for one fsync together
_RATEABLE = 500_000  # newest requests whose ids are kept in memory, some 100 bytes each


class Records:
    """The journal and the observations of one server."""

    def __init__(self, settings: Serving, metrics: Metrics) -> None:
        """Opens both; reads the ids of the requests that can be rated.

        Raises:
            UserError: a folder that cannot be written.
        """
        self._metrics, self._asks = metrics, settings.consent == "ask"
        bounds = settings.journal
        self._folder, self._watch = JOURNAL.absolute(), WATCH.absolute()
        self._journal = Journal(self._folder, bounds.megabytes << 20, bounds.keep_days)
        self._observations = ObservationLog(OBSERVATIONS.absolute())
        self._secret = secret()
        self._pool = ThreadPoolExecutor(_WRITERS, thread_name_prefix="journal")
        self._answers: dict[str, int] = {}
        """Request in the journal -> number of its answers."""
        self._vocabularies: dict[str, Vocabulary | None] = {}
        for entry in read(self._folder, kinds=("request",)):
            self._remember(entry)

    def close(self) -> None:
        """Waits for what is being written."""
        self._pool.shutdown(wait=True)
        self._journal.close()
        self._observations.close()

    def require_consent_possible(self, store: bool) -> None:
        """Raises ApiError 400 for a request to be kept by a server that keeps none."""
        if store and not self._asks:
            raise ApiError(
                400, "store: true is not supported: this server keeps no request (serving.consent: never)", "store",
                "unsupported_parameter",
            )  # fmt: skip

    def pseudonym(self, owner: str, user: str | None) -> str:
        """The pseudonym of a user of a key; two keys have different users."""
        return pseudonym(f"{owner}/{user or ''}", self._secret)

    async def keep_request(self, entry: Mapping[str, Any]) -> None:
        """Puts a consented request into the journal. Raises ApiError 507 where it cannot be kept."""
        await self._append({"kind": "request", **entry})
        self._remember(entry)

    async def keep_rating(self, request: str, rater: str, form: str, value: Any) -> str:
        """Puts a rating into the journal; returns its id.

        Raises:
            ApiError: 404, a request that is not in the journal; 400, an answer that it does not have; 507, not kept.
        """
        answers = self._answers.get(request)
        if answers is None:
            raise ApiError(
                404, f"{request}: not in the journal; only a request with store: true (consent) can be rated", "request"
            )
        if form == "choice" and isinstance(value, int) and value >= answers:
            raise ApiError(400, f"value is {value}; expected an answer of the request, 0 to {answers - 1}", "value")
        identity = f"rat-{uuid.uuid4().hex}"
        await self._append(
            {"kind": "rating", "id": identity, "request": request, "rater": rater, "form": form, "value": value,
             "consent": "store"}
        )  # fmt: skip
        return identity

    async def keep_label(self, request: str, label: Any) -> None:
        """Puts a label that arrived late into the journal. Raises ApiError 507 where it cannot be kept."""
        await self._append({"kind": "label", "request": request, "label": label, "by": "endpoint"})

    async def forget(self, user: str) -> int:
        """Takes all lines of a user out of the journal; returns their number. Raises ApiError 507."""
        known = set(self._answers)  # requests that arrive meanwhile can be rated
        try:
            erased = await asyncio.get_running_loop().run_in_executor(self._pool, self._journal.erase, user)
        except NotKeptError as error:
            raise ApiError(507, str(error), code="not_kept") from None
        kept = await asyncio.to_thread(lambda: {entry["id"] for entry in read(self._folder, kinds=("request",))})
        for identity in known - kept:
            self._answers.pop(identity, None)
        return erased

    def refresh(self, slots: Sequence[Slot]) -> None:
        """Reads the vocabularies that unknown words are counted with; called now and then, by another thread."""
        for slot in slots:
            name = _model_name(slot)
            try:
                self._vocabularies[name] = Vocabulary.read(self._watch / name)
            except UserError as error:
                _LOG.warning("%s", error)

    def observe(
        self, identity: str, slot: Slot, loaded: Loaded, asked: str | Sequence[Mapping[str, Any]], **facts: Any
    ) -> None:
        """Counts a request. `facts`: further fields of pipeline.watching.observations.Facts."""
        text, _ = asked_text(asked)
        tokens = len(loaded.task.tokenizer.encode(text[:CHARACTERS_SEEN]))
        name = _model_name(slot)
        known = Facts(
            request=identity, model=name, version=loaded.version, model_sha256=loaded.sha256, tokens=tokens, **facts
        )
        try:
            self._observations.append(observe(asked, known, self._vocabularies.get(name)))
        except OSError as error:
            _LOG.error("an observation was not kept: %s", error.strerror)

    def _remember(self, request: Mapping[str, Any]) -> None:
        self._answers[request["id"]] = len(request["answers"])
        if len(self._answers) > _RATEABLE:
            del self._answers[next(iter(self._answers))]

    async def _append(self, entry: Mapping[str, Any]) -> None:
        kind = entry["kind"]
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, self._journal.append, dict(entry))
        except NotKeptError as error:
            self._metrics.journal.labels(kind, "no").inc()
            raise ApiError(507, str(error), code="not_kept") from None
        self._metrics.journal.labels(kind, "yes").inc()


def _model_name(slot: Slot) -> str:
    """The name of the model without its version."""
    return slot.name.partition("/")[0]


def new_request() -> str:
    """A new request id."""
    return f"req-{uuid.uuid4().hex}"
