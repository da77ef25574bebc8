//! The messages of a chat completion.

use serde_json::Value;

use super::request::required;
use crate::chat::{ContentPart, Image, Message, Role, ToolCall};
use crate::http::error::ApiError;
use crate::http::fields::{Fields, wrong_type};

/// Reads message `i`.
///
/// Errors: 400, naming the field and its value.
pub(super) fn parse_message(i: usize, value: &Value) -> Result<Message, ApiError> {
    let path = format!("messages[{i}]");
    let fields = Fields::of(value, &path)?;
    let role = parse_role(&fields)?;
    for key in ["function_call", "audio"] {
        if fields.get(key).is_some() {
            let name = fields.name(key);
            let message = format!("{name} is not supported");
            return Err(ApiError::unsupported(name, message));
        }
    }
    let tool_calls = parse_tool_calls(&fields, role)?;
    let tool_call_id = fields.str("tool_call_id")?.map(str::to_owned);
    if role == Role::Tool && tool_call_id.is_none() {
        let name = fields.name("tool_call_id");
        return required(None, &name, "the id of the call this is the result of");
    }
    let content = match fields.get("content") {
        // An answer without text is an empty one.
        None if role == Role::Assistant => Vec::new(),
        None => return required(None, &fields.name("content"), "what is said"),
        Some(Value::String(text)) => vec![ContentPart::Text(text.clone())],
        Some(Value::Array(parts)) => {
            let parts = parts.iter().enumerate();
            let path = fields.name("content");
            parts
                .map(|(i, part)| parse_part(&format!("{path}[{i}]"), part))
                .collect::<Result<_, _>>()?
        }
        Some(other) => {
            let name = fields.name("content");
            return Err(wrong_type(&name, "a string or a list of parts", other));
        }
    };
    Ok(Message {
        role,
        content,
        tool_calls,
        tool_call_id,
    })
}

fn parse_role(fields: &Fields<'_>) -> Result<Role, ApiError> {
    let name = fields.name("role");
    match required(fields.str("role")?, &name, "who says the message")? {
        "system" | "developer" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" => Ok(Role::Tool),
        other => {
            let roles = "system, developer, user, assistant or tool";
            let message = format!("{name} is {other:?}: it must be {roles}");
            Err(ApiError::invalid(name, message))
        }
    }
}

fn parse_tool_calls(fields: &Fields<'_>, role: Role) -> Result<Vec<ToolCall>, ApiError> {
    let name = fields.name("tool_calls");
    let calls = fields.list("tool_calls")?.unwrap_or_default();
    if !calls.is_empty() && role != Role::Assistant {
        let message = format!("{name} stands in a message that is not the assistant's");
        return Err(ApiError::invalid(name, message));
    }
    let calls = calls.iter().enumerate().map(|(i, call)| {
        let path = format!("{name}[{i}]");
        let call = Fields::of(call, &path)?;
        let id = required(call.str("id")?, &call.name("id"), "the id of the call")?;
        let function_path = call.name("function");
        let function = required(call.get("function"), &function_path, "what is called")?;
        let function = Fields::of(function, &function_path)?;
        let tool = required(function.str("name")?, &function.name("name"), "the tool")?;
        Ok(ToolCall {
            id: id.to_owned(),
            name: tool.to_owned(),
            arguments: function.str("arguments")?.unwrap_or_default().to_owned(),
        })
    });
    calls.collect()
}

fn parse_part(path: &str, value: &Value) -> Result<ContentPart, ApiError> {
    let fields = Fields::of(value, path)?;
    let name = fields.name("type");
    match required(fields.str("type")?, &name, "the kind of part")? {
        "text" | "input_text" => {
            let name = fields.name("text");
            let text = required(fields.str("text")?, &name, "the part's text")?;
            Ok(ContentPart::Text(text.to_owned()))
        }
        "image_url" => parse_image(&fields).map(ContentPart::Image),
        other => {
            let message = format!("{name} is {other:?}: there are text and image_url parts");
            Err(ApiError::unsupported(name, message))
        }
    }
}

fn parse_image(fields: &Fields<'_>) -> Result<Image, ApiError> {
    let name = fields.name("image_url");
    let image = required(fields.get("image_url"), &name, "where the picture is")?;
    let (url, detail) = if let Value::String(url) = image {
        (url.as_str(), None)
    } else {
        let image = Fields::of(image, &name)?;
        let url = required(
            image.str("url")?,
            &image.name("url"),
            "where the picture is",
        )?;
        (url, image.str("detail")?.map(str::to_owned))
    };
    if let Some(data) = url.strip_prefix("data:") {
        let Some((media_type, base64)) = data.split_once(";base64,") else {
            let message =
                format!("{name} is a data URL without ;base64,: write the picture in base64");
            return Err(ApiError::invalid(name, message));
        };
        return Ok(Image::Data {
            media_type: media_type.to_owned(),
            base64: base64.to_owned(),
            detail,
        });
    }
    if !(url.starts_with("https://") || url.starts_with("http://")) {
        let message = format!("{name} is neither a data URL nor one of http or https");
        return Err(ApiError::invalid(name, message));
    }
    Ok(Image::Url {
        url: url.to_owned(),
        detail,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_and_their_results_are_read() {
        let asked = json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]});
        let asked = parse_message(0, &asked).unwrap();
        let call = ToolCall {
            id: "call_1".to_owned(),
            name: "now".to_owned(),
            arguments: "{}".to_owned(),
        };
        assert_eq!(asked.tool_calls, [call]);
        let result = json!({"role": "tool", "tool_call_id": "call_1", "content": "noon"});
        let result = parse_message(1, &result).unwrap();
        assert_eq!(result.tool_call_id.as_deref(), Some("call_1"));
        assert_eq!(result.to_text(), "noon");
    }

    #[test]
    fn pictures_are_read_in_both_forms() {
        let parts = json!({"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            {"type": "image_url", "image_url": "https://example.com/a.jpg"}]});
        let content = parse_message(0, &parts).unwrap().content;
        let data = Image::Data {
            media_type: "image/png".to_owned(),
            base64: "AAAA".to_owned(),
            detail: Some("low".to_owned()),
        };
        let url = Image::Url {
            url: "https://example.com/a.jpg".to_owned(),
            detail: None,
        };
        assert_eq!(content, [ContentPart::Image(data), ContentPart::Image(url)]);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let user = |part: Value| json!({"role": "user", "content": [part]});
        for (message, param) in [
            (
                json!({"role": "tool", "content": "x"}),
                "messages[0].tool_call_id",
            ),
            (
                json!({"role": "user", "content": "x", "tool_calls": [{}]}),
                "messages[0].tool_calls",
            ),
            (
                json!({"role": "assistant", "tool_calls": [{"id": "x"}]}),
                "messages[0].tool_calls[0].function",
            ),
            (
                user(json!({"type": "video"})),
                "messages[0].content[0].type",
            ),
            (
                user(json!({"type": "image_url"})),
                "messages[0].content[0].image_url",
            ),
            (
                user(json!({"type": "image_url", "image_url": "file:///etc/passwd"})),
                "messages[0].content[0].image_url",
            ),
            (
                user(json!({"type": "image_url", "image_url": "data:image/png,AAAA"})),
                "messages[0].content[0].image_url",
            ),
        ] {
            let error = parse_message(0, &message).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{message}");
        }
    }
}
