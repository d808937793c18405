"""Task arithmetic: the base plus a weighted sum of task vectors (Ilharco et al. 2023)."""

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from pipeline.config.section import Section
from pipeline.merging import MergeRule, Tensors, task_vector


class Settings(Section):
    """Weights of the task vectors."""

    scales: tuple[float, float] = Field(examples=[[1.0, 1.0]])
    """Of the first and the second model; 1 adds the whole task vector, two halves average, negative values remove it
    (section 3)."""


def build(settings: Settings) -> MergeRule:
    """theta = theta_base + sum_i scale_i tau_i (section 2; the paper has one scale for all)."""

    def merged(base: Tensors, models: Sequence[Tensors]) -> dict[str, Tensor]:
        sums = {name: weight.double() for name, weight in base.items()}
        for scale, model in zip(settings.scales, models, strict=True):
            for name, tau in task_vector(base, model).items():
                sums[name] = sums[name] + scale * tau
        return {name: value.to(base[name].dtype) for name, value in sums.items()}

    return merged
