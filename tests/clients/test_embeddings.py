"""The openai client and LangChain's own suite for embeddings, against `ingle serve`."""
import base64
import json
from pathlib import Path

import numpy
import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests

REFERENCE = json.loads(
    (Path(__file__).parents[1] / "data" / "embedding" / "minilm.json").read_text())
TEXTS = [entry for entry in REFERENCE["texts"] if not entry["is_cut"]]


def vector(entry):
    return numpy.frombuffer(base64.b64decode(entry["vector"]), "<f4")


def cosine(a, b):
    return float(numpy.dot(a, b) / numpy.linalg.norm(a) / numpy.linalg.norm(b))


@pytest.fixture(scope="module")
def client(served):
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0, timeout=300)


# Without a format the client asks for base64 and decodes it by itself.
@pytest.mark.parametrize("how", [{}, {"encoding_format": "float"}])
@pytest.mark.parametrize("field", ["text", "ids"])
def test_vectors_are_those_of_sentence_transformers(client, minilm, how, field):
    answer = client.embeddings.create(
        model=minilm.name, input=[entry[field] for entry in TEXTS], **how)
    assert [item.index for item in answer.data] == list(range(len(TEXTS)))
    for item, entry in zip(answer.data, TEXTS):
        assert cosine(item.embedding, vector(entry)) >= 0.9999, entry["text"]
    assert answer.usage.prompt_tokens == sum(len(entry["ids"]) for entry in TEXTS)


def test_a_chat_model_makes_vectors_too(client, smollm2):
    answer = client.embeddings.create(model=smollm2.stem, input=["a cat", "a kitten", "a tax return"])
    cat, kitten, tax = [item.embedding for item in answer.data]
    assert len(cat) == 576 and abs(numpy.linalg.norm(cat) - 1) < 1e-4
    assert cosine(cat, kitten) > cosine(cat, tax)


def test_errors_are_the_clients_own_types(client, minilm):
    with pytest.raises(openai.BadRequestError, match="empty string"):
        client.embeddings.create(model=minilm.name, input="")
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model=minilm.name, input="word " * 1000)
    assert refused.value.code == "context_length_exceeded" and refused.value.param == "input"
    with pytest.raises(openai.BadRequestError, match="cannot chat"):
        client.chat.completions.create(
            model=minilm.name, messages=[{"role": "user", "content": "hello"}])


class TestLangChain(EmbeddingsIntegrationTests):
    """Every test LangChain has for an embedding model."""

    @pytest.fixture(autouse=True)
    def _where(self, served, minilm):
        type(self).where = {"base_url": f"{served.url}/v1", "model": minilm.name}

    @property
    def embeddings_class(self):
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self):
        return {**self.where, "api_key": "unused", "check_embedding_ctx_length": False}
