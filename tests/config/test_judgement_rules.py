"""Experience, judge and loss of a recipe: each combination that cannot work is refused, with the value that would."""

import copy
from typing import Any

import pytest
import yaml

from pipeline import config
from pipeline.config import plugins
from pipeline.config.judgement_rules import judge_model
from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT

RAW: dict[str, Any] = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
RULE = {"name": "rule", "reads": "models/base", "check": "exact_match"}
MODEL = {"name": "reward_model", "reads": "models/reward", "sha256": None}
FUNCTION = {"name": "function", "reads": "inputs/judge.py", "function": "score"}


def part(folder: str, name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name} | plugins.example(folder, name) | changes


def params(changes: dict[str, Any]) -> dict[str, Any]:
    """Params with a reward model, and a recipe `tried` that learns from rollouts."""
    raw = copy.deepcopy(RAW)
    raw["search"], raw["register"]["models"] = {}, []
    shared = {"data": "preferences", "weighting": {"name": "uniform"}, "ordering": part("ordering", "shuffled")}
    reward = {"task": part("tasks", "reward"), "loss": part("losses", "bradley_terry")}
    raw["finetune"]["reward"] = raw["finetune"]["chat-lora"] | shared | reward
    raw["finetune"]["tried"] = raw["finetune"]["chat-lora"] | shared | {
        "from": "chat-lora", "reference": "chat-lora", "judge": RULE, "task": part("tasks", "prompts"),
        "loss": part("losses", "grpo"), "experience": part("experience", "rollouts"),
    } | changes  # fmt: skip
    for name in ("reward", "tried"):
        raw["evaluations"][name] = raw["evaluations"]["chat-lora"] | {"measures": {}, "thresholds": {}}
    return raw


@pytest.mark.parametrize(
    "judge",
    [RULE, RULE | {"reads": "models/chat-lora"}, MODEL, MODEL | {"reads": "inputs/reward", "sha256": "0" * 64},
     FUNCTION, {"name": "world", "reads": "models/base"}],
    ids=lambda judge: f"{judge['name']} {judge['reads']}",
)  # fmt: skip
def test_check_accepts_every_judge_with_what_it_reads(judge: dict[str, Any]) -> None:
    checked = config.check(params({"judge": judge}))
    expected = judge["reads"].removeprefix("models/") if judge["reads"].startswith("models/") else None
    assert judge_model(checked.finetune["tried"]) == expected


NO = {"name": "none", "reads": "models/chat-lora"}
PRIVATE = {
    "privacy": {"epsilon": 8.0, "delta": 1e-5, "clip_norm": 1.0}, "ordering": part("ordering", "poisson"),
    "schedule": RAW["finetune"]["chat-lora"]["schedule"] | {"clip_norm": 0.0},
}  # fmt: skip
INSTRUCT = {"task": part("tasks", "instruct"), "loss": part("losses", "cross_entropy"), "data": "instructions"}
CASES: list[tuple[dict[str, Any], str]] = [
    (
        {"experience": {"name": "records"}},
        "tried.experience.name is 'records', and loss 'grpo' learns from rollouts; write rollouts, or choose",
    ),
    (
        INSTRUCT | {"judge": NO},
        "tried.experience.name is 'rollouts', and loss 'cross_entropy' learns from records; write records, or choose",
    ),
    (
        {"experience": part("experience", "rollouts", samples=1)},
        "tried.experience.samples is 1, and loss 'grpo' compares the answers to a prompt",
    ),
    ({"judge": NO}, "tried.judge.name is 'none', and loss 'grpo' learns from scores; one of: function, reward_model"),
    (
        INSTRUCT | {"experience": {"name": "records"}},
        "tried.judge.name is 'rule', and loss 'cross_entropy' learns from no scores; write {name: none, reads: "
        "models/chat-lora}",
    ),
    (
        INSTRUCT | {"experience": {"name": "records"}, "judge": NO | {"reads": "models/base"}},
        "tried.judge.reads is 'models/base', and judge 'none' reads nothing of its own; write models/chat-lora",
    ),
    (
        {"judge": RULE | {"reads": "models/reward"}},
        "tried.judge.reads is 'models/reward', and judge 'rule' reads nothing of its own; write models/chat-lora or "
        "models/base",
    ),
    (
        {"judge": MODEL | {"reads": "models/chat-lora"}},
        "tried.judge.reads is 'models/chat-lora', which is no model of task reward; one of: models/reward",
    ),
    ({"judge": MODEL | {"reads": "models/other"}}, "tried.judge.reads is 'models/other', which is no model of task"),
    ({"judge": MODEL | {"sha256": "0" * 64}}, "tried.judge.sha256 is set, and DVC pins a model of the graph itself"),
    ({"judge": MODEL | {"reads": "inputs/reward"}}, "tried.judge.reads is 'inputs/reward' and sha256 null; a folder"),
    ({"judge": MODEL | {"reads": "/models/reward"}}, "expected models/<a recipe with task reward>, or a folder below"),
    ({"judge": MODEL | {"reads": "inputs/../x"}}, "expected models/<a recipe with task reward>, or a folder below"),
    ({"judge": FUNCTION | {"reads": "judge.py"}}, "tried.judge.reads is 'judge.py'; expected a Python file below in"),
    ({"judge": FUNCTION | {"reads": "inputs/judge"}}, "tried.judge.reads is 'inputs/judge'; expected a Python file"),
    ({"judge": RULE | {"check": "taste"}}, "tried.judge.check"),
    (
        {"ordering": part("ordering", "curriculum")},
        "tried.ordering.name is 'curriculum', which follows the records of the data, and experience 'rollouts' makes "
        "new examples; one of: poisson, shuffled",
    ),
    ({"ordering": part("ordering", "mixture")}, "tried.ordering.name is 'mixture', which follows the records"),
    (
        {"weighting": part("weighting", "reweight")},
        "tried.weighting.name is 'reweight', which follows the records of the data",
    ),
    (
        {"weighting": part("weighting", "reweight"), "task": part("tasks", "thumbs"), "loss": part("losses", "kto"),
         "judge": NO, "experience": {"name": "records"}},
        "tried.weighting.name is 'reweight', which weighs an example by the likelihood of its first answer, and loss "
        "'kto' judges answers; set it to uniform",
    ),
    (
        {"schedule": RAW["finetune"]["chat-lora"]["schedule"] | {"steps": None, "epochs": 2.0}},
        "tried.schedule.epochs is 2, and experience 'rollouts' makes its own examples; write schedule.steps",
    ),
    ({"few": 3}, "tried.few draws records, and experience 'rollouts' makes its own examples; set it to null"),
    (PRIVATE, "tried.privacy is set, and task 'prompts' trains on rollouts, for which no budget is kept"),
    (
        PRIVATE | {"task": part("tasks", "preference"), "loss": part("losses", "dpo"), "judge": NO,
                   "experience": {"name": "records"}},
        "tried.privacy is set, and task 'preference' trains on pairs of answers, for which no budget is kept",
    ),
    (
        {"task": part("tasks", "prompts", max_tokens=56, max_prompt_tokens=54)},
        "tried.experience.max_tokens is 8 and task.max_prompt_tokens 54, together 62; task.max_tokens is 56: raise it",
    ),
    (
        {"task": part("tasks", "instruct"), "data": "instructions"},
        "tried.loss.name is 'grpo', which takes prompts, and task 'instruct' gives tokens; one of: ",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), CASES)
def test_check_refuses_a_recipe_whose_experience_judge_and_loss_do_not_fit(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        config.check(params(changes))
    assert f"finetune.{words}" in str(caught.value) or words in str(caught.value), caught.value


def test_check_refuses_a_reward_model_that_was_trained_from_the_model_that_it_judges() -> None:
    raw = params({"judge": MODEL})
    raw["finetune"]["reward"] |= {
        "from": "tried",
        "reference": "tried",
        "judge": {"name": "none", "reads": "models/tried"},
    }
    with pytest.raises(UserError, match="its `from`, `reference` or judge is made with 'reward' itself"):
        config.check(raw)


def test_check_refuses_a_judge_in_pretraining() -> None:
    raw = copy.deepcopy(RAW)
    raw["pretrain"]["judge"] = RULE
    with pytest.raises(UserError, match=r"pretrain\.judge"):
        config.check(raw)


@pytest.mark.parametrize(
    "path", ["loss.kl.weight", "loss", "experience.temperature", "experience.max_tokens", "experience", "judge.check"]
)
def test_check_refuses_a_search_whose_trials_would_be_validated_by_different_losses(path: str) -> None:
    raw = params({})
    space = {"choices": [1, 2]}
    search = {"trials": 2, "seed": 1, "pruner": {"warmup_validations": 1, "startup_trials": 1}}
    raw["search"] = {"tried": search | {"space": {path: space}}}
    with pytest.raises(UserError, match=r"search\.tried\.space\..*: trials are compared by .*, so these stay"):
        config.check(raw)
    rates = {"choices": [1e-3, 1e-4]}
    raw["search"]["tried"]["space"] = {"experience.updates": space, "optimizer.learning_rate": rates}
    config.check(raw)
