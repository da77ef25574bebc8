"""The official openai client against `ingle serve`."""
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


@pytest.fixture(scope="module")
def client(served):
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0, timeout=300)


@pytest.fixture(scope="module")
def model(client):
    return client.models.list().data[0].id


def metric(served, name):
    text = httpx.get(f"{served.url}/metrics").text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))


def test_answers(client, model):
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_tokens=32)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_streams_the_same_text(client, model):
    whole = client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_tokens=32)
    chunks = list(client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_tokens=32, stream=True,
        stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage


def test_sixteen_at_once_all_finish_and_equal_their_solo_runs(client, model):
    prompts = [f"Count from {n} to {n + 3}." for n in range(16)]

    def ask(prompt):
        return client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": prompt}], temperature=0.8,
            seed=7, max_tokens=24).choices[0].message.content

    with ThreadPoolExecutor(16) as crowd:
        together = list(crowd.map(ask, prompts))
    assert together[:4] == [ask(prompt) for prompt in prompts[:4]]


def test_a_client_that_leaves_frees_its_blocks(served, client, model):
    stream = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=2000, stream=True,
        extra_body={"ignore_eos": True})
    # The first chunk says only who speaks; with the first text the engine is at work.
    next(chunk for chunk in stream if chunk.choices[0].delta.content)
    assert metric(served, "ingle_requests_running") == 1
    assert metric(served, "ingle_kv_blocks_used") > 0
    stream.close()
    deadline = time.monotonic() + 5
    while metric(served, "ingle_kv_blocks_used") > 0:
        assert time.monotonic() < deadline, "the blocks of a client that left are still held"
        time.sleep(0.02)
    assert metric(served, "ingle_requests_running") == 0


def test_errors_are_the_clients_own_types(client, model):
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        client.chat.completions.create(model="no-such-model", messages=QUESTION)
    with pytest.raises(openai.BadRequestError, match="response_format"):
        client.chat.completions.create(
            model=model, messages=QUESTION, response_format={"type": "json_object"})
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model=model, messages=QUESTION, temperature=-1)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "word " * 60000}])
    assert refused.value.code == "context_length_exceeded"


def test_health_answers_while_it_works(served, client, model):
    done = threading.Event()

    def work():
        client.chat.completions.create(model=model, messages=QUESTION, max_tokens=64,
                                       extra_body={"ignore_eos": True})
        done.set()

    threading.Thread(target=work).start()
    while not done.is_set():
        began = time.monotonic()
        assert httpx.get(f"{served.url}/health").status_code == 200
        assert time.monotonic() - began < 2
        time.sleep(0.1)
