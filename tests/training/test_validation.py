"""Validation by a task's measure: the weights that are kept, early stopping, and what each measure counts."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.recipe import KeptBy, Validation
from pipeline.contracts import Predictions, per_example
from pipeline.losses.cross_entropy import CrossEntropy
from pipeline.model.gpt import GPT
from pipeline.prompts.spec import TaskSpec
from pipeline.tasks import IGNORED, open_task
from pipeline.training import run as runs
from pipeline.training import validation
from pipeline.training.loop import mean_loss
from pipeline.training.validation import Validated, error_of
from tests.fakes import instruction
from tests.learners import TOKENIZER, Records, chat_learner, classifier, records, small
from tests.training.test_run import Log, trainer


def parts_of(learner: Any) -> Any:
    """What validation needs of the parts of a recipe."""
    return SimpleNamespace(
        task=learner.task, loss=CrossEntropy(learner.task), ordering=SimpleNamespace(batch_size=4),
        compute=learner.compute, schedule=None, seed=1,
    )  # fmt: skip


def validate(model: GPT, parts: Any, examples: Any, cadence: Validation) -> Validated:
    """A validation of records."""
    return validation.validate(model, parts, records(model, parts, examples), examples, cadence)


def kept_by(measure: str) -> Validation:
    return Validation(every=1, batches=9, patience=0, keep=KeptBy(measure=measure))  # type: ignore[arg-type]


def learner_of(name: str, cells: list[str]) -> tuple[Any, Any, Any]:
    """A model, parts and examples of a task with a head, on texts with these label cells."""
    specs = {
        "multi_label": TaskSpec(name="multi_label", labels=("a", "b", "c"), max_tokens=40, max_prompt_tokens=40),
        "regress": TaskSpec(name="regress", mean=2.0, deviation=1.5, max_tokens=40, max_prompt_tokens=40),
    }
    spec = specs[name]
    task, model = open_task(spec, TOKENIZER), small(len(spec.outputs)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        model.score.weight *= 40  # type: ignore[union-attr]
    records = [{"text": f"metin {i * 7}" * (1 + i % 3), "label": cell} for i, cell in enumerate(cells)]
    learner = SimpleNamespace(task=task, compute=classifier().compute)
    return model, parts_of(learner), Records(records, task)


def test_validate_gives_the_loss_of_plain_validation_beside_the_measure() -> None:
    """Lost otherwise: curves of recipes that keep by a measure could not be compared with others."""
    learner = classifier()
    parts = parts_of(learner)
    for measure in ("accuracy", "f1"):
        validated = validate(learner.model, parts, learner.examples, kept_by(measure))
        assert validated.loss == mean_loss(learner.model, parts, learner.examples, 9)
    plain = validate(learner.model, parts, learner.examples, Validation(every=1, batches=9, patience=0, keep="best"))
    assert plain == (validated.loss, {}, {})
    assert plain.error == plain.loss


def test_accuracy_and_f1_of_classes_agree_with_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, f1_score

    learner = classifier()
    parts = parts_of(learner)
    batch = learner.batch(range(len(learner.examples)))
    with torch.no_grad():
        answers = learner.task.predictions(learner.model, batch).scores_NC.argmax(1).tolist()
    true = batch["targets"].tolist()
    got = {
        name: validate(learner.model, parts, learner.examples, kept_by(name)).measures for name in ("accuracy", "f1")
    }
    assert got["accuracy"]["accuracy"] == pytest.approx(accuracy_score(true, answers))
    assert got["f1"]["f1"] == pytest.approx(f1_score(true, answers, average="macro", zero_division=0))


def test_accuracy_and_f1_of_label_sets_agree_with_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, f1_score

    cells = ['["a"]', '["a", "b"]', "[]", '["c"]', '["b", "c"]', '["a", "b", "c"]', '["b"]']
    model, parts, examples = learner_of("multi_label", cells)
    true = np.array([example[1] for example in examples.examples])
    with torch.no_grad():
        batch = parts.task.collate(list(examples.examples))
        answers = (parts.task.predictions(model, batch).scores_NC >= 0).numpy().astype(int)
    accuracy, f1 = (validate(model, parts, examples, kept_by(name)) for name in ("accuracy", "f1"))
    assert accuracy.measures["accuracy"] == pytest.approx(accuracy_score(true, answers))
    assert f1.measures["f1"] == pytest.approx(f1_score(true, answers, average="macro", zero_division=0))
    assert 0 < f1.measures["f1"] < 1


def test_errors_of_a_regression_are_in_the_units_of_the_data() -> None:
    model, parts, examples = learner_of("regress", ["1", "2.5", "-3", "8", "0", "4"])
    with torch.no_grad():
        scores = parts.task.predictions(model, parts.task.collate(list(examples.examples))).scores_NC
    errors = parts.task.values(scores.squeeze(1)).numpy() - np.array([1, 2.5, -3, 8, 0, 4])
    rmse, mae = (validate(model, parts, examples, kept_by(name)) for name in ("rmse", "mae"))
    assert rmse.measures["rmse"] == pytest.approx(float(np.sqrt((errors**2).mean())), rel=1e-6)
    assert mae.measures["mae"] == pytest.approx(float(np.abs(errors).mean()), rel=1e-6)
    assert rmse.error == rmse.measures["rmse"]


def test_exact_match_counts_the_answers_that_greedy_decoding_gives() -> None:
    """Beside the real decoder: answers that it generates itself, and answers that it would not give."""
    from pipeline.inference.generation import generate

    learner = chat_learner()
    model, task = learner.model.eval(), learner.task
    questions = ["Nerede?", "Kim?", "Ne?"]
    prompts = [task.example(instruction(question, ""))[0][:-1] for question in questions]
    said = generate(
        model, prompts, max_tokens=4, temperature=0.0, top_k=0, top_p=1.0, stop=set(), generator=None
    )  # fmt: skip

    def example(prompt: list[int], answer: list[int]) -> tuple[list[int], list[int]]:
        return [*prompt, *answer], [*[IGNORED] * len(prompt), *answer]

    right = [example(prompt, answer) for prompt, answer in zip(prompts, said, strict=True)]
    wrong = [example(prompts[0], [*said[0][:-1], (said[0][-1] + 1) % 200])]
    parts = parts_of(learner)
    assert validate(model, parts, right, kept_by("exact_match")).measures == {"exact_match": 1.0}
    assert validate(model, parts, right + wrong, kept_by("exact_match")).measures == {"exact_match": 0.75}
    nothing = ([*prompts[0], 5], [IGNORED] * (len(prompts[0]) + 1))
    assert validate(model, parts, [right[0], nothing], kept_by("exact_match")).measures == {"exact_match": 0.5}


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[tuple[float, float]]) -> None:
    """Validations with these losses and accuracies, one after the other."""
    left = iter(values)

    def measured(*_: Any) -> Validated:
        loss, accuracy = next(left)
        return Validated(loss, {"accuracy": accuracy})

    monkeypatch.setattr(runs, "validate", measured)


def test_trainer_keeps_the_weights_with_the_best_measure_and_the_lower_loss_of_equal_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lowest loss is at step 6; accuracy is best at 12 and 18, and there the loss is lower at 18."""
    scripted(monkeypatch, [(1.0, 0.7), (1.5, 0.9), (1.2, 0.9), (1.1, 0.8)])
    kept: dict[int, Any] = {}
    real = runs.Trainer._validate

    def remembered(self: Any, state_of: int) -> None:
        kept[state_of] = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        real(self, state_of)

    monkeypatch.setattr(runs.Trainer, "_validate", remembered)
    plan = trainer(Log(), keep=KeptBy(measure="accuracy"))  # type: ignore[arg-type]
    progress = plan.run(None)
    assert (progress.best_step, progress.best_loss) == (18, 1.0)
    assert progress.best_measures == {"best_validation_accuracy": 0.9}
    assert progress.curve[1]["validation_accuracy"] == 0.9
    for name, parameter in plan.model.named_parameters():
        assert torch.equal(parameter, kept[18][name])


def test_trainer_stops_early_by_the_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss falls all the time."""
    scripted(monkeypatch, [(4.0, 0.9), (3.0, 0.8), (2.0, 0.7), (1.0, 0.6)])
    progress = trainer(Log(), keep=KeptBy(measure="accuracy"), patience=2).run(None)  # type: ignore[arg-type]
    assert progress.stopped_early
    assert (progress.step, progress.best_step, progress.best_loss) == (18, 6, 2.0)


def test_progress_with_a_measure_is_the_same_after_it_was_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [(1.0, 0.7), (1.5, 0.9), (1.2, 0.9), (1.1, 0.8)])
    progress = trainer(Log(), keep=KeptBy(measure="accuracy")).run(None)  # type: ignore[arg-type]
    assert runs.Progress.from_json(progress.as_json()) == progress
    assert runs.Progress.from_json(runs.Progress().as_json()) == runs.Progress()


def test_error_of_is_lower_for_better_values() -> None:
    assert error_of("accuracy", 0.9) == pytest.approx(0.1)
    assert error_of("rmse", 3.0) == 3.0
    assert set(validation.ERRORS) == {"rmse", "mae"}


def test_losses_of_predictions_are_the_mean_over_positions() -> None:
    """The one pass of a measured validation relies on it."""
    task = chat_learner().task
    predictions = Predictions(torch.randn(3, 5), torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1]), 2)
    by_hand = torch.nn.functional.cross_entropy(predictions.scores_NC, predictions.targets_N, reduction="none")
    torch.testing.assert_close(task.losses_of(predictions), per_example(by_hand, predictions))  # type: ignore[attr-defined]
