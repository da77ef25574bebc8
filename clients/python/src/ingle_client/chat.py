"""LangChain's chat model for OpenAI's API, bound to Ingle."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import openai
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_openai import ChatOpenAI
from pydantic import ConfigDict, Field, model_validator

from . import _http, _route
from ._connection import ingle_key, ingle_url, is_of_this_machine
from .preferences import Privacy, RequestOptions

_OBJECT = dict[str, Any]


class ChatIngle(ChatOpenAI):
    """A chat model that Ingle's router answers.

    Everything of ``ChatOpenAI`` works: sync, async, streams, tools, structured output. Its errors are the openai
    client's. What is particular to one call goes with it: ``llm.invoke("…", ingle={"task": "debugging"})``.
    """

    model_config = ConfigDict(populate_by_name=True)

    provider: ClassVar[str | None] = None
    """Whose models are meant by names without a provider; ``None`` leaves it to the router."""

    model_name: str = Field(default="auto", alias="model")
    """``auto``, a bare name, or one with its provider: ``local:codellama-13b``, ``openrouter:openai/gpt-4``."""
    team_name: str | None = None
    """For whom is asked. A key's own team wins."""
    task: str | None = None
    """What is asked for; a team's routing hints choose the strategy by it."""
    deadline_ms: int | None = None
    """Time to the first content. Units: milliseconds."""
    privacy: Privacy | None = None
    """How far prompts may go."""
    preferences: dict[str, Any] | None = None
    """Wishes about who answers: `Preferences`, which Ingle checks, so that none is lost here."""
    enable_fallback: bool | None = None
    """Whether another model may answer than the one that is named; ``None`` leaves it to team and server."""

    openai_proxy: str | None = None
    stream_usage: bool | None = True
    # Ingle has chat completions only; LangChain would choose the other API by the model's name.
    use_responses_api: bool | None = False

    @model_validator(mode="before")
    @classmethod
    def _bind_to_ingle(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = dict(values)
        base_url, alias = values.pop("base_url", None), values.pop("openai_api_base", None)
        url = values["openai_api_base"] = ingle_url(base_url or alias)
        key, alias = values.pop("api_key", None), values.pop("openai_api_key", None)
        values["openai_api_key"] = ingle_key(key or alias)
        # What this machine says to itself goes through no proxy, whatever the environment names.
        way = values.pop("openai_proxy", None), not is_of_this_machine(url)
        values["http_client"] = values.get("http_client") or _http.client(*way)
        values["http_async_client"] = values.get("http_async_client") or _http.async_client(*way)
        # Only newer LangChains have it; it would warn about clients that are not its own.
        if "http_socket_options" in cls.model_fields:
            values.setdefault("http_socket_options", ())
        return values

    def plan(self, input: LanguageModelInput, **kwargs: Any) -> dict[str, Any]:
        """Who would answer `input`, and why nobody else: nothing is asked and nothing is paid."""
        plan = self.root_client.post("/route/plan", body=self._question(input, kwargs), cast_to=_OBJECT)
        return cast("dict[str, Any]", plan)

    async def aplan(self, input: LanguageModelInput, **kwargs: Any) -> dict[str, Any]:
        """As `plan`."""
        plan = await self.root_async_client.post("/route/plan", body=self._question(input, kwargs), cast_to=_OBJECT)
        return cast("dict[str, Any]", plan)

    def explain(self, answer: BaseMessage | str) -> dict[str, Any]:
        """What was decided about an answer, or about the id of its route, and what came of it."""
        return cast("dict[str, Any]", self.root_client.get(_about(answer), cast_to=_OBJECT))

    async def aexplain(self, answer: BaseMessage | str) -> dict[str, Any]:
        """As `explain`."""
        return cast("dict[str, Any]", await self.root_async_client.get(_about(answer), cast_to=_OBJECT))

    def _question(self, input_: LanguageModelInput, kwargs: dict[str, Any]) -> dict[str, Any]:
        payload = self._get_request_payload(input_, **kwargs)
        extra = payload.pop("extra_body", None) or {}
        return {**payload, **extra}

    def _options(self) -> RequestOptions:
        said = {
            "team": self.team_name,
            "task": self.task,
            "deadline_ms": self.deadline_ms,
            "privacy": self.privacy,
            "preferences": self.preferences,
            "enable_fallback": self.enable_fallback,
        }
        return cast(RequestOptions, {key: value for key, value in said.items() if value is not None})

    def _named(self, model: str) -> str:
        if self.provider is None or model.startswith(f"{self.provider}:"):
            return model
        return f"{self.provider}:{model}"

    def _get_request_payload(
        self, input_: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        of_call = kwargs.pop("ingle", None)
        payload = super()._get_request_payload(input_, stop=stop, **kwargs)
        payload["model"] = self._named(payload["model"])
        body = dict(payload.get("extra_body") or {})
        options = _over(_over(self._options(), body.get("ingle")), of_call)
        if options:
            payload["extra_body"] = {**body, "ingle": options}
        return payload

    def _create_chat_result(
        self, response: dict[str, Any] | openai.BaseModel, generation_info: dict[str, Any] | None = None
    ) -> ChatResult:
        if route := _route.take():
            generation_info = {**(generation_info or {}), _route.ROUTE: route}
        return super()._create_chat_result(response, generation_info)

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        made = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        if made is None:
            return None
        told: dict[str, Any] = {}
        if route := _route.take():
            told[_route.ROUTE] = route
        if handed_over := (chunk.get("chunk") or chunk).get("ingle"):
            told[_route.CONTINUED] = [handed_over]
        if told:
            made.generation_info = {**(made.generation_info or {}), **told}
        return made

    @property
    def _llm_type(self) -> str:
        return "ingle-chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {**super()._identifying_params, "ingle": self._options()}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(**{**super()._get_ls_params(stop, **kwargs), "ls_provider": "ingle"})

    @property
    def lc_secrets(self) -> dict[str, str]:
        return {"openai_api_key": "INGLE_API_KEY"}

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        return ["ingle_client", "chat"]


class ChatOpenRouter(ChatIngle):
    """A model of OpenRouter's, asked by Ingle: ``auto``, ``gpt-4``, ``anthropic/claude-3-opus``.

    `api_key` is Ingle's. One of a provider is not sent, a provider's `base_url` is not asked; both are warned about.
    """

    provider: ClassVar[str | None] = "openrouter"


class ChatLocalModel(ChatIngle):
    """A model of Ingle's own machine: ``codellama-13b``, ``smollm2``. `base_url` is the address of Ingle."""

    provider: ClassVar[str | None] = "local"


def _over(below: Mapping[str, Any], above: Mapping[str, Any] | None) -> dict[str, Any]:
    """What `above` says, and `below` where it says nothing; preferences one by one."""
    merged = {**below, **(above or {})}
    if above and below.get("preferences") and above.get("preferences"):
        merged["preferences"] = {**below["preferences"], **above["preferences"]}
    return merged


def _about(answer: BaseMessage | str) -> str:
    if isinstance(answer, str):
        return f"/route/explain/{answer}"
    route = answer.response_metadata.get(_route.ROUTE) or {}
    if "id" not in route:
        raise ValueError("this message has no ingle_route in its response_metadata: it is no answer of Ingle's")
    return f"/route/explain/{route['id']}"
