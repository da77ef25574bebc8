"""The factory that teams make their models with."""
from __future__ import annotations

from enum import Enum
from typing import Any

from .chat import ChatIngle, ChatLocalModel, ChatOpenRouter
from .preferences import Preferences


class LLMProvider(str, Enum):
    """Whose model is preferred."""

    AUTO = "auto"
    LOCAL = "local"
    OPENROUTER = "openrouter"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


# What is asked for where a provider is preferred and no model: what the fallback chain begins with there.
_USUAL = {"auto": "auto", "openrouter": "auto", "openai": "gpt-4", "anthropic": "claude-3-opus-20240229"}


class LLMFactory:
    """Makes chat models that Ingle answers."""

    @classmethod
    def create_llm(
        cls,
        preferred_provider: LLMProvider | str | None = None,
        preferred_model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        team_name: str | None = None,
        enable_fallback: bool | None = None,
        preferences: Preferences | None = None,
        **kwargs: Any,
    ) -> ChatIngle:
        """A chat model of the preferred provider and model, as far as preferences, team and server allow.

        Without a provider, `preferred_model` is a name that Ingle looks up (``gpt-4``, ``local:codellama-13b``);
        without either, Ingle chooses. A temperature that is not given is the server's to choose. The other arguments
        are ``ChatIngle``'s: ``task``, ``deadline_ms``, ``privacy``, ``base_url``, ``timeout``, ``max_retries``, …
        """
        provider = preferred_provider.value if isinstance(preferred_provider, Enum) else preferred_provider
        provider = (provider or "auto").strip().lower()
        said = {
            "temperature": temperature,
            "max_tokens": max_tokens,
            "team_name": team_name,
            "enable_fallback": enable_fallback,
            "preferences": preferences,
        }
        kwargs.update((key, value) for key, value in said.items() if value is not None)
        if provider == "local":
            return _local(preferred_model, kwargs)
        model = preferred_model or _USUAL.get(provider)
        if model is None:
            raise ValueError(f"preferred_provider is {provider!r}: name one of its models as preferred_model")
        if provider == "auto":
            return ChatIngle(model=model, **kwargs)
        if provider == "openrouter":
            return ChatOpenRouter(model=model, **kwargs)
        named = model if model.startswith(f"{provider}:") else f"{provider}:{model}"
        return ChatIngle(model=named, **kwargs)


def _local(model: str | None, kwargs: dict[str, Any]) -> ChatIngle:
    """A model of the machine, or without a name whichever is best there."""
    if model is not None:
        return ChatLocalModel(model=model, **kwargs)
    wishes: dict[str, Any] = {"prefer_local": True}
    if kwargs.get("enable_fallback") is False:
        wishes["acceptable_models"] = ["local:*"]
    wishes.update(kwargs.pop("preferences", None) or {})
    return ChatIngle(model="auto", preferences=wishes, **kwargs)
