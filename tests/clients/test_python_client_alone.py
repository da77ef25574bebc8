"""What `ingle-client` says, without anybody to say it to."""
import copy
import importlib.util
import warnings
from pathlib import Path

import pytest
from ingle_client import (
    DEFAULT_URL,
    ChatIngle,
    ChatLocalModel,
    ChatOpenRouter,
    IngleWarning,
    LLMFactory,
    LLMProvider,
    _route,
)
from langchain_core.load import dumpd, load
from langchain_openai import ChatOpenAI
from langchain_tests.unit_tests import ChatModelUnitTests

VARIABLES = ("INGLE_URL", "INGLE_API_KEY", "OPENAI_API_KEY", "OPENAI_API_BASE", "OPENAI_BASE_URL",
             "OPENROUTER_BASE_URL", "ANTHROPIC_BASE_URL", "LOCAL_MODEL_URL", "OPENAI_PROXY")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def asked(llm, **kwargs):
    """The model that is asked, and the `ingle` object."""
    payload = llm._get_request_payload("Hello", **kwargs)
    return payload["model"], payload.get("extra_body", {}).get("ingle")


class TestUnit(ChatModelUnitTests):
    """LangChain's own."""

    @property
    def chat_model_class(self):
        return ChatIngle

    @property
    def chat_model_params(self):
        return {"model": "openai:gpt-4o"}

    @property
    def init_from_env_params(self):
        return {"INGLE_API_KEY": "ik_1", "INGLE_URL": "http://ingle:1/v1"}, {}, {
            "openai_api_key": "ik_1", "openai_api_base": "http://ingle:1/v1"}

    @pytest.mark.xfail(reason="a snapshot would hold LangChain's version; the next test reads what is written")
    def test_serdes(self, model, snapshot):
        pytest.xfail("see test_a_model_that_was_written_down_is_read_back")


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
def test_a_model_that_was_written_down_is_read_back():
    model = ChatOpenRouter(model="gpt-4", api_key="ik_1", team_name="marketing", preferences={"max_cost": 0.1})
    written = dumpd(model)
    assert "ik_1" not in str(written)
    secrets = {"OPENAI_API_KEY": "ik_1", "INGLE_API_KEY": "ik_1"}
    read = load(written, secrets_map=secrets, valid_namespaces=["ingle_client"], allowed_objects=[ChatOpenRouter])
    assert type(read) is ChatOpenRouter and dumpd(read) == written
    assert asked(read) == asked(model)


@pytest.mark.parametrize(("provider", "model", "expected"), [
    (None, None, "auto"),
    (None, "gpt-4", "gpt-4"),
    (None, "local:codellama-13b", "local:codellama-13b"),
    ("auto", None, "auto"),
    ("openrouter", None, "openrouter:auto"),
    ("openrouter", "anthropic/claude-3-opus", "openrouter:anthropic/claude-3-opus"),
    ("openrouter", "openrouter:auto", "openrouter:auto"),
    ("OpenAI", "gpt-4", "openai:gpt-4"),
    (LLMProvider.OPENAI, None, "openai:gpt-4"),
    (LLMProvider.ANTHROPIC, "claude-3-sonnet-20240229", "anthropic:claude-3-sonnet-20240229"),
    (LLMProvider.LOCAL, "llama3:8b", "local:llama3:8b"),
    ("local", None, "auto"),
    ("vllm", "qwen", "vllm:qwen"),
])
def test_a_provider_and_a_model_are_one_name(provider, model, expected):
    assert asked(LLMFactory.create_llm(preferred_provider=provider, preferred_model=model))[0] == expected


def test_a_provider_of_which_nothing_is_known_needs_a_model():
    with pytest.raises(ValueError, match="'vllm'.*preferred_model"):
        LLMFactory.create_llm(preferred_provider="vllm")


def test_the_local_machine_without_a_model_is_a_wish_or_with_no_fallback_a_must():
    assert asked(LLMFactory.create_llm("local"))[1] == {"preferences": {"prefer_local": True}}
    must = {"prefer_local": True, "acceptable_models": ["local:*"]}
    assert asked(LLMFactory.create_llm("local", enable_fallback=False))[1] == {
        "preferences": must, "enable_fallback": False}


def test_what_is_not_said_is_not_sent():
    payload = LLMFactory.create_llm(preferred_model="gpt-4")._get_request_payload("Hello")
    assert set(payload) == {"model", "messages", "stream"}


def test_everything_that_is_said_is_sent_and_a_call_has_the_last_word():
    llm = LLMFactory.create_llm(
        preferred_model="gpt-4", team_name="marketing-team", task="draft", deadline_ms=500, privacy="zdr_only",
        preferences={"max_cost": 0.1, "prefer_local": True}, enable_fallback=False)
    expected = {"team": "marketing-team", "task": "draft", "deadline_ms": 500, "privacy": "zdr_only",
                "preferences": {"max_cost": 0.1, "prefer_local": True}, "enable_fallback": False}
    assert asked(llm) == ("gpt-4", expected)
    of_call = {"task": "final", "preferences": {"max_cost": 0.5}}
    final = {**expected, "task": "final", "preferences": {"max_cost": 0.5, "prefer_local": True}}
    assert asked(llm, ingle=of_call)[1] == final
    assert asked(llm, extra_body={"ingle": of_call, "top_k": 4})[1] == final
    assert llm._get_request_payload("Hello", extra_body={"top_k": 4})["extra_body"] == {"top_k": 4, "ingle": expected}
    assert asked(llm)[1] == expected
    assert asked(ChatOpenRouter(model="auto"), model="gpt-4") == ("openrouter:gpt-4", None)


def test_names_do_not_choose_another_api():
    for name in ("openai:codex-mini", "gpt-5-pro", "gpt-6"):
        llm = ChatIngle(model=name)
        assert "messages" in llm._get_request_payload("Hello", tools=[{"type": "function"}])


def test_the_address_is_ingles(monkeypatch):
    assert str(ChatIngle().root_client.base_url) == f"{DEFAULT_URL}/"
    monkeypatch.setenv("INGLE_URL", "http://ingle:8000")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1")
    monkeypatch.setenv("OPENAI_API_BASE", "https://api.openai.com/v1")
    assert ChatIngle().openai_api_base == "http://ingle:8000/v1"
    assert ChatLocalModel(model="llama3-8b", base_url="http://other:1/v1/").openai_api_base == "http://other:1/v1"
    assert ChatIngle(openai_api_base="http://other:1/v1").openai_api_base == "http://other:1/v1"
    for wrong in ("ingle:8000", "ftp://ingle", "http://"):
        with pytest.raises(ValueError, match="address of Ingle"):
            ChatIngle(base_url=wrong)


def test_a_providers_address_is_not_asked(monkeypatch):
    monkeypatch.setenv("OPENROUTER_BASE_URL", "http://proxy:2/api")
    monkeypatch.setenv("LOCAL_MODEL_URL", "http://box:8080/v1")
    monkeypatch.setenv("INGLE_URL", "http://ingle:1/v1")
    for url in ("https://openrouter.ai/api/v1", "https://eu.openrouter.ai/api/v1", "https://api.openai.com/v1",
                "http://proxy:2/api/", "http://box:8080/v1"):
        with pytest.warns(IngleWarning, match="Ingle is asked instead") as caught:
            llm = ChatOpenRouter(model="auto", base_url=url)
        assert llm.openai_api_base == "http://ingle:1/v1"
        assert caught[0].filename == __file__
    # Without an Ingle elsewhere the local server is where Ingle is.
    monkeypatch.delenv("INGLE_URL")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ChatLocalModel(model="x", base_url="http://box:8080/v1").openai_api_base == "http://box:8080/v1"


def test_the_key_is_ingles(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-1")
    assert ChatIngle().root_client.api_key == "no-key"
    monkeypatch.setenv("INGLE_API_KEY", "ik_1")
    assert ChatIngle().root_client.api_key == "ik_1"
    assert ChatIngle(api_key="sk-mine").root_client.api_key == "sk-mine"
    assert ChatIngle(api_key=lambda: "ik_2").openai_api_key() == "ik_2"
    assert ChatIngle(api_key="").root_client.api_key == "ik_1"
    for key, owner in {"sk-or-v1-1": "OpenRouter", "sk-ant-api03-1": "Anthropic", "sk-proj-1": "OpenAI",
                       "sk-abcT3BlbkFJdef": "OpenAI"}.items():
        with pytest.warns(IngleWarning, match=f"key of {owner} and is not sent") as caught:
            llm = ChatOpenRouter(model="auto", api_key=key)
        assert llm.root_client.api_key == "ik_1"
        assert key not in str(caught[0].message)
    monkeypatch.setenv("INGLE_API_KEY", "sk-or-v1-1")
    with pytest.raises(ValueError, match="INGLE_API_KEY is a key of OpenRouter"):
        ChatIngle()


def test_keys_are_in_no_text():
    llm = ChatIngle(api_key="ik_secret")
    assert "ik_secret" not in f"{llm!r} {llm} {llm._identifying_params}"


def test_models_can_be_copied():
    llm = LLMFactory.create_llm("openrouter", "auto", team_name="marketing-team")
    for twin in (copy.copy(llm), llm.model_copy(update={"team_name": "sales"}), llm.with_config(tags=["x"]).bound):
        assert asked(twin)[0] == "openrouter:auto"
    assert isinstance(llm, ChatOpenAI)


@pytest.mark.parametrize(("header", "route"), [
    ("local:smollm2; why=asked; id=rt_1",
     {"target": "local:smollm2", "provider": "local", "model": "smollm2", "why": "asked", "id": "rt_1"}),
    ("openrouter:meta/llama3:free; why=fallback a=b; id=rt_2; new=1",
     {"target": "openrouter:meta/llama3:free", "provider": "openrouter", "model": "meta/llama3:free",
      "why": "fallback a=b", "id": "rt_2"}),
    ("pending; id=rt_3", {"id": "rt_3"}),
    ("", None), (None, None), (";;=;", None), ("nobody", None),
])
def test_a_route_is_read_as_far_as_it_is_understood(header, route):
    assert _route.read(header) == route


def test_the_shim_has_the_names_of_the_old_module(monkeypatch):
    path = Path(__file__).parents[2] / "clients" / "python" / "shims" / "llm_factory.py"
    spec = importlib.util.spec_from_file_location("elf_automations.shared.utils.llm_factory", path)
    shim = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shim)
    for name in shim.__all__:
        assert hasattr(shim, name)
    # As call sites have it.
    llm = shim.LLMFactory.create_llm(
        preferred_provider="anthropic", preferred_model="claude-3-sonnet-20240229", temperature=0.3,
        enable_fallback=True)
    assert isinstance(llm, shim.FallbackLLM) and llm.temperature == 0.3
    assert asked(llm) == ("anthropic:claude-3-sonnet-20240229", {"enable_fallback": True})
    counted = shim.LLMFactory.create_with_quota_tracking(
        team_name="marketing-team", preferred_provider="openai", preferred_model="gpt-4", temperature=0.7,
        supabase_client=object())
    assert asked(counted) == ("openai:gpt-4", {"team": "marketing-team"})
    assert asked(shim.create_llm(shim.LLMProvider.LOCAL, "llama3-8b")) == ("local:llama3-8b", None)
