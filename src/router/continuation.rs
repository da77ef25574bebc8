//! Going on with an answer that broke off: when that is honest, what is asked for, and where the new text begins.

use crate::backend::provider::Dialect;
use crate::chat::{BYTES_PER_TOKEN, ChatRequest, ContentPart, Message, Role, Said, ToolChoice};

/// What can be done about an answer that broke off.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Continuation {
    /// This asks for the rest.
    Ask(Box<ChatRequest>),
    /// All the tokens that were asked for are there.
    Complete,
    /// Nobody could go on with it: it holds, or may come to hold, more than plain text.
    Impossible,
}

/// The request for the rest of an answer to `request` that has said `said`.
pub(super) fn of(request: &ChatRequest, said: &Said) -> Continuation {
    let may_call = !request.tools.is_empty() && request.tool_choice != Some(ToolChoice::None);
    let is_plain = said.tool_calls.is_empty() && said.reasoning.is_empty() && !said.text.is_empty();
    if may_call || !is_plain || request.response_format.is_some() {
        return Continuation::Impossible;
    }
    let n_said =
        u32::try_from((said.text.len() as u64).div_ceil(BYTES_PER_TOKEN)).unwrap_or(u32::MAX);
    let left = request
        .max_new_tokens
        .map(|most| most.saturating_sub(n_said));
    if left == Some(0) {
        return Continuation::Complete;
    }
    let mut rest = request.clone();
    rest.max_new_tokens = left;
    match rest.messages.last_mut() {
        // It was itself the rest of something.
        Some(last) if request.continue_final => {
            last.content.push(ContentPart::Text(said.text.clone()));
        }
        _ => {
            let begun = Message::text(Role::Assistant, said.text.clone());
            rest.messages.push(begun);
        }
    }
    rest.continue_final = true;
    Continuation::Ask(Box::new(rest))
}

/// Whether a model of a provider goes on with an assistant's text that ends the conversation. Who does not is known to
/// refuse it, or to answer it as if it were a question.
pub(super) fn continues_a_prefix(dialect: Dialect, model: &str) -> bool {
    match dialect {
        Dialect::OpenAi => false,
        Dialect::Anthropic => is_old_claude(model),
        Dialect::OpenRouter => match model.split_once('/') {
            Some(("anthropic", model)) => is_old_claude(model),
            Some((author, _)) => matches!(author, "mistralai" | "deepseek"),
            None => false,
        },
        // Told so in the words of vLLM, llama-server and Ingle.
        Dialect::Compatible => true,
    }
}

/// Claude up to 4.5: later ones refuse it.
fn is_old_claude(model: &str) -> bool {
    let numbers = model.split(['-', '.', ':', '@']);
    let mut numbers = numbers.filter_map(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), _) if major < 4 => true,
        // The second may be a date, as in claude-sonnet-4-20250514.
        (Some(4), minor) => minor.is_none_or(|minor| minor <= 5 || minor > 1000),
        _ => false,
    }
}

/// Takes the text so far away from one who repeats it before going on.
#[derive(Clone, Debug)]
pub(super) struct Echo {
    said: String,
    /// What came so far, while it is the beginning of what was said.
    held: String,
    is_over: bool,
}

impl Echo {
    pub(super) fn of(said: &str) -> Self {
        Self {
            said: said.to_owned(),
            held: String::new(),
            is_over: said.is_empty(),
        }
    }

    /// The new text in `text`; empty while it may all be repeated.
    pub(super) fn pass(&mut self, text: String) -> String {
        if self.is_over {
            return text;
        }
        self.held.push_str(&text);
        if let Some(new) = self.held.strip_prefix(&self.said) {
            self.is_over = true;
            return new.to_owned();
        }
        if self.said.starts_with(&self.held) {
            return String::new();
        }
        self.is_over = true;
        std::mem::take(&mut self.held)
    }

    /// What was held back, when nothing follows: it was no repetition of all that was said.
    pub(super) fn finish(&mut self) -> String {
        if self.is_over {
            return String::new();
        }
        self.is_over = true;
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chat::{ResponseFormat, Tool, ToolCall};

    fn request() -> ChatRequest {
        ChatRequest {
            max_new_tokens: Some(10),
            ..ChatRequest::new("m", vec![Message::text(Role::User, "why")])
        }
    }

    fn said(text: &str) -> Said {
        Said {
            text: text.to_owned(),
            ..Said::default()
        }
    }

    fn rest(request: &ChatRequest, text: &str) -> ChatRequest {
        match of(request, &said(text)) {
            Continuation::Ask(rest) => *rest,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_rest_is_asked_for_with_the_tokens_that_are_left() {
        let rest = rest(&request(), "Because.");
        assert!(rest.continue_final);
        assert_eq!(rest.max_new_tokens, Some(8));
        let last = Message::text(Role::Assistant, "Because.");
        assert_eq!(rest.messages, [request().messages.remove(0), last]);
    }

    #[test]
    fn a_second_break_goes_on_with_the_same_message() {
        let first = rest(&request(), "Because");
        let second = rest(&first, " of");
        assert_eq!(second.messages.len(), 2);
        assert_eq!(second.messages[1].to_text(), "Because of");
    }

    #[test]
    fn an_answer_with_all_its_tokens_is_complete() {
        let all = said(&"x".repeat(40));
        assert_eq!(of(&request(), &all), Continuation::Complete);
        let endless = ChatRequest {
            max_new_tokens: None,
            ..request()
        };
        assert!(matches!(of(&endless, &all), Continuation::Ask(_)));
    }

    #[test]
    fn only_plain_text_is_gone_on_with() {
        let tools = ChatRequest {
            tools: vec![Tool {
                name: "now".to_owned(),
                description: None,
                parameters: None,
                strict: None,
            }],
            ..request()
        };
        let json = ChatRequest {
            response_format: Some(ResponseFormat::JsonSchema(json!({}))),
            ..request()
        };
        for request in [&tools, &json] {
            assert_eq!(of(request, &said("x")), Continuation::Impossible);
        }
        let no_call = ChatRequest {
            tool_choice: Some(ToolChoice::None),
            ..tools
        };
        assert!(matches!(of(&no_call, &said("x")), Continuation::Ask(_)));
        let thought = Said {
            reasoning: "hm".to_owned(),
            ..said("x")
        };
        let called = Said {
            tool_calls: vec![ToolCall::default()],
            ..said("x")
        };
        for said in [thought, called, said("")] {
            assert_eq!(of(&request(), &said), Continuation::Impossible);
        }
    }

    #[test]
    fn who_goes_on_with_a_text_is_known() {
        for (dialect, model, goes_on) in [
            (Dialect::OpenAi, "gpt-4", false),
            (Dialect::Anthropic, "claude-3-opus-20240229", true),
            (Dialect::Anthropic, "claude-3-5-haiku-20241022", true),
            (Dialect::Anthropic, "claude-sonnet-4-20250514", true),
            (Dialect::Anthropic, "claude-haiku-4-5", true),
            (Dialect::Anthropic, "claude-opus-4-6", false),
            (Dialect::Anthropic, "claude-sonnet-5", false),
            (Dialect::OpenRouter, "anthropic/claude-3.7-sonnet", true),
            (Dialect::OpenRouter, "anthropic/claude-opus-4.6", false),
            (Dialect::OpenRouter, "mistralai/mistral-large", true),
            (Dialect::OpenRouter, "openai/gpt-4", false),
            (Dialect::OpenRouter, "auto", false),
            (Dialect::Compatible, "whatever", true),
        ] {
            assert_eq!(continues_a_prefix(dialect, model), goes_on, "{model}");
        }
    }

    #[test]
    fn who_repeats_the_beginning_is_not_heard_twice() {
        for (pieces, new) in [
            (&["Because of", " air"][..], " air"),
            (&["Bec", "ause", " of air"][..], " air"),
            (&[" air"], " air"),
            (&["Be", "tween"], "Between"),
            (&["Because"], "Because"),
            (&["Because of"], ""),
        ] {
            let mut echo = Echo::of("Because of");
            let mut heard = String::new();
            for piece in pieces {
                heard.push_str(&echo.pass((*piece).to_owned()));
            }
            heard.push_str(&echo.finish());
            assert_eq!(heard, new, "{pieces:?}");
        }
    }
}
