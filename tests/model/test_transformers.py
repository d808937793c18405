"""Exported folders in transformers: from a text to a label or an answer, equal to the predictor's, for every task and
family, in batches and for empty texts too.
"""

from pathlib import Path

import pytest
import torch

from pipeline import tokenizer as vocabularies
from pipeline.config.recipe import HEADLESS
from pipeline.inference.predictor import Predictor
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from pipeline.prompts.request import Request
from pipeline.prompts.spec import TEXT, TaskSpec
from pipeline.tokenizer import Tokenizer
from tests.models import shape
from tests.specs import written

FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "arcee", "nanochat")
WITH_HEAD = [family for family in FAMILIES if family not in HEADLESS]
CORPUS = "Ayşe İzmir'de yaşıyor. Bu mesaj sıradan, şu mesaj istenmeyen. Merhaba dünya, free prize now! "
TEXTS = [
    "Ayşe nerede yaşıyor?",
    "",
    "free prize now! ışıl ışıl çiğ köfte",
    "ı",
    " iki boşluk  ve\nsatır ",
    "<|endoftext|> metin <|pad|>",
]
CHAT_TEXTS = TEXTS[:-1]  # a chat template places special tokens by name, so transformers matches them in texts too
CLASSIFY = TaskSpec(name="classify", labels=("ham", "spam", "çöp"), max_tokens=40, max_prompt_tokens=40)
MULTI_LABEL = TaskSpec(
    name="multi_label", labels=("ev", "iş", "çöp"), max_tokens=40, max_prompt_tokens=40,
    thresholds={"ev": 0.5, "iş": 0.2, "çöp": 0.9}, decided_by="f1",
)  # fmt: skip
REGRESS = TaskSpec(name="regress", mean=3.0, deviation=1.5, max_tokens=40, max_prompt_tokens=40)
REWARD = TaskSpec(name="reward", template="chat", max_tokens=80, max_prompt_tokens=60)
CLOZE = TaskSpec(
    name="cloze",
    labels=("ham", "spam"),
    pattern="Metin: {text} Bu mesaj{label}",
    verbalizers={"ham": " sıradan", "spam": " istenmeyen"},
    max_tokens=90,
    max_prompt_tokens=76,
)
ANSWERING = {
    "instruct": TaskSpec(name="instruct", template="chat", max_tokens=128, max_prompt_tokens=100),
    "chat": TaskSpec(name="chat", template="chat", max_tokens=128, max_prompt_tokens=100),
    "alpaca": TaskSpec(name="instruct", template="alpaca", max_tokens=128, max_prompt_tokens=100),
}
NEW = 12  # tokens of an answer


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small vocabulary."""
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    vocabularies.train([CORPUS * 20], 340, "gpt2").save(folder)
    return folder


def exported(folder: Path, words: Path, family: str, task: TaskSpec) -> Path:
    """A random model of this family and task that generates no special tokens but end-of-text."""
    tokenizer = Tokenizer.load(words)
    size = {"vocab_size": tokenizer.vocab_size, "context_length": 128, "tie_embeddings": False}
    model = GPT(shape(family, **size), torch.Generator().manual_seed(3))
    labels = None if task.name == "cloze" else list(task.outputs) or None  # cloze has labels and no head
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
        for number in tokenizer.special.values():
            model.head.weight[number] = 0
    if labels:
        model.add_score(len(labels), torch.Generator().manual_seed(5))
        with torch.no_grad():
            model.score.weight *= 30  # type: ignore[union-attr]
    checkpoint.save(model, folder, tokenizer=words, labels=labels, metadata=written([task.within(128)]))
    return folder


@pytest.mark.parametrize("family", WITH_HEAD)
def test_a_classifier_gives_the_predictors_labels_and_scores(family: str, tmp_path: Path, words: Path) -> None:
    """Lost otherwise: without the end token that the head reads, transformers answers wrongly and says nothing."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    folder = exported(tmp_path / "model", words, family, CLASSIFY)
    ours = Predictor(folder).answer(TEXTS)
    assert len({round(answer["score"], 3) for answer in ours}) == len(TEXTS)
    theirs = pipeline("text-classification", model=str(folder))(TEXTS, batch_size=len(TEXTS))
    assert [answer["label"] for answer in theirs] == [answer["label"] for answer in ours]
    assert [answer["score"] for answer in theirs] == pytest.approx([answer["score"] for answer in ours], abs=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    alone = [int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text in TEXTS]
    assert [model.config.id2label[number] for number in alone] == [answer["label"] for answer in ours]


@pytest.mark.parametrize("family", WITH_HEAD)
def test_a_multi_label_model_gives_the_predictors_probabilities(family: str, tmp_path: Path, words: Path) -> None:
    """Lost otherwise: with the problem type of one label transformers would take a softmax over the labels."""
    from transformers import pipeline

    folder = exported(tmp_path / "model", words, family, MULTI_LABEL)
    ours = Predictor(folder).answer(TEXTS)
    assert MULTI_LABEL.thresholds is not None
    for answer in ours:
        chosen = [label for label, p in answer["probabilities"].items() if p >= MULTI_LABEL.thresholds[label]]
        assert answer["labels"] == chosen
    assert len({round(answer["probabilities"]["ev"], 3) for answer in ours}) == len(TEXTS)
    theirs = pipeline("text-classification", model=str(folder), top_k=None)(TEXTS, batch_size=len(TEXTS))
    for rows, answer in zip(theirs, ours, strict=True):
        assert {row["label"]: row["score"] for row in rows} == pytest.approx(answer["probabilities"], abs=1e-5)


@pytest.mark.parametrize("family", WITH_HEAD)
def test_a_regression_model_gives_the_predictors_values(family: str, tmp_path: Path, words: Path) -> None:
    """The output of transformers is standardised; its problem type keeps a sigmoid away."""
    from transformers import pipeline

    folder = exported(tmp_path / "model", words, family, REGRESS)
    ours = [answer["value"] for answer in Predictor(folder).answer(TEXTS)]
    theirs = pipeline("text-classification", model=str(folder))(TEXTS, batch_size=len(TEXTS))
    assert [3.0 + 1.5 * row["score"] for row in theirs] == pytest.approx(ours, abs=1e-4)
    assert max(ours) - min(ours) > 1.5  # more than the sigmoid's range


@pytest.mark.parametrize("family", WITH_HEAD)
def test_a_reward_model_gives_the_predictors_rewards(family: str, tmp_path: Path, words: Path) -> None:
    """Lost otherwise: the head reads padding, or the token before the end of the answer, and says nothing."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = exported(tmp_path / "model", words, family, REWARD)
    asked = [Request(text, answer=answer) for text in CHAT_TEXTS[:3] for answer in ("free prize", "", "İzmir'de.")]
    ours = [row["reward"] for row in Predictor(folder).answer(asked)]
    assert len({round(reward, 3) for reward in ours}) == len(ours)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert (model.config.num_labels, model.config.problem_type) == (1, "regression")
    chats = [[{"role": "user", "content": one.question}, {"role": "assistant", "content": one.answer}] for one in asked]
    inputs = tokenizer.apply_chat_template(chats, padding=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        assert model(**inputs).logits[:, 0].tolist() == pytest.approx(ours, abs=1e-5)


@pytest.mark.parametrize("family", WITH_HEAD)
def test_a_classifier_reads_texts_up_to_the_training_limit_as_the_predictor_does(
    family: str, tmp_path: Path, words: Path
) -> None:
    """Lost otherwise: a long text would be read whole, which training never did; the bound is in README.md."""
    from transformers import pipeline

    folder = exported(tmp_path / "model", words, family, CLASSIFY)
    theirs, ours = pipeline("text-classification", model=str(folder)), Tokenizer.load(folder)
    limit = CLASSIFY.max_tokens
    assert limit is not None
    longest = next(text for n in range(200) if len(ours.encode(text := "Merhaba " + "9" * n)) == limit - 1)
    (answer,), (expected,) = theirs([longest], truncation=True), Predictor(folder).answer([longest])
    assert answer["score"] == pytest.approx(expected["score"], abs=1e-5)
    ids = theirs.tokenizer(longest + " dünya", truncation=True)["input_ids"]
    assert ids == [*ours.encode(longest), ours.end_of_text]
    assert f"at most {limit} tokens" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cloze_model_gives_the_predictors_labels(family: str, tmp_path: Path, words: Path) -> None:
    """It is a language model, whose tokenizer puts the pattern around each text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = exported(tmp_path / "model", words, family, CLOZE)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert CLOZE.verbalizers is not None
    scores = {label: [0.0] * len(TEXTS) for label in CLOZE.verbalizers}
    for label, word in CLOZE.verbalizers.items():
        word_ids = torch.tensor(tokenizer.encode(word, add_special_tokens=False))
        assert len(word_ids) > 0
        for row, text in enumerate(TEXTS):
            prompt = tokenizer(text, return_tensors="pt", truncation=True)["input_ids"]
            logits = model(torch.cat((prompt, word_ids[None, :-1]), dim=1)).logits[0, prompt.shape[1] - 1 :]
            scores[label][row] = logits.log_softmax(-1)[range(len(word_ids)), word_ids].sum().item()
    table = torch.tensor(list(scores.values())).T.softmax(-1)
    ours = Predictor(folder).answer(TEXTS)
    assert [list(scores)[int(i)] for i in table.argmax(-1)] == [answer["label"] for answer in ours]
    assert table.max(-1).values.tolist() == pytest.approx([answer["score"] for answer in ours], abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_language_model_gives_the_predictors_completions(family: str, tmp_path: Path, words: Path) -> None:
    """Lost otherwise: prompts would lack the end-of-text token that training puts before every document."""
    from transformers import pipeline

    folder = exported(tmp_path / "model", words, family, TEXT)
    ours = [answer["completion"] for answer in Predictor(folder).answer(TEXTS, {"max_tokens": NEW})]
    assert any(ours)
    generator = pipeline("text-generation", model=str(folder))
    arguments = {"max_new_tokens": NEW, "do_sample": False, "return_full_text": False}
    for batch_size in (1, len(TEXTS)):
        theirs = generator(TEXTS, batch_size=batch_size, **arguments)
        assert [rows[0]["generated_text"] for rows in theirs] == ours


@pytest.mark.parametrize("task", list(ANSWERING))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_chat_model_gives_the_predictors_answers(family: str, task: str, tmp_path: Path, words: Path) -> None:
    """Lost otherwise: each answer would begin with the space that training puts before it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    folder = exported(tmp_path / "model", words, family, ANSWERING[task])
    ours = [answer["completion"] for answer in Predictor(folder).answer(CHAT_TEXTS, {"max_tokens": NEW})]
    chats = [[{"role": "user", "content": text}] for text in CHAT_TEXTS]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    settings = {"max_new_tokens": NEW, "do_sample": False}
    inputs = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    outputs = model.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :]
    assert tokenizer.batch_decode(outputs, skip_special_tokens=True) == ours
    theirs = pipeline("text-generation", model=model, tokenizer=tokenizer)(chats, batch_size=2, **settings)
    assert [rows[0]["generated_text"][-1]["content"] for rows in theirs] == ours


@pytest.mark.parametrize("task", ["instruct", "alpaca"])
@pytest.mark.parametrize("family", FAMILIES)
def test_lm_eval_gives_the_predictors_answers_with_the_chat_template(
    family: str, task: str, tmp_path: Path, words: Path
) -> None:
    """Lost otherwise: a benchmark would score answers to prompts that training never had."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    folder = exported(tmp_path / "model", words, family, ANSWERING[task])
    ours = [answer["completion"] for answer in Predictor(folder).answer(CHAT_TEXTS, {"max_tokens": NEW})]
    model = HFLM(pretrained=str(folder), device="cpu", batch_size=len(CHAT_TEXTS))
    settings = {"until": [], "max_gen_toks": NEW, "do_sample": False}
    prompts = [model.apply_chat_template([{"role": "user", "content": text}]) for text in CHAT_TEXTS]
    requests = [
        Instance(request_type="generate_until", doc={}, arguments=(prompt, settings), idx=row)
        for row, prompt in enumerate(prompts)
    ]
    assert model.generate_until(requests, disable_tqdm=True) == ours


@pytest.mark.parametrize("family", FAMILIES)
def test_lm_eval_scores_a_continuation_after_the_token_that_begins_a_document(
    family: str, tmp_path: Path, words: Path
) -> None:
    """Lost otherwise: log-likelihoods would be those of a text that begins in the middle of a document."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    folder = exported(tmp_path / "model", words, family, TEXT)
    ours, tokenizer = checkpoint.load(folder), Tokenizer.load(folder)
    before, after = (tokenizer.encode(text) for text in ("Ayşe", " İzmir'de yaşıyor."))
    ids = torch.tensor([tokenizer.end_of_text, *before, *after])
    with torch.no_grad():
        scores = ours(ids[None, :-1])[0].log_softmax(-1)[range(len(ids) - 1), ids[1:]]
    model = HFLM(pretrained=str(folder), device="cpu")
    request = Instance(request_type="loglikelihood", doc={}, arguments=("Ayşe", " İzmir'de yaşıyor."), idx=0)
    ((likelihood, _),) = model.loglikelihood([request], disable_tqdm=True)
    assert likelihood == pytest.approx(scores[len(before) :].sum().item(), abs=1e-3)
    rolling = HFLM(pretrained=str(folder), device="cpu", add_bos_token=False)
    request = Instance(request_type="loglikelihood_rolling", doc={}, arguments=("Ayşe İzmir'de yaşıyor.",), idx=0)
    assert rolling.loglikelihood_rolling([request], disable_tqdm=True) == pytest.approx([scores.sum().item()], abs=1e-3)
