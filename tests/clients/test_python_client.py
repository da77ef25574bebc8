"""`ingle-client` against `ingle serve` with scripted providers, and its examples as a team would run them."""
import asyncio
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from conftest import Served
from ingle_client import ROUTE, ChatIngle, ChatLocalModel, ChatOpenRouter, LLMFactory
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_tests.integration_tests import ChatModelIntegrationTests
from pydantic import BaseModel
from scripted_providers import CUT, KEYS, Providers

PACKAGE = Path(__file__).parents[2] / "clients" / "python"
TEAMS = {
    "teams/engineering/config/llm_config.yaml": """\
llm_preferences:
  primary_provider: local
  model_preferences: [local:codellama-13b, openrouter:gpt-4]
  routing_hints: {code_generation: prefer_local, documentation: prefer_quality, debugging: prefer_fast}
""",
}
SETTINGS = """\
[router]
teams = ["marketing", "executive"]
teams_folder = "teams"
"""


@pytest.fixture(scope="module")
def providers():
    with Providers().serving() as providers:
        yield providers


@pytest.fixture(autouse=True)
def nothing_heard(providers):
    providers.take()


@pytest.fixture(scope="module")
def machine(request, providers, smollm2):
    """An Ingle with a model, which stands for CodeLlama."""
    aliases = f'[router.aliases]\n"local:codellama-13b" = "local:{smollm2.stem}"\n'
    server = Served(request.config.getoption("--ingle"), smollm2, variables=providers.environment(),
                    files={"ingle.toml": SETTINGS + aliases, **TEAMS})
    yield server
    server.stop()


@pytest.fixture(scope="module")
def cloud(request, providers):
    """An Ingle without a model of its own."""
    server = Served(request.config.getoption("--ingle"), variables=providers.environment(),
                    files={"ingle.toml": SETTINGS, **TEAMS})
    yield server
    server.stop()


@pytest.fixture
def at_cloud(cloud, monkeypatch):
    monkeypatch.setenv("INGLE_URL", cloud.url)
    return cloud


@pytest.fixture
def at_machine(machine, monkeypatch):
    monkeypatch.setenv("INGLE_URL", machine.url)
    return machine


class Verdict(BaseModel):
    """A verdict on a text."""

    reason: str
    score: int


@tool
def multiply(a: int, b: int) -> int:
    """Multiplies two numbers."""
    return a * b


def total(chunks):
    chunks = list(chunks)
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


class TestConformance(ChatModelIntegrationTests):
    """LangChain's own tests of a chat model, through Ingle to a provider."""

    @pytest.fixture(autouse=True)
    def _at_cloud(self, at_cloud):
        pass

    @property
    def chat_model_class(self):
        return ChatIngle

    @property
    def chat_model_params(self):
        return {"model": "openai:gpt-4o", "max_retries": 0}

    @property
    def model_override_value(self):
        return "openai:gpt-4o-mini"


class TestRoute:
    """Who answered is told wherever an answer comes from."""

    def test_of_answers_and_streams(self, at_cloud):
        llm = ChatOpenRouter(model="gpt-4", max_retries=0)
        for answer in [llm.invoke("Hello"), total(llm.stream("Hello")), *llm.batch(["Hello", "Hello"])]:
            assert answer.content == "openrouter openai/gpt-4 heard: Hello"
            route = answer.response_metadata[ROUTE]
            assert (route["provider"], route["model"]) == ("openrouter", "openai/gpt-4")
            assert answer.usage_metadata["output_tokens"] > 0
            decision = llm.explain(answer)
            assert decision["id"] == route["id"] and decision["served_by"] == route["target"]

    def test_of_structured_output_and_tools(self, at_cloud):
        llm = ChatIngle(model="openai:gpt-4o", max_retries=0)
        judge = llm.with_structured_output(Verdict, include_raw=True)
        for said in [judge.invoke("Well?"), total(judge.stream("Well?"))]:
            assert said["parsed"] == Verdict(reason="Well?", score=3)
            assert said["raw"].response_metadata[ROUTE]["target"] == "openai:gpt-4o"
        called = total(llm.bind_tools([multiply]).stream("Three times three?"))
        assert called.tool_calls[0]["args"] == {"a": 3, "b": 3}
        assert called.response_metadata[ROUTE]["target"] == "openai:gpt-4o"

    def test_of_one_event_loop_after_the_other(self, at_cloud):
        llm = ChatIngle(model="anthropic:claude-3-opus", max_retries=0)

        async def ask():
            answers = await asyncio.gather(*(llm.ainvoke(str(n)) for n in range(8)))
            chunks = [chunk async for chunk in llm.astream("again")]
            return [*answers, total(chunks)], await llm.aexplain(answers[0])

        ids = set()
        for _ in range(2):
            with ThreadPoolExecutor(1) as elsewhere:
                answers, decision = elsewhere.submit(asyncio.run, ask()).result()
            for answer, heard in zip(answers, [*map(str, range(8)), "again"], strict=True):
                assert answer.content == f"anthropic claude-3-opus-20240229 heard: {heard}"
                ids.add(answer.response_metadata[ROUTE]["id"])
            assert decision["served_by"].startswith("anthropic:")
        assert len(ids) == 18

    def test_of_streams_read_in_turns(self, at_cloud):
        llm = ChatIngle(model="openai:gpt-4o", max_retries=0)
        streams = [llm.stream("a"), llm.stream("b"), llm.stream("c")]
        firsts = [next(stream) for stream in streams]
        answers = [total([first, *stream]) for first, stream in zip(firsts, streams, strict=True)]
        for answer in answers:
            route = answer.response_metadata[ROUTE]
            assert llm.explain(route["id"])["usage"]["completion_tokens"] == answer.usage_metadata["output_tokens"]
        assert len({answer.response_metadata[ROUTE]["id"] for answer in answers}) == 3

    def test_of_a_stream_that_broke_off_and_went_on(self, at_machine, providers):
        providers.fail("openai", CUT)
        answer = total(ChatIngle(model="openai:gpt-4o", max_tokens=16, max_retries=0).stream("Hello"))
        assert answer.response_metadata[ROUTE]["target"] == "openai:gpt-4o"
        assert answer.content.startswith("openai")
        continued, = answer.response_metadata["ingle_continued"]
        assert continued["continued_from"] == "openai:gpt-4o" and continued["continued_by"].startswith("local:")

    def test_of_a_plan_that_asks_nobody(self, at_cloud, providers):
        llm = LLMFactory.create_llm(preferred_model="gpt-4", preferences={"acceptable_models": ["openai:*"]})
        plan = llm.plan([HumanMessage("Hello")])
        allowed = [one["target"] for one in plan["candidates"] if not one["excluded"]]
        assert allowed == ["openai:gpt-4"]
        assert providers.take() == []


class TestWishes:
    """What a team says reaches the router, and what it must not say does not leave."""

    def test_only_acceptable_models_answer(self, at_cloud, providers):
        llm = LLMFactory.create_llm(preferences={"acceptable_models": ["anthropic:claude-3-opus"]}, max_tokens=50)
        for answer in [llm.invoke("Hello"), total(llm.stream("Hello"))]:
            assert answer.response_metadata[ROUTE]["target"] == "anthropic:claude-3-opus-20240229"
        answer = llm.invoke("Hello", ingle={"preferences": {"acceptable_models": ["openai:gpt-4"]}})
        assert answer.response_metadata[ROUTE]["target"] == "openai:gpt-4"
        # What is said to the router is not told to providers.
        assert all("ingle" not in body for _, body, _ in providers.take())

    def test_another_answers_where_it_may(self, at_cloud, providers):
        providers.fail("openai", 401, 401)
        strict = LLMFactory.create_llm("openai", "gpt-4", enable_fallback=False, max_retries=0)
        with pytest.raises(openai.APIStatusError):
            strict.invoke("Hello")
        assert {provider for provider, *_ in providers.take()} == {"openai"}
        loose = LLMFactory.create_llm("openai", "gpt-4", enable_fallback=True, max_retries=0)
        assert loose.invoke("Hello").response_metadata[ROUTE]["provider"] == "openrouter"

    def test_what_is_private_stays_on_the_machine(self, at_machine, providers):
        llm = LLMFactory.create_llm(preferred_model="gpt-4", privacy="local_only", max_tokens=8, max_retries=0)
        assert llm.invoke("Hello").response_metadata[ROUTE]["provider"] == "local"
        assert providers.take() == []

    def test_a_teams_hint_chooses_by_the_task(self, at_machine):
        llm = LLMFactory.create_llm(team_name="engineering-team", max_tokens=8)
        code = llm.invoke("Hello", ingle={"task": "code_generation"})
        assert code.response_metadata[ROUTE]["provider"] == "local"
        prose = llm.invoke("Hello", ingle={"task": "documentation"})
        assert prose.response_metadata[ROUTE]["provider"] != "local"

    def test_errors_are_the_openai_clients(self, at_cloud):
        with pytest.raises(openai.BadRequestError, match="marketing"):
            LLMFactory.create_llm(team_name="no-such").invoke("Hello")
        with pytest.raises(openai.BadRequestError, match="max_costs"):
            LLMFactory.create_llm(preferences={"max_costs": 1}).invoke("Hello")
        with pytest.raises(openai.NotFoundError):
            ChatIngle().explain("rt_0")

    def test_a_providers_key_never_reaches_ingle(self, at_cloud, monkeypatch, providers):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-of-this-process")
        with pytest.warns(UserWarning, match="key of OpenRouter"):
            llm = ChatOpenRouter(model="auto", api_key="sk-or-v1-of-this-process", preferences={"max_cost": 0.5})
        sent = []
        monkeypatch.setitem(llm.http_client.event_hooks, "response", [lambda response: sent.append(response.request)])
        llm.invoke("Hello")
        assert "authorization" not in sent[0].headers
        (provider, _, headers), = providers.take()
        assert headers["authorization"] == f"Bearer {KEYS[provider]}"

    def test_ingles_own_key_is_sent(self, request, providers, tmp_path, monkeypatch):
        (tmp_path / "keys").write_text("ik_of_the_team\n")
        server = Served(request.config.getoption("--ingle"), "--api-key-file", tmp_path / "keys",
                        variables=providers.environment())
        try:
            monkeypatch.setenv("INGLE_URL", server.url)
            with pytest.raises(openai.AuthenticationError):
                ChatIngle(model="openai:gpt-4", max_retries=0).invoke("Hello")
            assert providers.take() == []
            monkeypatch.setenv("INGLE_API_KEY", "ik_of_the_team")
            llm = ChatIngle(model="openai:gpt-4", max_retries=0)
            assert llm.explain(llm.invoke("Hello"))["outcome"]
        finally:
            server.stop()

    def test_local_models_answer_by_their_names(self, at_machine, providers):
        llm = ChatLocalModel(model="codellama-13b", temperature=0, max_tokens=16)
        question = "What is the capital of France? Answer in one word."
        whole = llm.invoke(question)
        assert "Paris" in whole.content and whole.response_metadata[ROUTE]["provider"] == "local"
        assert total(llm.stream(question)).content == whole.content
        assert providers.take() == []


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package as pip installs it, alone."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--no-build-isolation", "--target", str(folder), str(PACKAGE)], check=True)
    assert (folder / "ingle_client" / "py.typed").exists()
    return folder


def run_example(installed, server, name):
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
    environment |= {"INGLE_URL": server.url, "PYTHONPATH": str(installed)}
    run = subprocess.run([sys.executable, PACKAGE / "examples" / f"{name}.py"], env=environment, text=True,
                         capture_output=True, timeout=120)
    return run.stdout.strip().splitlines(), run


class TestExamples:
    """As teams would run them, on a machine with a model and on one without."""

    def test_marketing_takes_the_cheapest(self, installed, machine, cloud, providers, smollm2):
        said, _ = run_example(installed, machine, "marketing_team")
        assert said[-1].startswith(f"-- local:{smollm2.stem} ") and said[-1].endswith(", 0 millionths of a dollar")
        assert providers.take() == []
        said, _ = run_example(installed, cloud, "marketing_team")
        assert "gpt-3.5-turbo heard: Write a slogan" in said[0]
        # GPT-3.5's answers alone cost more than the cap: OpenRouter is told what is acceptable, and for how much.
        (provider, body, _), = providers.take()
        assert (provider, body["model"]) == ("openrouter", "openrouter/auto")
        price = body["provider"]["max_price"]
        assert (float(price["prompt"]), float(price["completion"])) == (1.0, 1.0)

    def test_engineering_stays_at_home_if_it_can(self, installed, machine, cloud, providers, smollm2):
        said, _ = run_example(installed, machine, "engineering_team")
        assert said[-1] == f"-- local:{smollm2.stem} after 1 attempt(s)"
        assert providers.take() == []
        said, _ = run_example(installed, cloud, "engineering_team")
        assert "gpt-4 heard: Write a function" in said[0]
        assert said[-1].startswith("-- openrouter:openai/gpt-4 ")

    def test_executives_get_one_of_the_best_or_nobody(self, installed, machine, providers):
        said, _ = run_example(installed, machine, "executive_team")
        (_, body, _), = providers.take()
        assert "claude-3-opus" in body["model"] or body["model"].endswith("gpt-4")
        assert "heard: Which three risks" in said[0]
        for provider in KEYS:
            providers.fail(provider, *[402] * 4)
        said, run = run_example(installed, machine, "executive_team")
        assert run.returncode == 1 and said == [] and "nobody may answer" in run.stderr
        for provider in KEYS:
            providers.faults[provider].clear()
