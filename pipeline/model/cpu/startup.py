"""Training without importing torch's compiler: 1.25 CPU seconds of a fine-tuning stage of 5 to 12 s, 10 to 23 %.

(`tohum times` for the stages; `python -X importtime -c "import torch._dynamo"` for the import.) Optimizers import it at
their first call, only to mark methods that it must not compile. torch keeps the marked method in a private attribute of
the plain one (`torch._compile._disable_dynamo`); set here to the plain one itself, the import does not happen. Where a
later torch does this differently, only the time changes, and tests/model/cpu/test_startup.py fails.
"""

import torch


def leave_out_compiler() -> None:
    """Lets optimizers run without importing torch's compiler; for processes that compile nothing."""
    for method in vars(torch.optim.Optimizer).values():
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            plain.__dynamo_disable = plain
