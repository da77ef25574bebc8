"""Quality first: one of the two best models, or an error that says why not."""
import openai
from ingle_client import LLMFactory

llm = LLMFactory.create_llm(
    team_name="executive-team",
    preferences={
        "strategy": "quality_first",
        "quality_threshold": 0.95,
        "acceptable_models": ["gpt-4", "claude-3-opus"],
    },
    max_tokens=400,
)


def main() -> None:
    try:
        answer = llm.invoke("Which three risks should the board hear about?")
    except openai.APIStatusError as error:
        raise SystemExit(f"-- nobody may answer: {error.message}") from error
    print(answer.content)
    print(f"-- {answer.response_metadata['ingle_route']['target']}")


if __name__ == "__main__":
    main()
