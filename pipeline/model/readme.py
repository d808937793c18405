"""README.md of a model folder: what its tokenizer puts around a text, its limits, and code for transformers and peft.

The code blocks are run by tests (tests/model/test_readme.py): FOLDER stands for the folder's path.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.foreign import BASE
from pipeline.model.adapters import CONFIG
from pipeline.model.library_sizes import Architecture
from pipeline.tokenizer.export import InputFormat

_HEAD = """\
# A model of family {family}

Made by Tohum in the layout of transformers. `tohum.json` holds the task, `manifest.json` the hash of every file.
"""

_PIPELINE = """
```python
from transformers import pipeline

{name} = pipeline("{task}", model="FOLDER")
{use}
```
"""
_HEADS = ("classify", "multi_label", "regress", "reward")
"""Tasks that answer by a classification head."""
_PIPELINES = {
    "classify": (
        "classifier",
        "text-classification",
        'rows = classifier(["a text", "another text"], batch_size=2, truncation=True, top_k=None)  # every probability',
    ),
    "regress": (
        "regressor",
        "text-classification",
        'rows = regressor(["a text", "another text"], batch_size=2, truncation=True)\n'
        'numbers = [MEAN + DEVIATION * row["score"] for row in rows]',
    ),
    "chat": (
        "answerer",
        "text-generation",
        'chat = [{"role": "user", "content": "a question"}]\n'
        'answer = answerer(chat, max_new_tokens=64, do_sample=False)[0]["generated_text"][-1]["content"]',
    ),
    "complete": (
        "writer",
        "text-generation",
        'text = writer("a text", max_new_tokens=64, do_sample=False, return_full_text=False)[0]["generated_text"]',
    ),
}

# (reads, included): the tokens around a text and the states that the classification head reads
_READS: dict[Architecture, tuple[str, str]] = {
    "decoder": (
        "The tokenizer ends every text with the end-of-text token, which the classification head reads.",
        "that one included",
    ),
    "encoder": (
        "The tokenizer puts the vocabulary's own tokens around every text ([CLS] and [SEP] in BERT's), and\n"
        "the classification head reads the states that the encoder gives them.",
        "those included",
    ),
}

_CLASSIFY = """
Answers with a label. {reads}
The model was trained on texts of at most {limit} tokens, {included}. Longer ones are cut: Tohum leaves out
the middle of a text, `truncation=True` its end, so that labels of longer texts may differ.
"""

_DECIDED = """
The label is the one whose probability is largest relative to its threshold in `tohum.json`: {thresholds}. They were
chosen on validation records for {by}; `text-classification` gives probabilities and the likeliest label.
"""

_MULTI_LABEL = """
Answers with any number of {count} labels: each whose probability (the sigmoid of its score) reaches its threshold,
{thresholds}. {reads}
The model was trained on texts of at most {limit} tokens, {included}; Tohum leaves out the middle of a longer
text, `truncation=True` its end.
"""

_REGRESS = """
Answers with a number. The head's output is in standard deviations from the mean of the training targets, so the number
is `{mean} + {deviation} * score`. {reads}
The model was trained on texts of at most {limit} tokens, {included}; Tohum leaves out the middle of a longer
text, `truncation=True` its end.
"""

_REWARD = """
A reward model: it scores an answer to messages by one number, the higher the better; only differences between answers
to the same messages mean anything. Messages are written by the template {template}, an instruction with an input as one
message: {joined}. The head reads the token that ends the answer. The model was trained on texts of at most {limit}
tokens; Tohum leaves out the middle of a longer question or answer.
"""

_REWARD_CODE = """
```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("FOLDER"), AutoModelForSequenceClassification.from_pretrained("FOLDER")


def reward(question, answer):
    chat = [{{"role": "user", "content": question}}, {{"role": "assistant", "content": answer}}]
    ids = tokenizer.apply_chat_template(chat, return_dict=False)
    ids = ids[: len(ids) - ids[::-1].index({end})]  # up to the end of the answer
    return model(torch.tensor([ids])).logits.item()


print(reward("a question", "an answer") - reward("a question", "another answer"))
```
"""

_CLOZE = """
A language model that answers with one of {count} words for the labels. The tokenizer puts the pattern {pattern} around
every text, up to the label; the likeliest word is the label. A prompt has at most {limit} tokens. Longer texts are cut:
Tohum leaves out their middle, `truncation=True` their beginning, so that labels of longer texts may differ.
"""

_CLOZE_CODE = """
```python
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

words = {words}
tokenizer, model = AutoTokenizer.from_pretrained("FOLDER"), AutoModelForCausalLM.from_pretrained("FOLDER")


def score(text, word):
    prompt = tokenizer(text, truncation=True)["input_ids"]
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return logits[range(len(ids)), ids].sum().item()


label = max(words, key=lambda name: score("a text", words[name]))
```
"""

_CHAT = """
Answers messages, by the template {template}. An instruction with an input is one message: {joined}. A prompt has at
most {prompt} of {limit} tokens: Tohum cuts longer ones (the oldest messages, then the middle of the question),
transformers does not, so that their answers may differ. Unlike Tohum, transformers takes the name of a special token in
a message for that token.
"""

_COMPLETE = """
Completes texts. The tokenizer puts the end-of-text token before every text, as training does before every document. A
prompt has at most {prompt} of {limit} tokens: Tohum cuts the beginning of longer ones, transformers does not. In
lm-eval, rolling perplexity adds that token by itself: `add_bos_token=False`.
"""

_OPEN = """
Open weights as their authors published them: nothing was trained here. The tokenizer puts the vocabulary's own tokens
around every text, or where it has none, the end-of-text token before it.
"""
_OPEN_DECODER = """
The model completes texts. A prompt has at most {prompt} of {limit} tokens: Tohum cuts the beginning of longer ones,
transformers does not.
"""
_OPEN_ENCODER = """
The model is an encoder: it gives states of a text's tokens, and no text. A text has at most {limit} tokens. `tohum
embed` writes one vector a text, the mean of its tokens' states; so does this code, for texts up to the limit:
"""
_OPEN_ENCODER_DECODER = """
The model is an encoder-decoder: the encoder reads a text, and the decoder answers it. A text has at most {prompt} of
{limit} tokens: Tohum cuts the beginning of longer ones, transformers does not.
"""
_EMBED_CODE = """
```python
import torch
from transformers import AutoModel, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("FOLDER"), AutoModel.from_pretrained("FOLDER").eval()
inputs = tokenizer(["a text", "another text"], padding=True, truncation=True, return_tensors="pt")
mask = inputs["attention_mask"]
with torch.no_grad():
    states = model(inputs["input_ids"], attention_mask=mask).last_hidden_state * mask[:, :, None]
vectors = torch.nn.functional.normalize(states.sum(1) / mask.sum(1, keepdim=True), dim=1)
```
"""
_ENCODER_DECODER_CODE = """
```python
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("FOLDER"), AutoModelForSeq2SeqLM.from_pretrained("FOLDER")
{ids}
if ids[-1] != model.config.eos_token_id:  # what the encoder reads ends with it
    ids.append(model.config.eos_token_id)
made = model.generate(torch.tensor([ids]), max_new_tokens=64, do_sample=False)[0]
{name} = tokenizer.decode(made, skip_special_tokens=True)
```
"""
_CHAT_IDS = (
    'chat = [{"role": "user", "content": "a question"}]\n'
    "ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)"
)
_TEXT_IDS = 'ids = tokenizer("a text")["input_ids"]'

_ADAPTER = """
{role}peft needs the model that the adapter was trained on: `base_model_name_or_path` of \
`adapter/adapter_config.json` is {place}. Labels and tokenizer are those of this folder.

```python
import json
from pathlib import Path

from peft import PeftModel
from transformers import {imports}

folder = Path("FOLDER")
adapter = folder / "adapter"
{base}
config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
model = PeftModel.from_pretrained({load}, adapter)
{use}```
"""
# (place, base, load): the base is a folder beside this one, or a repository at a commit
_BESIDE = (
    "its\npath from the folder `adapter`",
    'base = adapter / json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]',
    "{kind}.from_pretrained(base, config=config)",
)
_REPOSITORY = (
    "its\nrepository and `revision` its commit",
    'named = json.loads((adapter / "adapter_config.json").read_text())\n'
    'base, commit = named["base_model_name_or_path"], named["revision"]',
    '{kind}.from_pretrained(base, revision=commit, config=config, dtype="float32")',
)
_UNMERGED = """
This folder holds no weights but the adapter: `base.json` names the base model by its hash. Tohum completes it when it
reads the folder; `from_pretrained` of transformers alone finds no weights here. `tohum export MODEL --folder FOLDER`
writes it with all weights.
"""
_ROUNDED = """
The adapter was trained beside a base rounded to bfloat16, and Tohum rounds the base again before it adds the adapter.
peft adds it to the exact weights, so that its scores differ slightly.
"""
_CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "CAUSAL_LM": "AutoModelForCausalLM",
}
_MERGE = "model = model.merge_and_unload()\n"
_GENERATION = "model.generation_config = GenerationConfig.from_pretrained(folder)\n"
_MERGED = "The weights include the adapter that was trained; `adapter/` has it for peft."
_VIRTUAL = (
    "The virtual tokens in `adapter/` are a part of this model, and its weights do not include them: transformers\n"
    "alone reads another model here."
)
_BOTTLENECK = """
The bottleneck layers in `adapter/` are a part of this model, and its weights do not include them: only Tohum reads it.
"""
_JOINED = {
    "chat": r"`instruction\ninput`",
    "model": r"`instruction\ninput`",
    "alpaca": r"`instruction\n\n### Input:\ninput`",
}


def text(
    task: Mapping[str, Any],
    family: str,
    input_format: InputFormat,
    adapter: Path,
    architecture: Architecture = "decoder",
) -> str:
    """The README of a model.

    Args:
        task: the first of tohum.json.
        family: of the network.
        input_format: of the tokenizer that is written beside it.
        adapter: the adapter's folder, which may be absent.
        architecture: of the network.
    """
    if task["name"] == "reward":
        words, code = _reward(task, input_format)
    else:
        words, code = _task(task, input_format.max_tokens, architecture)
    config = json.loads((adapter / CONFIG).read_bytes()) if (adapter / CONFIG).is_file() else {}
    head = _HEAD.format(family=family) + words
    if not config:
        return head + code
    slim = (adapter.parent / BASE).is_file()
    if slim:
        head += _UNMERGED
        if json.loads((adapter.parent / BASE).read_bytes()).get("weights") == "bfloat16":
            head += _ROUNDED
    if config["peft_type"] == "BOTTLENECK":
        return head + _BOTTLENECK
    virtual = "num_virtual_tokens" in config
    role = _VIRTUAL if virtual else _MERGED
    if config.get("base_model_name_or_path") is None:
        return head + ("" if virtual else code) + f"\n{role}\n"
    if not slim:
        return head + ("" if virtual else code) + _peft_code(task, config, f"{role}\n", "")
    return head + _peft_code(task, config, "", "" if virtual else _use(task, code))


def _peft_code(task: Mapping[str, Any], config: Mapping[str, Any], role: str, use: str) -> str:
    """The code that opens the adapter in peft; `use`: lines after it."""
    kind = _CLASSES.get(str(config.get("task_type")), _CLASSES["SEQ_CLS" if task["name"] in _HEADS else "CAUSAL_LM"])
    place, base, load = _REPOSITORY if config.get("revision") is not None else _BESIDE
    imports = ["AutoConfig", "AutoTokenizer", kind] + [name for name in ("GenerationConfig", "pipeline") if name in use]
    return _ADAPTER.format(
        role=role, place=place, base=base, load=load.format(kind=kind), imports=", ".join(imports), use=use
    )


def _use(task: Mapping[str, Any], code: str) -> str:
    """The merged model in place of the folder in the code that uses a whole folder by itself."""
    lines = code.strip().removeprefix("```python\n").removesuffix("```").splitlines()
    kept = [line for line in lines if not line.startswith(("from transformers import", "tokenizer, model ="))]
    use = "\n".join(kept).strip().replace('model="FOLDER"', "model=model, tokenizer=tokenizer")
    return f"{_MERGE}{'' if task['name'] in _HEADS else _GENERATION}\n{use}\n"


def _task(task: Mapping[str, Any], limit: int, architecture: Architecture) -> tuple[str, str]:
    """The task in words, and the code that uses the folder by itself."""
    match task["name"]:
        case "classify" | "multi_label" | "regress":
            return _head(task, limit, architecture)
        case "cloze":
            pattern, words = (json.dumps(task[key], ensure_ascii=False) for key in ("pattern", "verbalizers"))
            said = _CLOZE.format(limit=limit, count=len(task["verbalizers"]), pattern=pattern)
            return said, _CLOZE_CODE.format(words=words)
        case "instruct" | "chat":
            template = task["template"]
            said = _CHAT.format(template=template, joined=_JOINED[template], limit=limit, prompt=_most(task))
            if architecture == "encoder_decoder":
                return said, _ENCODER_DECODER_CODE.format(ids=_CHAT_IDS, name="answer")
            return said, _pipeline("chat")
        case "unchanged":
            return _open_weights(task, limit, architecture)
    return _COMPLETE.format(limit=limit, prompt=_most(task)), _pipeline("complete")


def _head(task: Mapping[str, Any], limit: int, architecture: Architecture) -> tuple[str, str]:
    """As `_task`, for the tasks that a classification head answers."""
    reads, included = _READS[architecture]
    around = {"limit": limit, "reads": reads, "included": included}
    if task["name"] == "classify":
        return _CLASSIFY.format(**around) + _decided(task), _pipeline("classify")
    if task["name"] == "multi_label":
        shown = _shown(task.get("thresholds") or {}) or "0.5"
        return _MULTI_LABEL.format(**around, count=len(task["labels"]), thresholds=shown), _pipeline("classify")
    mean, deviation = repr(task["mean"]), repr(task["deviation"])
    code = _pipeline("regress").replace("MEAN", mean).replace("DEVIATION", deviation)
    return _REGRESS.format(**around, mean=mean, deviation=deviation), code


def _reward(task: Mapping[str, Any], input_format: InputFormat) -> tuple[str, str]:
    """As `_task`, for a reward model."""
    template = task["template"]
    said = _REWARD.format(template=template, joined=_JOINED[template], limit=task["max_tokens"])
    return said, _REWARD_CODE.format(end=input_format.ends[0])


def _open_weights(task: Mapping[str, Any], limit: int, architecture: Architecture) -> tuple[str, str]:
    """As `_task`, for open weights as they are."""
    if architecture == "encoder":
        return _OPEN + _OPEN_ENCODER.format(limit=limit), _EMBED_CODE
    if architecture == "encoder_decoder":
        said = _OPEN + _OPEN_ENCODER_DECODER.format(limit=limit, prompt=_most(task))
        return said, _ENCODER_DECODER_CODE.format(ids=_TEXT_IDS, name="text")
    return _OPEN + _OPEN_DECODER.format(limit=limit, prompt=_most(task)), _pipeline("complete")


def _decided(task: Mapping[str, Any]) -> str:
    """The decision rule of a classifier; empty for the plain argmax."""
    if not task.get("thresholds"):
        return ""
    by = {"f1": "the highest macro-averaged F1", "cost": "the lowest mean cost"}[task["decided_by"]]
    return _DECIDED.format(thresholds=_shown(task["thresholds"]), by=by)


def _shown(thresholds: Mapping[str, float]) -> str:
    return ", ".join(f"{label} {value:.4g}" for label, value in thresholds.items())


def _most(task: Mapping[str, Any]) -> str:
    """The longest prompt in tokens."""
    return str(task.get("max_prompt_tokens", "three quarters"))


def _pipeline(kind: str) -> str:
    name, task, use = _PIPELINES[kind]
    return _PIPELINE.format(name=name, task=task, use=use)
