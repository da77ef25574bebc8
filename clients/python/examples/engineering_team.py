"""Local first: code stays with CodeLlama on our own machine, and goes to a provider only where that cannot answer."""
from ingle_client import LLMFactory

llm = LLMFactory.create_llm(
    preferred_provider="local",
    preferred_model="codellama-13b",
    team_name="engineering-team",
    preferences={"prefer_local": True, "fallback_to_cloud": True},
    enable_fallback=True,
    temperature=0.1,
    max_tokens=60,
)


def main() -> None:
    route = {}
    for chunk in llm.stream("Write a function that reverses a list.", ingle={"task": "code_generation"}):
        route.update(chunk.response_metadata.get("ingle_route", {}))
        print(chunk.content, end="", flush=True)
    decision = llm.explain(route["id"])
    print(f"\n-- {decision['served_by']} after {len(decision['attempts'])} attempt(s)")


if __name__ == "__main__":
    main()
