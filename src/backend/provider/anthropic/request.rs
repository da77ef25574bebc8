//! A request in Anthropic's words.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::conversation::Conversation;
use crate::backend::provider::openai::{sampling, short};
use crate::backend::provider::options::ProviderOptions;
use crate::chat::{ChatRequest, EXTRA_FIELDS, ResponseFormat, Tool, ToolChoice};

/// What is said to a model that shall answer in JSON of no particular form.
const ONLY_JSON: &str = "Answer with one valid JSON object and nothing before or after it.";

/// No model thinks less. Units: tokens.
const BUDGET_LEAST: u32 = 1024;

/// The body of a request for a stream.
///
/// Errors: the field that cannot be said, and why.
pub(in crate::backend::provider) fn body(
    options: &ProviderOptions,
    model: &str,
    request: &ChatRequest,
) -> Result<Value, (&'static str, String)> {
    let most = request.max_new_tokens.unwrap_or(options.max_new_tokens);
    if most == 0 {
        let name = &options.name;
        let message = format!(
            "max_tokens is 0, and {name} evaluates no prompt without an answer: ask for 1 at least"
        );
        return Err(("max_tokens", message));
    }
    let mut conversation = Conversation::of(&request.messages);
    if request.response_format == Some(ResponseFormat::JsonObject) {
        conversation.system.push(ONLY_JSON.to_owned());
    }
    if conversation.turns.is_empty() {
        let message = "messages say nothing: one needs a text or a picture".to_owned();
        return Err(("messages", message));
    }
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| {
        body.insert(name.to_owned(), value);
    };
    put("model", json!(model));
    put("max_tokens", json!(most));
    put("stream", json!(true));
    if !conversation.system.is_empty() {
        let block = |text: &String| json!({"type": "text", "text": text});
        put("system", conversation.system.iter().map(block).collect());
    }
    put("messages", conversation.messages());
    let stops: Vec<&String> = request
        .stop
        .iter()
        .filter(|stop| says_something(stop))
        .collect();
    if !stops.is_empty() {
        put("stop_sequences", json!(stops));
    }
    let words = effort_words(model);
    let thinking = thinking(request)
        .cloned()
        .or_else(|| budget(request, words, most));
    for (name, value) in drawn(request, thinking.is_some()) {
        put(name, value);
    }
    if let Some(thinking) = thinking {
        put("thinking", thinking);
    }
    let used = conversation.tools_used();
    if let Some(tools) = tools(&request.tools, &used) {
        put("tools", tools);
        if let Some(choice) = tool_choice(request) {
            put("tool_choice", choice);
        }
    }
    let output = output_config(request, words);
    if !output.is_empty() {
        put("output_config", Value::Object(output));
    }
    if let Some(user) = user(request) {
        put("metadata", json!({"user_id": user}));
    }
    if let Some(tier @ ("auto" | "standard_only")) = text(request, "service_tier") {
        put("service_tier", json!(tier));
    }
    Ok(Value::Object(body))
}

/// What a request asks for that is not said.
pub(in crate::backend::provider) fn dropped(request: &ChatRequest) -> Vec<&'static str> {
    let said = drawn(request, thinking(request).is_some());
    let said: Vec<&str> = said.into_iter().map(|(name, _)| name).collect();
    let asked = sampling(&request.sampling)
        .into_iter()
        .map(|(name, _)| name);
    let mut dropped: Vec<&str> = asked.filter(|name| !said.contains(name)).collect();
    if request.stop.iter().any(|stop| !says_something(stop)) {
        dropped.push("stop");
    }
    let is_said = |name: &&str| match *name {
        "reasoning" | "reasoning_effort" => effort(request).is_some(),
        "safety_identifier" | "user" => true,
        "service_tier" => matches!(text(request, name), Some("auto" | "standard_only")),
        "thinking" => thinking(request).is_some(),
        _ => false,
    };
    let extra = EXTRA_FIELDS
        .iter()
        .filter(|name| request.extra.contains_key(**name));
    dropped.extend(extra.filter(|name| !is_said(name)));
    dropped
}

/// How tokens are drawn, in what Anthropic's models take: a temperature up to 1, and either it or `top_p`.
fn drawn(request: &ChatRequest, thinks: bool) -> Vec<(&'static str, Value)> {
    let drawn = &request.sampling;
    let temperature = drawn
        .temperature
        .map(|value| ("temperature", short(value.min(1.0))));
    let has_top_p = temperature.is_none() && drawn.top_p != 1.0;
    let top_p = has_top_p.then(|| ("top_p", short(drawn.top_p)));
    let top_k = drawn.top_k.map(|k| ("top_k", json!(k)));
    // A model that thinks draws as it likes.
    let all = [temperature, top_p, top_k].into_iter().flatten();
    all.filter(|_| !thinks).collect()
}

/// Whether a stop text is one there: of spaces alone none is.
fn says_something(stop: &str) -> bool {
    !stop.trim().is_empty()
}

/// How a model is told how hard to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EffortWords {
    /// By a word.
    Effort,
    /// By the tokens it may think.
    Budget,
    /// It does not think.
    Nothing,
}

/// The words of a Claude; who is not known understands what the newest do.
fn effort_words(model: &str) -> EffortWords {
    let numbers = model.split(['-', '.', ':', '@']);
    let mut numbers = numbers.filter_map(|part| part.parse::<u32>().ok());
    let Some(major) = numbers.next() else {
        return EffortWords::Effort;
    };
    // The second may be a date, as in claude-sonnet-4-20250514.
    let minor = numbers.next().filter(|minor| *minor < 1000).unwrap_or(0);
    match (major, minor) {
        (3, 7) => EffortWords::Budget,
        (0..=3, _) => EffortWords::Nothing,
        (4, 5) if model.contains("opus") => EffortWords::Effort,
        (4, 0..=5) => EffortWords::Budget,
        _ => EffortWords::Effort,
    }
}

/// The tokens that a model may think which is told in no other way; the answer has as many at least.
fn budget(request: &ChatRequest, words: EffortWords, most: u32) -> Option<Value> {
    if words != EffortWords::Budget || !may_think(request) {
        return None;
    }
    let tokens = match effort(request)? {
        "low" => BUDGET_LEAST,
        "medium" => 4 * BUDGET_LEAST,
        _ => 16 * BUDGET_LEAST,
    };
    let tokens = tokens.min(most / 2);
    let is_enough = tokens >= BUDGET_LEAST;
    is_enough.then(|| json!({"type": "enabled", "budget_tokens": tokens}))
}

/// How the model is to think: not where it must call a tool, nor where it goes on after one, since its earlier
/// thoughts, which would have to be shown to it, are not part of a conversation.
fn thinking(request: &ChatRequest) -> Option<&Value> {
    let asked = request
        .extra
        .get("thinking")
        .filter(|asked| asked.is_object());
    asked.filter(|_| may_think(request))
}

fn may_think(request: &ChatRequest) -> bool {
    let is_forced = matches!(
        request.tool_choice,
        Some(ToolChoice::Required | ToolChoice::Tool(_))
    );
    let goes_on = request
        .messages
        .last()
        .is_some_and(|last| last.tool_call_id.is_some());
    !is_forced && !goes_on
}

fn output_config(request: &ChatRequest, words: EffortWords) -> Map<String, Value> {
    let mut output = Map::new();
    if let Some(effort) = effort(request).filter(|_| words == EffortWords::Effort) {
        output.insert("effort".to_owned(), json!(effort));
    }
    if let Some(ResponseFormat::JsonSchema(schema)) = &request.response_format {
        let schema = schema.get("schema").unwrap_or(schema);
        let format = json!({"type": "json_schema", "schema": schema});
        output.insert("format".to_owned(), format);
    }
    output
}

fn effort(request: &ChatRequest) -> Option<&'static str> {
    let reasoning = request.extra.get("reasoning");
    let of_reasoning = || reasoning?.get("effort")?.as_str();
    match text(request, "reasoning_effort").or_else(of_reasoning)? {
        "minimal" | "low" => Some("low"),
        "medium" => Some("medium"),
        "high" => Some("high"),
        "xhigh" => Some("xhigh"),
        "max" => Some("max"),
        _ => None,
    }
}

fn user(request: &ChatRequest) -> Option<&str> {
    text(request, "user").or_else(|| text(request, "safety_identifier"))
}

fn text<'a>(request: &'a ChatRequest, name: &str) -> Option<&'a str> {
    request.extra.get(name)?.as_str()
}

/// The tools there are; those that were called before must be among them.
fn tools(offered: &[Tool], used: &BTreeSet<&str>) -> Option<Value> {
    let mut tools: Vec<Value> = offered.iter().map(tool).collect();
    let is_offered = |name: &str| offered.iter().any(|tool| tool.name == name);
    if tools.is_empty() {
        let earlier = used.iter().filter(|name| !is_offered(name));
        tools.extend(earlier.map(|name| json!({"name": name, "input_schema": {"type": "object"}})));
    }
    (!tools.is_empty()).then_some(Value::Array(tools))
}

fn tool(tool: &Tool) -> Value {
    let mut schema = match &tool.parameters {
        Some(Value::Object(schema)) => schema.clone(),
        _ => Map::new(),
    };
    schema.entry("type").or_insert_with(|| json!("object"));
    let mut made = json!({"name": tool.name, "input_schema": schema});
    if let Some(description) = &tool.description {
        made["description"] = json!(description);
    }
    if let Some(strict) = tool.strict {
        made["strict"] = json!(strict);
    }
    made
}

fn tool_choice(request: &ChatRequest) -> Option<Value> {
    let one_at_a_time = request.parallel_tool_calls == Some(false);
    let mut choice = match &request.tool_choice {
        // Only tools of earlier turns are there.
        _ if request.tools.is_empty() => return Some(json!({"type": "none"})),
        Some(ToolChoice::None) => return Some(json!({"type": "none"})),
        Some(ToolChoice::Required) => json!({"type": "any"}),
        Some(ToolChoice::Tool(name)) => json!({"type": "tool", "name": name}),
        Some(ToolChoice::Auto) => json!({"type": "auto"}),
        None if one_at_a_time => json!({"type": "auto"}),
        None => return None,
    };
    if one_at_a_time {
        choice["disable_parallel_tool_use"] = json!(true);
    }
    Some(choice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Role};
    use crate::config::router::Dialect;

    fn said(model: &str, effort: &str, most: u32) -> Value {
        let mut request = ChatRequest::new(model, vec![Message::text(Role::User, "hi")]);
        request.max_new_tokens = Some(most);
        request.sampling.temperature = Some(0.5);
        request
            .extra
            .insert("reasoning_effort".to_owned(), json!(effort));
        let options = ProviderOptions::new("anthropic", Dialect::Anthropic);
        body(&options, model, &request).unwrap()
    }

    #[test]
    fn each_claude_is_told_how_hard_to_think_in_words_it_knows() {
        for model in [
            "claude-opus-4-5",
            "claude-opus-4-6",
            "claude-sonnet-5",
            "somebody",
        ] {
            let said = said(model, "high", 9000);
            assert_eq!(said["output_config"]["effort"], "high", "{model}");
            assert_eq!(said.get("thinking"), None, "{model}");
        }
        for model in [
            "claude-3-7-sonnet-20250219",
            "claude-sonnet-4-20250514",
            "claude-opus-4-1-20250805",
            "claude-haiku-4-5",
        ] {
            let told = said(model, "medium", 9000);
            let budget = json!({"type": "enabled", "budget_tokens": 4096});
            assert_eq!(told["thinking"], budget, "{model}");
            assert_eq!(told.get("output_config"), None, "{model}");
            // Who thinks draws as it likes.
            assert_eq!(told.get("temperature"), None, "{model}");
            let short = said(model, "high", 4000);
            assert_eq!(short["thinking"]["budget_tokens"], 2000, "{model}");
            assert_eq!(said(model, "high", 2000).get("thinking"), None, "{model}");
            assert_eq!(said(model, "none", 9000).get("thinking"), None, "{model}");
        }
        for model in ["claude-3-opus-20240229", "claude-3-5-haiku-20241022"] {
            let said = said(model, "high", 9000);
            assert_eq!(said.get("thinking"), None, "{model}");
            assert_eq!(said.get("output_config"), None, "{model}");
            assert_eq!(said["temperature"], 0.5, "{model}");
        }
    }
}
