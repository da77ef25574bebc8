"""What a request may ask of the router, as Ingle's wire has it."""
from __future__ import annotations

from typing import Literal, TypedDict

Strategy = Literal["cost_optimized", "quality_first", "speed_first", "local_first"]
"""What is best where several models could answer."""

Privacy = Literal["any", "zdr_only", "local_only"]
"""How far a prompt may go. A request can only tighten what its key, its team and the server allow."""


class Preferences(TypedDict, total=False):
    """Wishes about who answers; what is absent says nothing. Ingle checks them, and names a wrong one."""

    strategy: Strategy
    prefer_local: bool
    prefer_faster: bool
    fallback_to_cloud: bool
    """Whether a provider may be asked at all that was not named."""
    max_cost: float
    """Dollars that the request may cost."""
    max_cost_per_token: float
    """Dollars that a token may cost."""
    max_cost_per_1k_tokens: float
    """Dollars that 1000 tokens may cost."""
    quality_threshold: float
    """The least score of a model, from 0 to 1."""
    acceptable_models: list[str]
    """The only models that may answer: names, families and globs, as in ``["gpt-3.5", "local:*"]``."""


class RequestOptions(TypedDict, total=False):
    """The ``ingle`` object of a request."""

    team: str
    task: str
    """What the request is for: a team's routing hints choose the strategy by it."""
    deadline_ms: int
    """Time to the first content of the answer. Units: milliseconds."""
    privacy: Privacy
    preferences: Preferences
    enable_fallback: bool
    """Whether another model may answer than the one that was named."""
