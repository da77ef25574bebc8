"""LangChain chat models that answer through Ingle.

``LLMFactory.create_llm`` is the way in for teams; ``ChatIngle``, ``ChatOpenRouter`` and ``ChatLocalModel`` are the
models it makes.
"""
from ._connection import DEFAULT_URL, IngleWarning
from ._route import ROUTE, Route
from .chat import ChatIngle, ChatLocalModel, ChatOpenRouter
from .factory import LLMFactory, LLMProvider
from .preferences import Preferences, Privacy, RequestOptions, Strategy

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_URL",
    "ROUTE",
    "ChatIngle",
    "ChatLocalModel",
    "ChatOpenRouter",
    "IngleWarning",
    "LLMFactory",
    "LLMProvider",
    "Preferences",
    "Privacy",
    "RequestOptions",
    "Route",
    "Strategy",
]
