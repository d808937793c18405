"""The model card in Markdown (Mitchell et al. 2019), with Hugging Face's metadata header, in report.language.

Written for the reviewer who decides whether the model may be used: scores, worst slices, risks, data, gates, training,
costs, limits, origin, and two lists of what the law asks (obligations.py). All of it is read from files of the graph;
nothing is typed by hand.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from pipeline.prompts.spec import REWARD, TaskSpec
from pipeline.registry import card_header, obligations
from pipeline.registry.facts import Facts, chain, gather, waived
from pipeline.registry.markdown import table
from pipeline.reporting import energy, in_words
from pipeline.reporting.in_words import dimension_in_words
from pipeline.reporting.wording import Words, load
from pipeline.tracking import lineage

__all__ = ["Facts", "chain", "gather", "render", "waived"]


def render(facts: Facts, name: str) -> str:
    """The card as Markdown; `name` is the registered model's."""
    words = load(facts.language)
    sections = {
        "scores": _scores(facts, words),
        "worst": _slices(facts, words),
        "risks": _risks(facts, words),
        "data": _sources(facts.sources, words),
        "gates": table(
            [words("card.gate"), words("card.verdict")],
            ([gate, _verdict(verdict, words)] for gate, verdict in facts.gates.items()),
        ),
        "waivers": _waivers(facts, words),
        "training": _training(facts, words),
        "costs": _costs(facts, words),
        "limits": _limits(facts, words),
        "origin": table(
            ["", ""], ([key, f"`{value}`"] for key, value in (_hashes_of(facts, words) | facts.tags).items())
        ),
    }
    parts = [
        card_header.render(facts, name),
        f"# {name}",
        summary(facts, words),
        *(f"## {words(f'card.{key}')}\n\n{section}" for key, section in sections.items()),
        obligations.annex(facts, name, summary(facts, words), words),
        obligations.kvkk(facts),
    ]
    return "\n\n".join(parts) + "\n"


def summary(facts: Facts, words: Words) -> str:
    """The kind of model, its size and its labels in a sentence."""
    task, shape = facts.tasks[0].name, facts.shape
    kind = words(f"kind.{task}") if words.has(f"kind.{task}") else words("kind.next_token")
    layers, width = (  # in the names of our families, DistilBERT and T5
        next((shape[name] for name in names if shape.get(name)), None)
        for names in (
            ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
            ("hidden_size", "n_embd", "dim", "d_model"),
        )
    )
    named = next((spec.labels for spec in facts.tasks if spec.labels), ())
    return words(
        "card.kind", kind=kind, family=shape.get("model_type", words("annex.unknown")), layers=layers, width=width,
        vocabulary=shape.get("vocab_size"), labels=words("card.labels", labels=", ".join(named)) if named else "",
    )  # fmt: skip


def _hashes_of(facts: Facts, words: Words) -> dict[str, str]:
    """The model's hash; of an adapter the base's too, and of open weights their repository, commit, hash, licence."""
    rows = {words("card.model sha256"): facts.sha256}
    if facts.base:
        rows |= {
            words("card.stored as"): words("card.adapter only"),
            words("card.base"): facts.base["name"],
            words("card.base sha256"): facts.base["sha256"],
        }
    for key in ("repository", "revision", "sha256", "licence"):
        if facts.open_weights.get(key):
            rows[words(f"card.open {key}")] = str(facts.open_weights[key])
    return rows


def _scores(facts: Facts, words: Words) -> str:
    """The metrics with the interval of those that are shares of records, and the model beside its baseline."""
    rows = (
        [key, words.general(value, 6), in_words.interval(facts.metrics, key, words),
         _bound(facts.thresholds.get(key), words)]
        for key, value in sorted(facts.metrics.items())
    )  # fmt: skip
    header = [words(f"card.{name}") for name in ("measure", "value", "interval", "required")]
    sentence = in_words.baseline_sentence(facts.metrics, words)
    return "\n\n".join(filter(None, (sentence, table(header, rows))))


def _slices(facts: Facts, words: Words) -> str:
    if not facts.slices:
        return words("card.no slices")
    rows = (
        [one.metric, dimension_in_words(one.dimension, one.value, words), words.general(one.mean),
         words.interval(one.low, one.high), words.integer(one.records)]
        for one in facts.slices
    )  # fmt: skip
    return table([words(f"card.{name}") for name in ("measure", "slice", "value", "interval", "records")], rows)


def _risks(facts: Facts, words: Words) -> str:
    if not facts.risks:
        return words("card.no risks")
    rows = (
        [risk.metric, words.general(risk.value or 0.0), words(f"state.{risk.state}"), words.general(risk.warn),
         words.general(risk.fail)]
        for risk in facts.risks
    )  # fmt: skip
    return table([words(f"card.{name}") for name in ("risk", "value", "state", "warns", "fails")], rows)


def _training(facts: Facts, words: Words) -> str:
    """The stages, epochs and tokens of the last one, and the recipe."""
    examples = "records" if facts.recipe.get("data", "documents") != "documents" else "windows"
    amount = in_words.amount_of_training(facts.training, examples, words)
    if amount:
        tokens = words.integer(facts.training["tokens"])
        amount = words("card.amount", amount=amount, tokens=tokens, stage=facts.stages[-1])
    recipe = yaml.safe_dump(facts.recipe, sort_keys=False, allow_unicode=True)
    return "\n\n".join(filter(None, (" → ".join(facts.stages), amount, f"```yaml\n{recipe}```")))


def _sources(sources: Mapping[str, Mapping[str, Any]], words: Words) -> str:
    rows = (
        [
            key,
            entry.get("address") or entry.get("name"),
            entry.get("licence"),
            _consent(entry),
            ", ".join(
                words("records.counted", kind=words(f"records.{kind}"), n=words.integer(n))
                for kind, n in sorted((entry.get("rows") or {}).items())
                if n
            ),
            (entry.get("sha256") or "")[:12],
        ]
        for key, entry in sorted(sources.items())
    )
    header = [words(f"card.{name}") for name in ("source", "address", "licence", "consent", "records")]
    made = "\n".join(f"- {line}" for line in _made_from_others(sources, words))
    return "\n\n".join(filter(None, (table([*header, "sha256"], rows), made)))


def _made_from_others(sources: Mapping[str, Mapping[str, Any]], words: Words) -> list[str]:
    """A sentence for each source whose records a model or an augmentation made of another source's."""
    lines = []
    for key, entry in sorted(sources.items()):
        details = entry.get("details", {})
        if twins := details.get("twins"):
            kinds = ", ".join(words("card.copies by", n=words.integer(n), name=name) for name, n in twins.items())
            lines.append(
                words("card.copies", source=key, n=words.integer(sum(twins.values())), kinds=kinds, of=details["of"],
                      records=words.integer(details["records"]),
                      percent=words.number(100 * details["share_of_records"], 0))
            )  # fmt: skip
        elif models := details.get("models"):
            lines.append(
                words("card.written", source=key, models=", ".join(models), asked=details["asked"],
                      prompts=details["prompts_sha256"][:12])
            )  # fmt: skip
    return lines


def _consent(entry: Mapping[str, Any]) -> Any:
    """The basis of a source's records; where they state their own, the number of records of each."""
    stated = entry.get("consents")
    return ", ".join(f"{basis} {n}" for basis, n in sorted(stated.items())) if stated else entry.get("consent")


def _verdict(verdict: dict[str, Any], words: Words) -> str:
    if verdict.get("passed") is not True:
        return words("card.failed")
    number = len(lineage.waived_expectations(verdict))
    return words("card.passed waived", n=number) if number else words("card.passed")


def _waivers(facts: Facts, words: Words) -> str:
    rows = [
        [gate, entry["expectation"], entry["column"], entry["waiver"]["reason"], entry["waiver"]["until"]]
        for gate, entry in waived(facts)
    ]
    header = [words(f"card.{name}") for name in ("gate", "expectation", "column", "reason", "until")]
    return table(header, rows) if rows else words("card.none")


def _costs(facts: Facts, words: Words) -> str:
    """Seconds, memory and energy of every stage; carbon where the grid is known."""
    if not facts.runs:
        return words("card.no runs")

    def shown(value: Any) -> str:
        return words.general(value) if isinstance(value, int | float) else "-"

    rows = (
        [
            stage,
            *(shown(run.get(key)) for key in ("seconds_total", "peak_memory_mib", "energy_wh_measured",
                                              "energy_wh_estimated")),
            words("card.threads", device=run.get("device", ""), threads=run.get("threads", "")),
        ]
        for stage, run in facts.runs.items()
    )  # fmt: skip
    header = [words(f"card.{name}") for name in ("stage", "seconds", "memory", "measured", "estimated", "device")]
    said = energy.sentences(energy.of(facts.runs.values()), facts.grid, words)
    return "\n\n".join(filter(None, (table(header, rows), " ".join(said))))


def _trained_on(facts: Facts, words: Words) -> str:
    """What the model has learned from, in words."""
    if facts.tasks[0].name == "unchanged":
        return words("card.trained by authors")
    return words("card.trained from open weights" if facts.open_weights else "card.trained here")


def _limits(facts: Facts, words: Words) -> str:
    context = facts.shape.get("max_position_embeddings") or facts.shape.get("n_positions")
    lines = [
        words("card.reads", tokens=facts.tasks[0].max_prompt_tokens or context),
        _trained_on(facts, words),
        words("card.held out"),
    ]
    if any("synthetic" in (entry.get("consents") or {entry.get("consent")}) for entry in facts.sources.values()):
        lines.append(words("card.synthetic"))
    if "epsilon" in facts.training:
        epsilon, delta = words.number(facts.training["epsilon"], 2), words.general(facts.training["delta"], 6)
        lines.append(words("card.private", epsilon=epsilon, delta=delta))
    lines += [line for spec in facts.tasks if (line := _decision(spec, words))]
    if any(spec.generates for spec in facts.tasks):
        lines.append(words("card.false statements"))
    return "\n".join(f"- {line}" for line in lines)


def _decision(task: TaskSpec, words: Words) -> str:
    """How a task decides its answer from its scores; empty for one that generates text."""
    thresholds = task.thresholds or {}
    shown = ", ".join(f"{label} {words.general(threshold, 3)}" for label, threshold in thresholds.items())
    if task.name == "regress":
        mean, deviation = words.general(task.mean or 0.0, 6), words.general(task.deviation or 0.0, 6)
        return words("card.answers number", mean=mean, deviation=deviation)
    if task.name == REWARD:
        return words("card.answers reward")
    if not task.labels:
        return ""
    key = "card.answers labels" if task.name == "multi_label" else "card.answers label"
    if not shown:
        return words(key)
    return words(f"{key} chosen", aim=words(f"card.aim {task.decided_by}") if task.decided_by else "", shown=shown)


def _bound(bound: Mapping[str, float | None] | None, words: Words) -> str:
    if bound is None:
        return ""
    signs = {"at_least": ">=", "at_most": "<="}
    return ", ".join(
        f"{sign} {words.general(limit, 6)}" for key, sign in signs.items() if (limit := bound.get(key)) is not None
    )
