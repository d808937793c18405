"""A look in words, for the command line."""

from pipeline.watching.drift import Statistic
from pipeline.watching.looking import Look
from pipeline.watching.quality import Missing, Quality

_NAMES = {
    "characters": "characters a text", "words": "words a text", "fertility": "tokens a word",
    "unknown_words": "share of unknown words", "confidence": "confidence", "value": "answered number",
    "answer_tokens": "tokens an answer", "answer_nats": "uncertainty of answers, nats a token",
    "distance": "embedding distance", "language": "language", "label": "answered label",
    "accuracy": "accuracy by labels that arrived later", "thumbs": "share of accepted answers by ratings",
    "loss": "loss on the texts, nats a token",
}  # fmt: skip
_VERDICTS = {
    "quiet": "no evidence of drift",
    "warning": "requests or answers are distributed otherwise than in the reference; whether answers are worse is not "
    "known without labels or ratings",
    "alarm": "answers have become worse; retraining is advised",
}
_SHOWN = 6


def described(look: Look) -> str:
    """The verdict, its evidence, the measures of quality, and what is missing."""
    reference = f"{look.reference['observations']} {look.reference['source']}"
    lines = [
        f"{look.verdict}: {_VERDICTS[look.verdict]}",
        f"  look {look.number} at {look.model} ({look.model_sha256[:12]}): {look.requests} requests from "
        f"{look.from_time} to {look.until_time}, beside {reference}",
    ]
    if not look.fresh:
        lines.append("  too little is new since this look: nothing was tested again")
    if look.episode is not None and not look.new:
        lines.append("  this episode was reported before; it ends after two looks without evidence")
    drifted = [one for one in look.statistics if one.drifted]
    lines += [f"  changed: {_statistic(one)}" for one in sorted(drifted, key=lambda one: one.p_value)[:_SHOWN]]
    if len(drifted) > _SHOWN:
        lines.append(f"  and {len(drifted) - _SHOWN} more on the page")
    lines += [f"  {_quality(one)}" for one in look.quality]
    lines += [f"  {sentence}" for one in look.missing if (sentence := _missing(one))]
    return "\n".join(lines)


def _statistic(one: Statistic) -> str:
    name = _NAMES.get(one.name, one.name) + (f" {one.category}" if one.category is not None else "")
    return f"{name} {one.window:.4g}, reference {one.reference:.4g} (p {one.p_value:.2g})"


def _quality(one: Quality) -> str:
    verdict = "worse" if one.worse else "not significantly worse"
    return (
        f"{_NAMES[one.name]}: {one.value:.4g} (95 % interval {one.low:.4g} to {one.high:.4g}) of {one.count}, "
        f"reference {one.reference:.4g} of {one.reference_count}: {verdict} (p {one.p_value:.2g})"
    )


def _missing(one: Missing) -> str:
    if one.needed:
        return f"{_NAMES[one.name]}: {one.count} requests with evidence, {one.needed} are needed"
    return f"{_NAMES[one.name]}: no reviewed accuracy to compare with" if one.name == "accuracy" and one.count else ""
