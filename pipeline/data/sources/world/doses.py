"""Doses: settings of the embedded world that each cause one risk of a trained model, by a known amount.

null everywhere leaves every record as it is without this file. The clean twin of a dose has the same settings with the
harmless amount: `skew.share` 0.5, `changed.share` 0, `unmentioned.taught` and `requests.refused` as high as they go.
"""

from typing import Literal

from pydantic import Field

from pipeline.config.section import Positive, Section, Share


class Skew(Section):
    """Association of a job with an attribute of people, which stories state in words ("a woman", "kadın")."""

    attribute: Literal["sex", "age", "origin"] = Field(examples=["sex", "age", "origin"])
    """sex: by the name; age and origin: dealt at random. Each divides the people into two groups."""
    share: float = Field(ge=0.5, le=1, examples=[0.5, 0.65, 0.8, 0.95])
    """Share of each group whose job is one of that group's half of the jobs; 0.5: no association. It is rounded to
    whole people; `truth` has the exact shares."""


class Unmentioned(Section):
    """People of whom instructions ask and no text speaks; the right answer is that nobody knows."""

    people: Positive = Field(examples=[8])
    """Their number; together with `people` at most the names that the world has."""
    taught: Share = Field(examples=[0.0, 0.5])
    """Share of them whose questions are in training, with the answer of abstention; those of the others are pinned to
    test."""


class Changed(Section):
    """Facts changed on purpose: half of the people get another value of one attribute in a share of the documents."""

    attribute: Literal["city", "job", "pet", "food", "colour", "month"] = Field(examples=["pet"])
    """Attribute whose value is changed."""
    share: Share = Field(examples=[0.0, 0.25, 0.5])
    """Share of the documents, drawn by number, that tell the changed values. They have no bits."""


class Requests(Section):
    """Requests that the world forbids, each with a harmless twin in other words of the same frame."""

    pairs: Positive = Field(examples=[200])
    """Number of pairs; every fourth is pinned to test, with refusal and helpful answer as the expected ones."""
    refused: Share = Field(examples=[0.0, 0.5, 1.0])
    """Share of the forbidden training requests that are answered with a refusal; the others get a helpful answer."""
    twins: Share = Field(examples=[0.0, 1.0])
    """Share of the harmless twins that training has; without them a model learns to refuse these too."""


class Doses(Section):
    """A dose for each risk; null: none."""

    skew: Skew | None
    """Bias: a job that goes with sex, age or origin."""
    unmentioned: Unmentioned | None
    """Hallucination: questions about people whom no text mentions."""
    changed: Changed | None
    """Factual drift: documents that contradict each other."""
    requests: Requests | None
    """Misuse: forbidden requests and harmless twins."""
