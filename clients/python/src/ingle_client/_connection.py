"""Where Ingle is and with which key it is asked. Keys of providers stay with the server."""
from __future__ import annotations

import os
import re
import warnings
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

DEFAULT_URL = "http://127.0.0.1:11434/v1"
"""Where Ingle listens unless told otherwise."""

NO_KEY = "no-key"
"""Stands for no key at all: without one the openai client takes OpenAI's from the environment, or asks nobody."""

# Addresses that call sites from before Ingle name: it asks them itself now.
_PROVIDERS = ("openrouter.ai", "api.openai.com", "api.anthropic.com")
_PROVIDER_VARIABLES = ("OPENROUTER_BASE_URL", "OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_BASE_URL")

_PROVIDER_KEYS = {
    "OpenRouter": re.compile(r"sk-or-"),
    "Anthropic": re.compile(r"sk-ant-"),
    # Keys of OpenAI have its name in base64 in their middle, whatever they begin with.
    "OpenAI": re.compile(r"sk-(?:proj|svcacct|admin)-|sk-\S*T3BlbkFJ"),
}


class IngleWarning(UserWarning):
    """Something of a call site from before Ingle is not used; the call goes on without it."""


def ingle_url(base_url: str | None) -> str:
    """Where Ingle's OpenAI API is: `base_url` unless that is a provider's, then ``INGLE_URL``, then the default."""
    if base_url and (host := _provider_at(base_url)):
        warnings.warn(
            f"base_url {base_url!r} is {host}: Ingle is asked instead, which asks that provider where it must; "
            "leave base_url out, or name the address of Ingle",
            IngleWarning,
            stacklevel=_outside(),
        )
        base_url = None
    url = (base_url or os.environ.get("INGLE_URL") or DEFAULT_URL).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"the address of Ingle is {url!r}: it must be one like {DEFAULT_URL}")
    return url if parts.path else f"{url}/v1"


def is_of_this_machine(url: str) -> bool:
    """Whether `url` is a loopback address, in plain HTTP."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "http" and (host in ("localhost", "::1") or host.startswith("127."))


def ingle_key(api_key: Any) -> Any:
    """The key for Ingle: `api_key` unless that is a provider's, then ``INGLE_API_KEY``, then `NO_KEY`."""
    text = api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key
    if callable(text):
        return text
    if text and (provider := _provider_of(text)):
        warnings.warn(
            f"api_key is a key of {provider} and is not sent to Ingle, which has its own from its environment; "
            "leave api_key out, or give the key that `ingle key add` printed",
            IngleWarning,
            stacklevel=_outside(),
        )
        text = None
    if not text:
        text = os.environ.get("INGLE_API_KEY", "")
        if provider := _provider_of(text):
            raise ValueError(
                f"INGLE_API_KEY is a key of {provider}: it must be one that `ingle key add` printed; "
                "the server takes the keys of providers from its own environment"
            )
    return SecretStr(text or NO_KEY)


def _provider_at(base_url: str) -> str | None:
    """What `base_url` is the address of, if not of Ingle."""
    host = urlsplit(base_url).hostname or ""
    for provider in _PROVIDERS:
        if host == provider or host.endswith("." + provider):
            return f"at {provider}"
    for variable in _PROVIDER_VARIABLES:
        if base_url.rstrip("/") == os.environ.get(variable, "").rstrip("/"):
            return f"what {variable} says"
    # A server beside Ingle's is asked by Ingle (`local:` there), if there is an Ingle elsewhere.
    local, ingle = os.environ.get("LOCAL_MODEL_URL", ""), os.environ.get("INGLE_URL", "")
    if ingle and base_url.rstrip("/") == local.rstrip("/") != ingle.rstrip("/"):
        return "what LOCAL_MODEL_URL says"
    return None


def _provider_of(key: str) -> str | None:
    return next((name for name, looks in _PROVIDER_KEYS.items() if looks.match(key)), None)


def _outside() -> int:
    """How many frames up the caller of this package is, so that a warning names the call site."""
    import sys

    frame, depth = sys._getframe(1), 1
    while frame is not None:
        module = frame.f_globals.get("__name__", "").partition(".")[0]
        if module not in ("ingle_client", "pydantic", "langchain_core", "langchain_openai"):
            return depth
        frame, depth = frame.f_back, depth + 1  # type: ignore[assignment]
    return 2
