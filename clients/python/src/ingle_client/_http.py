"""HTTP clients that tell the route of every answer, shared by all models: making one takes longer than asking."""
from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import openai

from . import _route
from ._connection import NO_KEY

Hooks = dict[str, list[Callable[..., Any]]]


@lru_cache(maxsize=16)
def client(proxy: str | None, trust_env: bool) -> openai.DefaultHttpxClient:
    """The one for calls that block."""
    hooks: Hooks = {"request": [_without_no_key], "response": [_route.on_response]}
    return openai.DefaultHttpxClient(event_hooks=hooks, proxy=proxy, trust_env=trust_env)


@lru_cache(maxsize=16)
def async_client(proxy: str | None, trust_env: bool) -> openai.DefaultAsyncHttpxClient:
    """The one for calls that are awaited."""
    return _OfAnyLoop({"proxy": proxy, "trust_env": trust_env})


def _without_no_key(request: Any) -> None:
    """What stands for no key is not sent."""
    if request.headers.get("authorization") == f"Bearer {NO_KEY}":
        del request.headers["authorization"]


async def _async_without_no_key(request: Any) -> None:
    _without_no_key(request)


class _OfAnyLoop(openai.DefaultAsyncHttpxClient):
    """A client with connections of its own for each event loop.

    A pool of connections belongs to the loop it was made in; a model that lives longer (made once, used by one
    ``asyncio.run`` after the other, as crews of agents do) would meet connections whose loop is closed.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(**options)
        hooks: Hooks = {"request": [_async_without_no_key], "response": [_route.on_async_response]}
        self._options = {"event_hooks": hooks, **options}
        self._of_loop: WeakKeyDictionary[Any, openai.DefaultAsyncHttpxClient] = WeakKeyDictionary()

    async def send(self, request: Any, **how: Any) -> Any:
        loop = asyncio.get_running_loop()
        if loop not in self._of_loop:
            self._of_loop[loop] = openai.DefaultAsyncHttpxClient(**self._options)
        return await self._of_loop[loop].send(request, **how)

    async def aclose(self) -> None:
        used = self._of_loop.pop(asyncio.get_running_loop(), None)
        if used is not None:
            await used.aclose()
        await super().aclose()
