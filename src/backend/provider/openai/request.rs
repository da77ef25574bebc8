//! A request in OpenAI's words.

use serde_json::{Map, Value, json};

use crate::backend::provider::openrouter::add_own_words;
use crate::backend::provider::options::{CallOptions, Dialect, ProviderOptions};
use crate::chat::{
    ChatRequest, ContentPart, Image, Message, ResponseFormat, Sampling, Tool, ToolCall, ToolChoice,
};
use crate::egress::Privacy;

/// Fields that a prompt is stored by, or goes to a third party by: nothing of a request that may not be kept.
const LEAVES_TRACES: &[&str] = &["plugins", "prompt_cache_retention", "store"];

/// The end of a model's name by which OpenRouter asks a third party about the prompt.
const SEARCHES: &str = ":online";

/// The body of a request for a stream.
///
/// Errors: the field that cannot be said, and why.
pub(in crate::backend::provider) fn body(
    options: &ProviderOptions,
    model: &str,
    request: &ChatRequest,
    privacy: Privacy,
    call: &CallOptions,
) -> Result<Value, (&'static str, String)> {
    let dialect = options.dialect;
    refuse_search(dialect, model, privacy)?;
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| {
        body.insert(name.to_owned(), value);
    };
    for (name, value) in &request.extra {
        if is_known(dialect, name) && (privacy == Privacy::Any || !leaves_traces(name)) {
            put(name, value.clone());
        }
    }
    put("model", json!(model));
    put("messages", request.messages.iter().map(message).collect());
    put("stream", json!(true));
    put("stream_options", json!({"include_usage": true}));
    if let Some(most) = request.max_new_tokens {
        if most == 0 {
            let name = &options.name;
            let message = format!(
                "max_tokens is 0, and {name} evaluates no prompt without an answer: ask for 1 at least"
            );
            return Err(("max_tokens", message));
        }
        let name = match dialect {
            Dialect::OpenAi => "max_completion_tokens",
            _ => "max_tokens",
        };
        put(name, json!(most));
    }
    if request.continue_final && dialect == Dialect::Compatible {
        put("continue_final_message", json!(true));
        put("add_generation_prompt", json!(false));
    }
    if !request.stop.is_empty() {
        put("stop", json!(request.stop));
    }
    for (name, value) in sampling(&request.sampling) {
        if carries(dialect, name) {
            put(name, value);
        }
    }
    if !request.tools.is_empty() {
        put("tools", request.tools.iter().map(tool).collect());
        if let Some(choice) = &request.tool_choice {
            put("tool_choice", tool_choice(choice));
        }
        if let Some(parallel) = request.parallel_tool_calls {
            put("parallel_tool_calls", json!(parallel));
        }
    }
    if let Some(format) = &request.response_format {
        put("response_format", response_format(format));
    }
    if dialect == Dialect::OpenRouter {
        let asked = request.extra.get("provider");
        add_own_words(&mut body, (options, call), model, asked, privacy)
            .map_err(|message| ("provider", message))?;
    }
    Ok(Value::Object(body))
}

fn response_format(format: &ResponseFormat) -> Value {
    match format {
        ResponseFormat::JsonObject => json!({"type": "json_object"}),
        ResponseFormat::JsonSchema(schema) => {
            json!({"type": "json_schema", "json_schema": schema})
        }
    }
}

/// Errors: the model's name asks a third party about a prompt that may not be kept.
fn refuse_search(
    dialect: Dialect,
    model: &str,
    privacy: Privacy,
) -> Result<(), (&'static str, String)> {
    let searches = dialect == Dialect::OpenRouter && model.ends_with(SEARCHES);
    if searches && privacy != Privacy::Any {
        let message =
            format!("{model} searches the web with the prompt, and a {privacy} request may not");
        return Err(("model", message));
    }
    Ok(())
}

/// What a request asks for that is not said to this provider.
pub(in crate::backend::provider) fn dropped(
    dialect: Dialect,
    request: &ChatRequest,
) -> Vec<&'static str> {
    let drawn = sampling(&request.sampling);
    let drawn = drawn.into_iter().map(|(name, _)| name);
    let mut dropped: Vec<_> = drawn.filter(|name| !carries(dialect, name)).collect();
    let unknown = EXTRA
        .iter()
        .filter(|(name, _)| request.extra.contains_key(*name));
    dropped.extend(
        unknown
            .filter(|(name, _)| !is_known(dialect, name))
            .map(|(name, _)| *name),
    );
    dropped
}

/// Fields that are passed on, and to which of OpenAI and OpenRouter; whoever is compatible takes all but those of
/// OpenRouter alone.
const EXTRA: &[(&str, &[Dialect])] = {
    use Dialect::{OpenAi, OpenRouter};
    &[
        ("metadata", &[OpenAi, OpenRouter]),
        ("plugins", &[OpenRouter]),
        ("prediction", &[OpenAi, OpenRouter]),
        ("prompt_cache_key", &[OpenAi, OpenRouter]),
        ("prompt_cache_retention", &[OpenAi]),
        ("provider", &[OpenRouter]),
        ("reasoning", &[OpenRouter]),
        ("reasoning_effort", &[OpenAi, OpenRouter]),
        ("safety_identifier", &[OpenAi]),
        ("service_tier", &[OpenAi, OpenRouter]),
        ("session_id", &[OpenRouter]),
        ("store", &[OpenAi]),
        ("thinking", &[]),
        ("transforms", &[OpenRouter]),
        ("user", &[OpenAi, OpenRouter]),
        ("verbosity", &[OpenAi, OpenRouter]),
    ]
};

fn is_known(dialect: Dialect, name: &str) -> bool {
    let by = EXTRA.iter().find(|(known, _)| *known == name);
    by.is_some_and(|(_, by)| match dialect {
        Dialect::Compatible => by != &[Dialect::OpenRouter],
        _ => by.contains(&dialect),
    })
}

fn leaves_traces(name: &str) -> bool {
    LEAVES_TRACES.contains(&name)
}

/// Whether a provider understands how tokens are to be drawn.
fn carries(dialect: Dialect, name: &str) -> bool {
    match name {
        "ignore_eos" | "min_tokens" => dialect == Dialect::Compatible,
        "top_k" | "min_p" | "repetition_penalty" => dialect != Dialect::OpenAi,
        _ => true,
    }
}

/// What is not neutral of how tokens are drawn.
pub(in crate::backend::provider) fn sampling(sampling: &Sampling) -> Vec<(&'static str, Value)> {
    let neutral = Sampling::default();
    let float = |name, value: f32, neutral: f32| (value != neutral).then(|| (name, short(value)));
    [
        sampling
            .temperature
            .map(|value| ("temperature", short(value))),
        float("top_p", sampling.top_p, neutral.top_p),
        sampling.top_k.map(|k| ("top_k", json!(k))),
        float("min_p", sampling.min_p, neutral.min_p),
        float(
            "repetition_penalty",
            sampling.repetition_penalty,
            neutral.repetition_penalty,
        ),
        float(
            "presence_penalty",
            sampling.presence_penalty,
            neutral.presence_penalty,
        ),
        float(
            "frequency_penalty",
            sampling.frequency_penalty,
            neutral.frequency_penalty,
        ),
        // Seeds are signed elsewhere: the same bits.
        sampling
            .seed
            .map(|seed| ("seed", json!(seed.cast_signed()))),
        sampling.ignore_eos.then(|| ("ignore_eos", json!(true))),
        (sampling.min_tokens > 0).then(|| ("min_tokens", json!(sampling.min_tokens))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A number as short as it was written: 0.7 is not 0.699999988079071.
pub(in crate::backend::provider) fn short(value: f32) -> Value {
    value
        .to_string()
        .parse::<f64>()
        .map_or(Value::Null, Value::from)
}

fn message(message: &Message) -> Value {
    let mut made = json!({"role": message.role.as_str()});
    made["content"] = match &*message.content {
        [] if !message.tool_calls.is_empty() => Value::Null,
        [] => json!(""),
        [ContentPart::Text(text)] => json!(text),
        parts => parts.iter().map(part).collect(),
    };
    if !message.tool_calls.is_empty() {
        made["tool_calls"] = message.tool_calls.iter().map(tool_call).collect();
    }
    if let Some(id) = &message.tool_call_id {
        made["tool_call_id"] = json!(id);
    }
    made
}

fn part(part: &ContentPart) -> Value {
    let (url, detail) = match part {
        ContentPart::Text(text) => return json!({"type": "text", "text": text}),
        ContentPart::Image(Image::Url { url, detail }) => (url.clone(), detail),
        ContentPart::Image(Image::Data {
            media_type,
            base64,
            detail,
        }) => (format!("data:{media_type};base64,{base64}"), detail),
    };
    let mut image = json!({"url": url});
    if let Some(detail) = detail {
        image["detail"] = json!(detail);
    }
    json!({"type": "image_url", "image_url": image})
}

fn tool_call(call: &ToolCall) -> Value {
    json!({"id": call.id, "type": "function", "function": {
        "name": call.name,
        "arguments": call.arguments,
    }})
}

fn tool(tool: &Tool) -> Value {
    let mut function = json!({"name": tool.name});
    if let Some(description) = &tool.description {
        function["description"] = json!(description);
    }
    if let Some(parameters) = &tool.parameters {
        function["parameters"] = parameters.clone();
    }
    if let Some(strict) = tool.strict {
        function["strict"] = json!(strict);
    }
    json!({"type": "function", "function": function})
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!("auto"),
        ToolChoice::None => json!("none"),
        ToolChoice::Required => json!("required"),
        ToolChoice::Tool(name) => json!({"type": "function", "function": {"name": name}}),
    }
}
