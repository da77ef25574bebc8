//! The tools of a chat completion, and the form of its answer.

use serde_json::Value;

use super::request::required;
use crate::chat::{ResponseFormat, Tool, ToolChoice};
use crate::http::error::ApiError;
use crate::http::fields::{Fields, wrong_type};

/// Reads `tools`; absent is none.
///
/// Errors: 400, naming the field and its value; so for the others.
pub(super) fn parse_tools(fields: &Fields<'_>) -> Result<Vec<Tool>, ApiError> {
    let tools = fields.list("tools")?.unwrap_or_default();
    let tools = tools.iter().enumerate().map(|(i, tool)| {
        let path = format!("tools[{i}]");
        let tool = Fields::of(tool, &path)?;
        let kind = required(tool.str("type")?, &tool.name("type"), "the kind of tool")?;
        if kind != "function" {
            let name = tool.name("type");
            let message = format!("{name} is {kind:?}: only functions are supported");
            return Err(ApiError::unsupported(name, message));
        }
        let function_path = tool.name("function");
        let function = required(tool.get("function"), &function_path, "the function")?;
        let function = Fields::of(function, &function_path)?;
        let name = required(function.str("name")?, &function.name("name"), "its name")?;
        if let Some(parameters) = function.get("parameters")
            && !parameters.is_object()
        {
            let path = function.name("parameters");
            return Err(wrong_type(&path, "a JSON schema", parameters));
        }
        Ok(Tool {
            name: name.to_owned(),
            description: function.str("description")?.map(str::to_owned),
            parameters: function.get("parameters").cloned(),
            strict: function.bool("strict")?,
        })
    });
    tools.collect()
}

/// Reads `tool_choice`.
pub(super) fn parse_tool_choice(
    fields: &Fields<'_>,
    tools: &[Tool],
) -> Result<Option<ToolChoice>, ApiError> {
    let name = "tool_choice";
    let choice = match fields.get(name) {
        None => return Ok(None),
        Some(Value::String(choice)) => match &**choice {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            other => {
                let message =
                    format!("{name} is {other:?}: it must be auto, none, required or a function");
                return Err(ApiError::invalid(name, message));
            }
        },
        Some(choice) => {
            let choice = Fields::of(choice, name)?;
            let path = choice.name("function");
            let function = required(choice.get("function"), &path, "the function to call")?;
            let function = Fields::of(function, &path)?;
            let tool = required(function.str("name")?, &function.name("name"), "its name")?;
            ToolChoice::Tool(tool.to_owned())
        }
    };
    match &choice {
        // Without tools these say nothing.
        ToolChoice::Auto | ToolChoice::None if tools.is_empty() => Ok(None),
        ToolChoice::Tool(tool) if tools.iter().all(|known| known.name != *tool) => {
            let message =
                format!("{name} names the function {tool:?}, which is not among the tools");
            Err(ApiError::invalid(name, message))
        }
        ToolChoice::Required if tools.is_empty() => {
            let message = format!("{name} is \"required\" and there are no tools");
            Err(ApiError::invalid(name, message))
        }
        _ => Ok(Some(choice)),
    }
}

/// Reads `response_format`; text is what there is without it.
pub(super) fn parse_response_format(
    fields: &Fields<'_>,
) -> Result<Option<ResponseFormat>, ApiError> {
    let Some(format) = fields.get("response_format") else {
        return Ok(None);
    };
    let format = Fields::of(format, "response_format")?;
    let name = format.name("type");
    match required(format.str("type")?, &name, "the form of the answer")? {
        "text" => Ok(None),
        "json_object" => Ok(Some(ResponseFormat::JsonObject)),
        "json_schema" => {
            let path = format.name("json_schema");
            let schema = required(format.get("json_schema"), &path, "the schema")?;
            let object = Fields::of(schema, &path)?;
            required(
                object.get("schema"),
                &object.name("schema"),
                "the schema itself",
            )?;
            Ok(Some(ResponseFormat::JsonSchema(schema.clone())))
        }
        other => {
            let message =
                format!("{name} is {other:?}: it must be text, json_object or json_schema");
            Err(ApiError::invalid(name, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn choice(body: &Value) -> Result<Option<ToolChoice>, ApiError> {
        let fields = Fields::of(body, "").unwrap();
        let tools = parse_tools(&fields)?;
        parse_tool_choice(&fields, &tools)
    }

    #[test]
    fn tools_and_the_choice_among_them_are_read() {
        let tool = json!({"type": "function", "function": {
            "name": "now", "description": "the time", "parameters": {"type": "object"}, "strict": true}});
        let body = json!({"tools": [tool]});
        let tools = parse_tools(&Fields::of(&body, "").unwrap()).unwrap();
        assert_eq!(tools[0].name, "now");
        assert_eq!(tools[0].description.as_deref(), Some("the time"));
        assert_eq!(tools[0].parameters, Some(json!({"type": "object"})));
        assert_eq!(tools[0].strict, Some(true));
        for (asked, expected) in [
            (json!("auto"), Some(ToolChoice::Auto)),
            (json!("none"), Some(ToolChoice::None)),
            (json!("required"), Some(ToolChoice::Required)),
            (
                json!({"type": "function", "function": {"name": "now"}}),
                Some(ToolChoice::Tool("now".to_owned())),
            ),
            (Value::Null, None),
        ] {
            let body = json!({"tools": [tool], "tool_choice": asked});
            assert_eq!(choice(&body).unwrap(), expected);
        }
        assert_eq!(choice(&json!({"tool_choice": "auto"})).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (body, param) in [
            (
                json!({"tools": [{"type": "function"}]}),
                "tools[0].function",
            ),
            (json!({"tools": [{"type": "web"}]}), "tools[0].type"),
            (
                json!({"tools": [{"type": "function", "function": {"name": "a", "parameters": 5}}]}),
                "tools[0].function.parameters",
            ),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (json!({"tool_choice": "maybe"}), "tool_choice"),
            (
                json!({"tool_choice": {"type": "function", "function": {"name": "b"}}}),
                "tool_choice",
            ),
        ] {
            let error = choice(&body).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
        }
    }

    #[test]
    fn forms_of_answers_are_read() {
        let format = |value: Value| {
            let body = json!({"response_format": value});
            parse_response_format(&Fields::of(&body, "").unwrap())
        };
        assert_eq!(format(json!({"type": "text"})).unwrap(), None);
        let object = format(json!({"type": "json_object"})).unwrap();
        assert_eq!(object, Some(ResponseFormat::JsonObject));
        let schema = json!({"name": "a", "schema": {"type": "object"}});
        let read = format(json!({"type": "json_schema", "json_schema": schema})).unwrap();
        assert_eq!(read, Some(ResponseFormat::JsonSchema(schema)));
        for (wrong, param) in [
            (
                json!({"type": "json_schema"}),
                "response_format.json_schema",
            ),
            (json!({"type": "xml"}), "response_format.type"),
            (json!({}), "response_format.type"),
        ] {
            let error = format(wrong).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param));
        }
    }
}
