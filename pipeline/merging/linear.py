"""Task arithmetic: the base and a weighted sum of what every tuning added (Ilharco et al. 2023)."""

from collections.abc import Sequence

from torch import Tensor

from pipeline.config.section import Section
from pipeline.merging import Rule, Tensors, task_vector


class Settings(Section):
    scales: tuple[float, float]
    """Of first and second; 1 adds all that tuning did, halves make the average, below 0 takes it away (section 3)."""


def build(settings: Settings) -> Rule:
    """theta = theta_base + sum_i scale_i tau_i (section 2; the paper has one scale for all)."""

    def merged(base: Tensors, models: Sequence[Tensors]) -> dict[str, Tensor]:
        sums = {name: weight.double() for name, weight in base.items()}
        for scale, model in zip(settings.scales, models, strict=True):
            for name, moved in task_vector(base, model).items():
                sums[name] = sums[name] + scale * moved
        return {name: value.to(base[name].dtype) for name, value in sums.items()}

    return merged
