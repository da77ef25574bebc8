"""Who answered: the header ``x-ingle-route`` of an answer, brought to the message it belongs to."""
from __future__ import annotations

from contextvars import ContextVar
from typing import Any, TypedDict

ROUTE = "ingle_route"
"""Where the route stands in a message's ``response_metadata``."""
CONTINUED = "ingle_continued"
"""Where a message says that its stream broke off and another went on: a list of who from whom."""

_HEADER = "x-ingle-route"
_heard: ContextVar[Route | None] = ContextVar("ingle_route", default=None)


class Route(TypedDict, total=False):
    """Who answered, and why."""

    id: str
    """By which the decision is asked about: ``ChatIngle.explain``."""
    target: str
    """Provider and model, as in ``openrouter:openai/gpt-4``; absent where a stream began before anybody answered."""
    provider: str
    model: str
    why: str


def read(header: str | None) -> Route | None:
    """The route in a header such as ``local:smollm2; why=asked; id=rt_1``; ``None`` where there is none."""
    if not header:
        return None
    target, *rest = (part.strip() for part in header.split(";"))
    said = dict(part.split("=", 1) for part in rest if "=" in part)
    route = Route()
    provider, colon, model = target.partition(":")
    if colon:
        route["target"], route["provider"], route["model"] = target, provider, model
    if "why" in said:
        route["why"] = said["why"]
    if "id" in said:
        route["id"] = said["id"]
    return route or None


# The openai client hands LangChain the headers of some answers and not of others (a stream with a response format). A
# hook of the HTTP client sees all; an answer is read in the context in which it was asked for.
def on_response(response: Any) -> None:
    """Remembers the route of an answer that begins."""
    _heard.set(read(response.headers.get(_HEADER)))


async def on_async_response(response: Any) -> None:
    """As `on_response`, for a client that awaits its hooks."""
    on_response(response)


def take() -> Route | None:
    """The route of the answer that began last; once."""
    route = _heard.get()
    _heard.set(None)
    return route
