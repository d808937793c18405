"""Shadow: candidate and champion replayed over the same consented requests to the served model, for its review.

A candidate is evaluated on held-out records, which may be older than the requests of today. Where the journal has
requests, the review replays the newest ones on both models by itself: a person who does not know of drift would not ask
for it. It informs the person and is no rule of the policy, since labels and ratings come for a selection of the
requests, and the journal changes while the version's evidence may not.

    classifiers    share of equal labels; where labels arrived, accuracy of both on the same requests
    text models    share of changed answers; loss of both on the answers that people wrote: a correction, a late label
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import comparison, outcomes
from pipeline.config.recipe import Compute
from pipeline.data import journal
from pipeline.data.served import label_text, labels_of
from pipeline.errors import UserError
from pipeline.outcomes import Outcomes
from pipeline.paths import JOURNAL
from pipeline.prompts.request import Request
from pipeline.registry.store import CANDIDATE, CHAMPION
from pipeline.segments import Entry

if TYPE_CHECKING:
    from pipeline.registry.lifecycle import Registry

FEWEST = 20
"""Requests that a replay needs, and judged ones that a comparison needs."""
_MOST = 500
_ANSWERED = 40  # requests whose answers are generated again: the slow part
_TOKENS = 64


@dataclass(frozen=True)
class Asked:
    """A consented request."""

    id: str
    user: str
    request: Request
    time: str


Shadow = dict[str, Any]
"""JSON: requests, first, last, same, of (requests whose answers were compared), judged, needed, comparisons."""


def of_registry(registry: "Registry", model: str, folder: Path = JOURNAL) -> Shadow | None:
    """The replay of a model's candidate and champion; None without a champion or enough consented requests.

    None too for a version that cannot be opened: the review says why in its own words.
    """
    candidate, champion = registry.at(model, CANDIDATE), registry.at(model, CHAMPION)
    if candidate is None or champion is None or candidate.version == champion.version or not folder.is_dir():
        return None
    if not registry.is_ours(champion):
        return None
    names = {model, registry.name(model), model.removeprefix(f"{registry.params.register_.name}-")}
    entries = list(_entries(folder, names))
    if len(asked_of(entries, names)) < FEWEST:
        return None
    try:
        with (
            registry.opened(candidate) as (ours, sealed),
            registry.opened(champion, approved=True) as (theirs, champion_sealed),
        ):
            folders = ours / "artifacts" / sealed.model, theirs / "artifacts" / champion_sealed.model
            return replayed(*folders, entries, names, registry.params.compute)
    except UserError:
        return None


def _entries(folder: Path, names: set[str]) -> Iterator[Entry]:
    """The journal's entries without long fields that a replay does not need, so that a full one fits in memory."""
    fields = ("kind", "id", "user", "model", "consent", "time", "text", "messages")
    for entry in journal.read(folder, kinds=("request", "rating", "label")):
        if entry["kind"] != "request":
            yield entry
        elif entry["model"] in names:
            first = [{"text": answer.get("text", "")} for answer in entry["answers"][:1]]
            yield {name: entry[name] for name in fields if name in entry} | {"answers": first}


def asked_of(entries: Sequence[Mapping[str, Any]], names: set[str]) -> list[Asked]:
    """The newest consented requests to a model of these names, in order."""
    made = []
    for entry in entries:
        if entry["kind"] != "request" or entry["model"] not in names or not entry["consent"]:
            continue
        try:
            request = Request.of_messages(entry["messages"]) if "messages" in entry else Request(str(entry["text"]))
        except (UserError, KeyError):  # a request of another form than this checkout reads
            continue
        made.append(Asked(str(entry["id"]), str(entry["user"]), request, str(entry.get("time", ""))))
    return made[-_MOST:]


def replayed(
    candidate: Path, champion: Path, entries: Sequence[Mapping[str, Any]], names: set[str], compute: Compute
) -> Shadow:
    """The replay of two model folders over the requests of a journal.

    Args:
        candidate: a model folder.
        champion: another one.
        entries: of the journal, in order.
        names: of the served model.
        compute: settings of the project.
    """
    from pipeline.inference.predictor import Predictor  # torch

    asked = asked_of(entries, names)
    models = Predictor(candidate, compute.device), Predictor(champion, compute.device)
    labels = labels_of(entries)
    if all(model.task.spec.outputs for model in models):
        said = [[_label(answer) for answer in model.scored([one.request for one in asked])] for model in models]
        compared = len(asked)
        tables = [_accuracy(asked, answers, labels) for answers in said]
        numbers = any(model.task.spec.mean is not None for model in models)  # right and wrong are not of numbers
        judged = 0 if numbers else sum(one.id in labels for one in asked)
    else:
        newest = [one.request for one in asked[-_ANSWERED:]]
        said = [[str(one["completion"]) for one in model.answer(newest, {"max_tokens": _TOKENS})] for model in models]
        compared = len(newest)
        wanted = right_answers(entries, labels)
        tables = [_losses(folder, asked, wanted, compute) for folder in (candidate, champion)]
        judged = sum(one.id in wanted for one in asked)
    same = sum(ours == theirs for ours, theirs in zip(*said, strict=True))
    comparisons = comparison.compare(*tables) if judged >= FEWEST else []
    return {
        "requests": len(asked), "first": asked[0].time, "last": asked[-1].time, "same": same / compared, "of": compared,
        "judged": judged, "needed": FEWEST,
        "comparisons": [{key: value for key, value in vars(one).items() if key != "p_value"} for one in comparisons],
    }  # fmt: skip


def right_answers(entries: Iterable[Mapping[str, Any]], labels: Mapping[str, str]) -> dict[str, str]:
    """Request -> the answer that a person wrote: a correction, or a late label.

    An answer with a thumb up is left out: the champion wrote it, so its loss on it is low whichever model is better.
    """
    standing = journal.standing(map(dict, entries))
    return dict(labels) | {one["request"]: str(one["value"]) for one in standing if one["form"] == "correction"}


def in_words(shadow: Shadow) -> str:
    """The replay as lines of text."""
    lines = [
        f"on the newest {shadow['requests']} consented requests, {shadow['first'][:16]} to {shadow['last'][:16]}:",
        f"  the same answer on {shadow['same']:.1%} of {shadow['of']}",
    ]
    for one in shadow["comparisons"]:
        interval = f"{one['difference']:+.4g} ({one['low']:+.4g} to {one['high']:+.4g})"
        lines.append(
            f"  {one['metric']}: {one['candidate']:.4g} beside {one['champion']:.4g}, difference {interval}, "
            f"{one['verdict']}; of {one['records']:,} requests"
        )
    if not shadow["comparisons"]:
        lines.append(
            f"  {shadow['judged']} of them have a label or a correction; {shadow['needed']} are "
            "needed to say which model is better"
        )
    return "\n".join(lines)


def _label(answer: Mapping[str, Any]) -> str | None:
    if "value" in answer:
        return f"{answer['value']:.3g}"
    return label_text(answer.get("label", answer.get("labels")))


def _accuracy(asked: Sequence[Asked], said: Sequence[str | None], labels: Mapping[str, str]) -> Any:
    """The table of outcomes of a classifier on the labelled requests; requests of one user are alike."""
    judged = [(one, label == labels[one.id]) for one, label in zip(asked, said, strict=True) if one.id in labels]
    return _table("accuracy", [one for one, _ in judged], [float(right) for _, right in judged])


def _losses(folder: Path, asked: Sequence[Asked], wanted: Mapping[str, str], compute: Compute) -> Any:
    """The table of outcomes of a text model: loss in nats of each wanted answer, given its request."""
    from pipeline.inference.token_nats import Text, token_nats
    from pipeline.model import checkpoint
    from pipeline.tasks import open_tasks
    from pipeline.tokenizer import Tokenizer

    model = checkpoint.load(folder, compute.device).eval()
    task = open_tasks(folder, Tokenizer.load(folder), model.room())[0]
    judged = [one for one in asked if one.id in wanted]
    texts = [Text(task.prompt(one.request), task.tokenizer.encode(task.opens + wanted[one.id])) for one in judged]
    nats = token_nats(model, texts, 16, compute) if texts else []
    return _table("answer_nats", judged, [float(losses.sum()) for losses in nats])


def _table(metric: str, judged: Sequence[Asked], values: Sequence[float]) -> Any:
    rows = [{"id": one.id} for one in judged]
    measured = Outcomes(metric, rows, values, [one.user for one in judged])
    return outcomes.table({"requests": [outcomes.plain(measured)]})
