"""Whether the server may decode a model by compiled code (model/native.py): where its answers are those of torch.

Evaluation decodes with torch's kernels. Compiled code is several times as fast for one answer (`python -m
tests.bench.decoding`), and its logits differ by rounding. So both answer the same prompts when a model is loaded, and a
model with another id, or a log-probability that is further away than rounding, is decoded with torch. Beyond these
prompts a text may still differ where two ids are likely to the same digits of float32; `CXX=none tohum serve` decodes
everything with torch.
"""

import logging

from pipeline.inference.answers import ends
from pipeline.inference.engine import Engine, RowSettings
from pipeline.model import native
from pipeline.model.decoding import Compile
from pipeline.model.gpt import GPT
from pipeline.tasks import Request, Task

_LOG = logging.getLogger("tohum.serving")
_PROMPTS = (
    "Merhaba, bugün nasılsın?", "Where does Ayşe live, and what is her work?", "A", "2, 4, 8,", "İyi günler!",
    "The old house stood at the end of a long road, and nobody had opened its door for many years.",
    "Sipariş ne zaman gelir? Numarası 4711.", "Write one sentence about the sea.",
)  # fmt: skip
_TOKENS = 24  # of each answer
_ROUNDING = 1e-3  # of a log-probability in float32, with room for deep models
_Said = list[tuple[int, int, float]]


def engine_of(model: GPT, task: Task, max_rows: int, name: str) -> Engine:
    """The engine of a served model: with compiled code where it answers as torch does, else with the reason in the log.

    Args:
        model: on the CPU.
        task: gives the prompts.
        max_rows: as of Engine.
        name: of the model, for the log.
    """
    engine = Engine(model, max_rows=max_rows, compile_step=native.of)
    if not engine.is_compiled:
        _LOG.info("%s: decoded with torch (no C++ compiler, or weights that it does not take)", name)
        return engine
    if _alike(_answers(model, task, None), _answers(model, task, native.of)):
        return engine
    _LOG.warning("%s: decoded with torch, because compiled code did not give its answers", name)
    return Engine(model, max_rows=max_rows)


def _answers(model: GPT, task: Task, compile_step: Compile | None) -> _Said:
    """Row, id and log-probability of every token of greedy answers."""
    engine = Engine(model, max_rows=len(_PROMPTS), compile_step=compile_step)
    for text in _PROMPTS:
        ids = task.prompt(Request(text))[: max(1, engine.room // 2)]
        engine.add(ids, RowSettings(_TOKENS, stop=frozenset(ends(task))))
    said: _Said = []
    while engine.busy:
        said += [(token.row, token.id, token.logprob) for token in engine.step()]
    return said


def _alike(one: _Said, other: _Said) -> bool:
    """Whether ids are equal and log-probabilities equal up to rounding."""
    if [token[:2] for token in one] != [token[:2] for token in other]:
        return False
    return all(abs(a - b) <= _ROUNDING for (*_, a), (*_, b) in zip(one, other, strict=True))
