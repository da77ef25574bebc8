"""Stands in for ``elf_automations/shared/utils/llm_factory.py``: copy it there, and call sites run unchanged.

What that module did in the process of every team (providers, keys, fallbacks, budgets) Ingle does for all of them;
these are the names by which it was used.
"""
from __future__ import annotations

from typing import Any

from ingle_client import ChatIngle, ChatLocalModel, ChatOpenRouter, LLMProvider, Preferences
from ingle_client import LLMFactory as _LLMFactory

FallbackLLM = ChatIngle
"""Every model falls back where it may: Ingle sees to it, so that there is nothing to wrap."""

QuotaTrackedLLM = ChatIngle
"""Every model is counted and held to its team's budget, by Ingle."""

__all__ = [
    "ChatLocalModel",
    "ChatOpenRouter",
    "FallbackLLM",
    "LLMFactory",
    "LLMProvider",
    "Preferences",
    "QuotaTrackedLLM",
    "create_llm",
]


class LLMFactory(_LLMFactory):
    """The factory with the methods that call sites know."""

    @classmethod
    def create_with_quota_tracking(
        cls,
        team_name: str,
        preferred_provider: LLMProvider | str | None = None,
        preferred_model: str | None = None,
        temperature: float | None = None,
        quota_manager: object = None,
        supabase_client: object = None,
        **kwargs: Any,
    ) -> ChatIngle:
        """As `create_llm`: Ingle keeps the books (``ingle usage --team``), and needs neither tracker."""
        return cls.create_llm(preferred_provider, preferred_model, temperature, team_name=team_name, **kwargs)


create_llm = LLMFactory.create_llm
