"""The unmodified `openai` client against the server."""

import math

import openai
import pytest

from tests.served import Site

ASKED = [{"role": "user", "content": "Ayşe nerede yaşıyor?"}]


@pytest.fixture
def client(site: Site) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{site.address}/v1", api_key="none", max_retries=0)


def test_chat_answers_equally_when_streamed_or_whole(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="chat-full", messages=ASKED, temperature=1.0, seed=5, max_tokens=20)
    stream = client.chat.completions.create(
        model="chat-full", messages=ASKED, temperature=1.0, seed=5, max_tokens=20, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert whole.choices[0].message.content
    assert said == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_chat_gives_other_answers_when_the_seed_differs(client: openai.OpenAI) -> None:
    answers = [
        client.chat.completions.create(model="chat-full", messages=ASKED, temperature=1.0, seed=seed, max_tokens=20)
        for seed in (1, 1, 2)
    ]
    first, again, other = (answer.choices[0].message.content for answer in answers)
    assert first == again != other


def test_chat_gives_n_answers_of_which_each_is_streamed_whole(client: openai.OpenAI) -> None:
    settings = {"model": "chat-full", "messages": ASKED, "temperature": 1.0, "seed": 3, "n": 3, "max_tokens": 12}
    whole = client.chat.completions.create(**settings)
    said = ["", "", ""]
    for chunk in client.chat.completions.create(**settings, stream=True):
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert said == [choice.message.content for choice in whole.choices]
    assert len(set(said)) > 1


def test_chat_ends_before_a_stop_text_when_it_crosses_tokens(client: openai.OpenAI) -> None:
    settings = {"model": "chat-full", "messages": ASKED, "temperature": 1.0, "seed": 9, "max_tokens": 24}
    text = client.chat.completions.create(**settings).choices[0].message.content
    assert text is not None
    stop = text[5:8]
    for stream in (False, True):
        answer = client.chat.completions.create(**settings, stop=[stop, "\0never"], stream=stream)
        if stream:
            chunks = list(answer)
            said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            finish = chunks[-1].choices[0].finish_reason
        else:
            said, finish = answer.choices[0].message.content, answer.choices[0].finish_reason
        assert said == text[: text.index(stop)]
        assert finish == "stop"


def test_chat_gives_logprobs_of_every_token_when_asked(client: openai.OpenAI) -> None:
    settings = {"model": "chat-full", "messages": ASKED, "logprobs": True, "top_logprobs": 3, "max_tokens": 8}
    answer = client.chat.completions.create(**settings)
    given = answer.choices[0].logprobs
    assert given is not None
    assert given.content is not None
    assert answer.usage is not None
    assert len(given.content) == answer.usage.completion_tokens == 8
    for token in given.content:
        assert len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob <= 0  # greedy: the likeliest
        assert token.top_logprobs[0].logprob >= token.top_logprobs[2].logprob
        assert bytes(token.bytes or []).decode("utf-8", "replace") == token.token
    streamed = [
        token
        for chunk in client.chat.completions.create(**settings, stream=True)
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content or []
    ]
    assert streamed == given.content


def test_chat_obeys_a_logit_bias(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="chat-full", messages=ASKED, logit_bias={"65": 100}, max_tokens=5)
    assert answer.choices[0].message.content == "AAAAA"


def test_completions_continue_texts(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="base", prompt=["Ayşe", "free"], max_tokens=6, logprobs=2, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert all(choice.finish_reason == "length" and choice.text for choice in answer.choices)
    given = answer.choices[0].logprobs
    assert given is not None
    assert given.token_logprobs is not None
    assert given.tokens is not None
    assert len(given.tokens) == len(given.token_logprobs) == 6
    assert given.text_offset is not None
    assert given.text_offset[0] == 0
    streamed = client.completions.create(model="base", prompt="Ayşe", max_tokens=6, stream=True, logprobs=2)
    choices = [chunk.choices[0] for chunk in streamed]
    assert "".join(choice.text for choice in choices) == answer.choices[0].text
    offsets = [offset for choice in choices if choice.logprobs for offset in choice.logprobs.text_offset or []]
    assert offsets == given.text_offset


def test_embeddings_have_length_1_in_the_clients_own_encoding(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="base", input=["Ayşe", "free prize", "Ayşe"])
    vectors = [row.embedding for row in answer.data]
    plain = client.embeddings.create(model="base", input="Ayşe", encoding_format="float").data[0].embedding
    assert [math.isclose(math.hypot(*vector), 1, rel_tol=1e-5) for vector in vectors] == [True] * 3
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-6)
    assert vectors[0] == pytest.approx(plain, abs=1e-6)
    assert vectors[0] != pytest.approx(vectors[1], abs=1e-3)


def test_models_are_listed_with_their_review(client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {"chat-full", "spam-full", "base"}
    assert listed["chat-full"].model_extra is not None
    assert listed["chat-full"].model_extra["review"] == "unreviewed"
    assert client.models.retrieve("base").id == "base"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("response_format", {"type": "json_object"}),
        ("presence_penalty", 0.5),
        ("reasoning_effort", "low"),
        ("temperature", 2.5),
        ("n", 0),
        ("top_logprobs", 3),
        ("stop", [""]),
        ("stop", "x" * 1001),
        ("logit_bias", {str(number): 1.0 for number in range(1025)}),
        ("messages", [{"role": "user", "content": "x"}] * 513),
        ("stream_options", {"include_usage": True}),
        ("messages", [{"role": "assistant", "content": "x"}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
    ],
)
def test_chat_refuses_with_400_that_names_the_field(client: openai.OpenAI, field: str, value: object) -> None:
    settings = {"model": "chat-full", "messages": ASKED} | {field: value}
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**settings)
    assert error.value.param == field
    assert field in error.value.message
    assert error.value.type == "invalid_request_error"


def test_chat_accepts_fields_of_other_services_when_they_change_nothing(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="chat-full", messages=ASKED, max_completion_tokens=3, presence_penalty=0, frequency_penalty=0.0,
        tools=[], response_format={"type": "text"}, parallel_tool_calls=True,
    )  # fmt: skip
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_models_answer_only_at_the_endpoint_of_their_task(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="/v1/classify"):
        client.chat.completions.create(model="spam-full", messages=ASKED)
    with pytest.raises(openai.BadRequestError, match="/v1/chat/completions"):
        client.completions.create(model="chat-full", prompt="x")
    with pytest.raises(openai.NotFoundError, match="chat-full, spam-full, base"):
        client.completions.create(model="gpt-4", prompt="x")
