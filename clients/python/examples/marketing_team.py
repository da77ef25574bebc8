"""Cost first: the cheapest model that is good for drafts, and none above a tenth of a cent for 1000 tokens."""
from ingle_client import LLMFactory

llm = LLMFactory.create_llm(
    team_name="marketing-team",
    preferences={
        "strategy": "cost_optimized",
        "max_cost_per_1k_tokens": 0.001,
        "acceptable_models": ["gpt-3.5", "claude-haiku", "local:*"],
    },
    temperature=0.7,
    max_tokens=60,
)


def main() -> None:
    answer = llm.invoke("Write a slogan for a fireplace that thinks.")
    route = answer.response_metadata["ingle_route"]
    decision = llm.explain(answer)
    print(answer.content)
    print(f"-- {route['target']} ({route['why']}), {decision['cost_micro_usd']} millionths of a dollar")


if __name__ == "__main__":
    main()
