"""A start without torch's compiler, whose import takes 2 s of every stage that trains.

Optimizers import it at their first call, only to mark methods that it must not compile. torch keeps the marked method
in an attribute of the plain one (`torch._compile._disable_dynamo`); set here to the plain one itself, the import does
not happen. Where a later torch does this differently nothing changes but the time, and
tests/model/cpu/test_startup.py fails.
"""

import torch


def leave_out_compiler() -> None:
    """Lets optimizers run without importing torch's compiler; for processes that compile nothing."""
    for method in vars(torch.optim.Optimizer).values():
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            plain.__dynamo_disable = plain
