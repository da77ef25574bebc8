//! A chat completion as OpenAI's clients ask for it, made into the domain's [`ChatRequest`].

use serde_json::Value;

use super::message::parse_message;
use super::tools::{parse_response_format, parse_tool_choice, parse_tools};
use crate::chat::{ChatRequest, EXTRA_FIELDS, Message, Role, Sampling};
use crate::http::error::ApiError;
use crate::http::fields::{Fields, shown, wrong_type};

/// The request and how the answer is to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ChatCompletion {
    pub(super) chat: ChatRequest,
    pub(super) stream: bool,
    /// Whether a stream ends with what it took.
    pub(super) include_usage: bool,
}

/// Fields that would change the answer and are not built: refused unless they ask for nothing.
const NOT_BUILT: &[&str] = &[
    "allowed_token_ids",
    "audio",
    "bad_words",
    "chat_template",
    "chat_template_kwargs",
    "dry_multiplier",
    "function_call",
    "functions",
    "grammar",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "json_schema",
    "logit_bias",
    "logprobs",
    "mirostat",
    "prompt_logprobs",
    "stop_token_ids",
    "structured_outputs",
    "top_logprobs",
    "typical_p",
    "use_beam_search",
    "web_search_options",
    "xtc_probability",
];

impl ChatCompletion {
    /// Reads a request.
    ///
    /// Errors: 400, naming the field and its value.
    pub(super) fn parse(body: &Value) -> Result<Self, ApiError> {
        let fields = Fields::of(body, "")?;
        refuse_what_is_not_built(&fields)?;
        let model = required(fields.str("model")?, "model", "the name of a model")?;
        let messages = required(fields.list("messages")?, "messages", "the conversation")?;
        if messages.is_empty() {
            let message = "messages is empty: it needs at least one message";
            return Err(ApiError::invalid("messages", message));
        }
        let messages = (0..)
            .zip(messages)
            .map(|(i, message)| parse_message(i, message));
        let stream_options = fields.get("stream_options");
        let include_usage = match stream_options {
            Some(options) => Fields::of(options, "stream_options")?.bool("include_usage")?,
            None => None,
        };
        let max_new_tokens = match fields.u32("max_completion_tokens", 0)? {
            Some(n) => Some(n),
            None => fields.u32("max_tokens", 0)?,
        };
        let tools = parse_tools(&fields)?;
        let messages: Vec<Message> = messages.collect::<Result<_, _>>()?;
        let continue_final = fields.bool("continue_final_message")?.unwrap_or(false);
        if continue_final
            && messages
                .last()
                .is_none_or(|last| last.role != Role::Assistant)
        {
            let name = "continue_final_message";
            let message = format!("{name} is true and the last message is not the assistant's");
            return Err(ApiError::invalid(name, message));
        }
        Ok(Self {
            chat: ChatRequest {
                model: model.to_owned(),
                messages,
                continue_final,
                sampling: parse_sampling(&fields)?,
                max_new_tokens,
                stop: parse_stop(&fields)?,
                keep_alive: fields.keep_alive("keep_alive")?,
                tool_choice: parse_tool_choice(&fields, &tools)?,
                tools,
                parallel_tool_calls: fields.bool("parallel_tool_calls")?,
                response_format: parse_response_format(&fields)?,
                extra: passed_on(&fields),
            },
            stream: fields.bool("stream")?.unwrap_or(false),
            include_usage: include_usage.unwrap_or(false),
        })
    }
}

pub(in crate::http) fn required<T>(
    value: Option<T>,
    name: &str,
    meaning: &str,
) -> Result<T, ApiError> {
    value.ok_or_else(|| ApiError {
        code: Some("missing_required_parameter"),
        ..ApiError::invalid(name, format!("{name} is missing: it is {meaning}"))
    })
}

fn passed_on(fields: &Fields<'_>) -> serde_json::Map<String, Value> {
    let known = EXTRA_FIELDS.iter().filter_map(|name| {
        let value = fields.get(name)?;
        Some(((*name).to_owned(), value.clone()))
    });
    known.collect()
}

fn parse_sampling(fields: &Fields<'_>) -> Result<Sampling, ApiError> {
    let neutral = Sampling::default();
    let penalty = |name| fields.float(name, -2.0, 2.0);
    let repetition_penalty = match fields.float("repetition_penalty", 0.01, 100.0)? {
        Some(penalty) => Some(penalty),
        // llama.cpp's name for it.
        None => fields.float("repeat_penalty", 0.01, 100.0)?,
    };
    Ok(Sampling {
        temperature: fields.float("temperature", 0.0, 2.0)?,
        top_k: fields.u32("top_k", 0)?.filter(|k| *k > 0),
        top_p: fields.float("top_p", 0.0, 1.0)?.unwrap_or(neutral.top_p),
        min_p: fields.float("min_p", 0.0, 1.0)?.unwrap_or(neutral.min_p),
        repetition_penalty: repetition_penalty.unwrap_or(neutral.repetition_penalty),
        presence_penalty: penalty("presence_penalty")?.unwrap_or(0.0),
        frequency_penalty: penalty("frequency_penalty")?.unwrap_or(0.0),
        seed: fields.seed("seed")?,
        ignore_eos: fields.bool("ignore_eos")?.unwrap_or(false),
        min_tokens: fields.u32("min_tokens", 0)?.unwrap_or(0),
    })
}

fn parse_stop(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let texts = match fields.get("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => return Ok(vec![text.clone()]),
        Some(Value::Array(texts)) => texts,
        Some(other) => return Err(wrong_type("stop", "a string or a list of strings", other)),
    };
    let text = |(i, text): (usize, &Value)| match text {
        Value::String(text) => Ok(text.clone()),
        other => Err(wrong_type(&format!("stop[{i}]"), "a string", other)),
    };
    texts.iter().enumerate().map(text).collect()
}

/// Whether a value leaves everything as it is without the field.
fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::String(_) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(values) => values.is_empty(),
        // As in `{"50256": 0}`.
        Value::Object(object) => object.values().all(asks_for_nothing),
    }
}

fn refuse_what_is_not_built(fields: &Fields<'_>) -> Result<(), ApiError> {
    let refuse = |name: &str, value: &Value| {
        let message = format!("{name} is not supported yet (it is {})", shown(value));
        Err(ApiError::unsupported(name, message))
    };
    for name in fields.keys().filter(|name| NOT_BUILT.contains(name)) {
        match fields.get(name) {
            Some(value) if !asks_for_nothing(value) => return refuse(name, value),
            _ => {}
        }
    }
    for name in ["n", "best_of"] {
        if let Some(n) = fields.u32(name, 1)?
            && n != 1
        {
            return refuse(name, &Value::from(n));
        }
    }
    if let Some(modalities) = fields.list("modalities")?
        && let Some(other) = modalities.iter().find(|kind| kind.as_str() != Some("text"))
    {
        return refuse("modalities", other);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(more: &Value) -> Result<ChatCompletion, ApiError> {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        ChatCompletion::parse(&body)
    }

    #[test]
    fn absent_and_null_fields_are_openais_defaults() {
        let plain = parse(&json!({})).unwrap();
        assert_eq!(plain.chat.model, "m");
        assert_eq!(plain.chat.messages, [Message::text(Role::User, "hello")]);
        assert_eq!(plain.chat.sampling, Sampling::default());
        assert_eq!((plain.stream, plain.include_usage), (false, false));
        let nulls = json!({"temperature": null, "stop": null, "seed": null, "stream": null,
            "stream_options": null, "tools": null, "response_format": null, "max_tokens": null});
        assert_eq!(parse(&nulls).unwrap(), plain);
    }

    #[test]
    fn every_field_that_is_built_arrives() {
        let parsed = parse(&json!({
            "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": -1,
            "repetition_penalty": 1.1, "presence_penalty": -1, "frequency_penalty": 2,
            "ignore_eos": true, "min_tokens": 3, "max_tokens": 5, "max_completion_tokens": 7.0,
            "stop": ["a", "b"], "stream": true, "stream_options": {"include_usage": true},
        }))
        .unwrap();
        let sampling = Sampling {
            temperature: Some(0.5),
            top_k: Some(40),
            top_p: 0.9,
            min_p: 0.1,
            repetition_penalty: 1.1,
            presence_penalty: -1.0,
            frequency_penalty: 2.0,
            seed: Some(u64::MAX),
            ignore_eos: true,
            min_tokens: 3,
        };
        assert_eq!(parsed.chat.sampling, sampling);
        assert_eq!(parsed.chat.max_new_tokens, Some(7));
        assert_eq!(parsed.chat.stop, ["a", "b"]);
        assert!(parsed.stream && parsed.include_usage);
        assert_eq!(parse(&json!({"stop": "x"})).unwrap().chat.stop, ["x"]);
    }

    #[test]
    fn messages_in_every_form() {
        let parsed = parse(&json!({"messages": [
            {"role": "developer", "content": "be brief", "name": "boss"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "tool_calls": []},
        ]}))
        .unwrap();
        let roles: Vec<Role> = parsed.chat.messages.iter().map(|m| m.role).collect();
        assert_eq!(roles, [Role::System, Role::User, Role::Assistant]);
        let texts: Vec<String> = parsed.chat.messages.iter().map(Message::to_text).collect();
        assert_eq!(texts, ["be brief", "ab", ""]);
    }

    /// Every case is a 400 that names the field and says the words.
    fn assert_refused(cases: &[(Value, &str, &str)]) {
        for (more, param, sentence) in cases {
            let error = parse(more).unwrap_err();
            assert_eq!(error.status, 400, "{more}");
            assert_eq!(error.param.as_deref(), Some(*param), "{more}");
            let message = error.message;
            assert!(message.contains(sentence), "{more}: {message}");
        }
    }

    #[test]
    fn wrong_values_are_named() {
        assert_refused(&[
            (
                json!({"temperature": "hot"}),
                "temperature",
                "not the string \"hot\"",
            ),
            (
                json!({"temperature": -1}),
                "temperature",
                "is -1: it must be between 0 and 2",
            ),
            (json!({"temperature": 2.5}), "temperature", "is 2.5"),
            (json!({"top_p": 1.5}), "top_p", "is 1.5"),
            (json!({"max_tokens": -5}), "max_tokens", "is -5"),
            (
                json!({"max_tokens": 1.5}),
                "max_tokens",
                "a whole number, not 1.5",
            ),
            (json!({"max_tokens": 5e9}), "max_tokens", "is 5000000000"),
            (json!({"seed": 1.5}), "seed", "not 1.5"),
            (json!({"stream": "yes"}), "stream", "true or false"),
            (
                json!({"stop": 5}),
                "stop",
                "a string or a list of strings, not 5",
            ),
            (json!({"stop": ["a", null]}), "stop[1]", "not null"),
            (
                json!({"stream_options": 1}),
                "stream_options",
                "an object, not 1",
            ),
            (json!({"model": 5}), "model", "a string, not 5"),
            (json!({"model": null}), "model", "is missing"),
        ]);
    }

    #[test]
    fn what_is_no_conversation_is_named() {
        assert_refused(&[
            (
                json!({"messages": "hi"}),
                "messages",
                "a list, not the string \"hi\"",
            ),
            (json!({"messages": []}), "messages", "is empty"),
            (json!({"messages": ["hi"]}), "messages[0]", "an object"),
            (
                json!({"messages": [{"content": "x"}]}),
                "messages[0].role",
                "is missing",
            ),
            (
                json!({"messages": [{"role": "god", "content": "x"}]}),
                "messages[0].role",
                "\"god\"",
            ),
            (
                json!({"messages": [{"role": "user"}]}),
                "messages[0].content",
                "is missing",
            ),
            (
                json!({"messages": [{"role": "user", "content": 5}]}),
                "messages[0].content",
                "not 5",
            ),
        ]);
        for body in [json!([]), json!("x"), json!(null)] {
            let error = ChatCompletion::parse(&body).unwrap_err();
            assert!(
                error.message.contains("must be a JSON object"),
                "{}",
                error.message
            );
        }
    }

    #[test]
    fn what_is_not_built_is_refused_by_name_and_what_is_harmless_is_not() {
        let cases = [
            (json!({"n": 2}), "n"),
            (json!({"logprobs": true}), "logprobs"),
            (json!({"top_logprobs": 3}), "top_logprobs"),
            (json!({"logit_bias": {"5": 10}}), "logit_bias"),
            (json!({"modalities": ["text", "audio"]}), "modalities"),
            (json!({"grammar": "root ::= x"}), "grammar"),
        ];
        for (more, param) in cases {
            let error = parse(&more).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{more}");
            assert_eq!(error.code, Some("unsupported_parameter"), "{more}");
            assert!(error.message.contains(param), "{}", error.message);
        }
        let harmless = json!({"n": 1, "tools": [], "tool_choice": "auto", "logprobs": false,
            "top_logprobs": 0, "logit_bias": {"5": 0}, "response_format": {"type": "text"},
            "modalities": ["text"], "something_new": [1, 2]});
        assert_eq!(parse(&harmless).unwrap(), parse(&json!({})).unwrap());
    }

    #[test]
    fn what_only_providers_understand_is_passed_on() {
        let parsed = parse(&json!({"user": "u", "reasoning_effort": "low", "store": null}));
        let extra = Value::Object(parsed.unwrap().chat.extra);
        assert_eq!(extra, json!({"reasoning_effort": "low", "user": "u"}));
    }
}
