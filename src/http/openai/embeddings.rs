//! `POST /v1/embeddings`.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::request::required;
use crate::caller::Caller;
use crate::chat::TokenId;
use crate::embedding::{EmbedInput, EmbedRequest, Embeddings, Overlong};
use crate::http::AppState;
use crate::http::body::JsonBody;
use crate::http::error::ApiError;
use crate::http::fields::{Fields, shown, wrong_type};
use crate::http::measure::Clock;
use crate::http::route::{self, Route};

/// Inputs of one request at most.
const INPUTS_MOST: usize = 2048;
/// What `input` may be.
const INPUTS: &str = "a string, a list of strings, a list of token ids or a list of such lists";

/// Fields that would change the vectors and are not built: refused where they are set.
const NOT_BUILT: &[&str] = &[
    "input_type",
    "instruction",
    "late_chunking",
    "prompt_name",
    "task",
];

/// Answers a request for vectors.
pub(in crate::http) async fn embeddings(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let (request, format) = parse(&body)?;
    let meta = route::meta(&body, &headers, caller, false)?;
    drop(body);
    let model = request.model.clone();
    // One label however the client called it.
    let id = state.backend.pool().canonical(&model);
    let mut clock = Clock::new(id.as_ref().map_or("", |id| id.as_str()));
    let made = state.router.embed(request, meta).await;
    clock.end(if made.is_ok() { "finished" } else { "failed" });
    let made = made.map_err(|error| ApiError::from(error).about("messages", "input"))?;
    clock.by(&made.target);
    let route = Route::of_vectors(&made);
    let list = List::new(&made.embeddings, model, format);
    Ok(route.onto(Json(list).into_response()))
}

/// How numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Float,
    Base64,
}

fn parse(body: &Value) -> Result<(EmbedRequest, Format), ApiError> {
    let fields = Fields::of(body, "")?;
    if let Some(name) = NOT_BUILT.iter().find(|name| fields.get(name).is_some()) {
        return Err(ApiError::unsupported(
            *name,
            format!("{name} is not supported"),
        ));
    }
    let model = required(fields.str("model")?, "model", "the name of a model")?;
    let inputs = parse_inputs(required(fields.get("input"), "input", INPUTS)?)?;
    let format = match fields.str("encoding_format")? {
        None | Some("float") => Format::Float,
        Some("base64") => Format::Base64,
        Some(other) => {
            let message = format!("encoding_format is {other:?}: it must be float or base64");
            return Err(ApiError::invalid("encoding_format", message));
        }
    };
    // vLLM's word for it, which another Ingle says too.
    let is_cut = match fields.get("truncate_prompt_tokens").and_then(Value::as_i64) {
        Some(-1) => true,
        None if fields.get("truncate_prompt_tokens").is_none() => false,
        _ => {
            let message = "truncate_prompt_tokens must be -1: as many tokens as the model takes";
            return Err(ApiError::unsupported("truncate_prompt_tokens", message));
        }
    };
    let overlong = if fields.bool("truncate")?.unwrap_or(is_cut) {
        Overlong::Truncate
    } else {
        Overlong::Refuse
    };
    // Whom it is for changes nothing.
    fields.str("user")?;
    let request = EmbedRequest {
        model: model.to_owned(),
        inputs,
        overlong,
        dimensions: fields.u32("dimensions", 1)?,
        keep_alive: fields.keep_alive("keep_alive")?,
    };
    Ok((request, format))
}

fn parse_inputs(value: &Value) -> Result<Vec<EmbedInput>, ApiError> {
    let list = match value {
        Value::String(text) => return Ok(vec![text_input(text, "input")?]),
        Value::Array(list) => list,
        other => return Err(wrong_type("input", INPUTS, other)),
    };
    // A flat list of numbers is one input.
    if list.first().is_some_and(Value::is_number) {
        return Ok(vec![token_input(list, "input")?]);
    }
    let n_inputs = list.len();
    if !(1..=INPUTS_MOST).contains(&n_inputs) {
        let message = format!("input holds {n_inputs} inputs: it must hold 1 to {INPUTS_MOST}");
        return Err(ApiError::invalid("input", message));
    }
    let input = |(index, value): (usize, &Value)| {
        let name = format!("input[{index}]");
        match value {
            Value::String(text) => text_input(text, &name),
            Value::Array(ids) => token_input(ids, &name),
            other => Err(wrong_type(&name, "a string or a list of token ids", other)),
        }
    };
    list.iter().enumerate().map(input).collect()
}

fn text_input(text: &str, name: &str) -> Result<EmbedInput, ApiError> {
    if text.is_empty() {
        let message = format!("{name} is an empty string: it has no vector");
        return Err(ApiError::invalid(name, message));
    }
    Ok(EmbedInput::Text(text.to_owned()))
}

fn token_input(ids: &[Value], name: &str) -> Result<EmbedInput, ApiError> {
    if ids.is_empty() {
        let message = format!("{name} is an empty list: it has no vector");
        return Err(ApiError::invalid(name, message));
    }
    let id = |(index, value): (usize, &Value)| {
        let id = value.as_u64().and_then(|id| TokenId::try_from(id).ok());
        id.ok_or_else(|| {
            let name = format!("{name}[{index}]");
            let message = format!("{name} is {}: it must be a token id", shown(value));
            ApiError::invalid(name, message)
        })
    };
    let ids = ids.iter().enumerate().map(id).collect::<Result<_, _>>()?;
    Ok(EmbedInput::Tokens(ids))
}

/// The answer.
#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Item<'a>>,
    model: String,
    usage: Usage,
}

#[derive(Serialize)]
struct Item<'a> {
    object: &'static str,
    index: usize,
    embedding: Numbers<'a>,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// A vector as it is written: in as few digits as say the same number, or as bytes, the lowest first.
struct Numbers<'a> {
    vector: &'a [f32],
    format: Format,
}

impl Serialize for Numbers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.format {
            Format::Float => self.vector.serialize(serializer),
            Format::Base64 => {
                let numbers = self.vector.iter();
                let bytes: Vec<u8> = numbers.flat_map(|number| number.to_le_bytes()).collect();
                serializer.serialize_str(&STANDARD.encode(bytes))
            }
        }
    }
}

impl<'a> List<'a> {
    fn new(made: &'a Embeddings, model: String, format: Format) -> Self {
        let item = |(index, vector): (usize, &'a Vec<f32>)| Item {
            object: "embedding",
            index,
            embedding: Numbers { vector, format },
        };
        Self {
            object: "list",
            data: made.vectors.iter().enumerate().map(item).collect(),
            model,
            usage: Usage {
                prompt_tokens: made.n_tokens,
                total_tokens: made.n_tokens,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn inputs(value: &Value) -> Vec<EmbedInput> {
        let body = json!({"model": "m", "input": value});
        parse(&body).unwrap().0.inputs
    }

    fn text(text: &str) -> EmbedInput {
        EmbedInput::Text(text.to_owned())
    }

    #[test]
    fn all_forms_of_input_are_read() {
        assert_eq!(inputs(&json!("a")), [text("a")]);
        assert_eq!(inputs(&json!(["a", "b"])), [text("a"), text("b")]);
        assert_eq!(inputs(&json!([1, 2])), [EmbedInput::Tokens(vec![1, 2])]);
        let mixed = [EmbedInput::Tokens(vec![3]), text("b")];
        assert_eq!(inputs(&json!([[3], "b"])), mixed);
        let (request, format) = parse(&json!({
            "model": "m", "input": "a", "encoding_format": "base64", "dimensions": 3,
            "user": "u", "truncate": true,
        }))
        .unwrap();
        assert_eq!(format, Format::Base64);
        assert_eq!(
            (request.dimensions, request.overlong),
            (Some(3), Overlong::Truncate)
        );
    }

    #[test]
    fn what_cannot_be_is_named() {
        let cases = [
            (json!({"input": "a"}), "model is missing"),
            (json!({"model": "m"}), "input is missing"),
            (
                json!({"model": "m", "input": ""}),
                "input is an empty string",
            ),
            (
                json!({"model": "m", "input": ["a", ""]}),
                "input[1] is an empty string",
            ),
            (json!({"model": "m", "input": []}), "input holds 0 inputs"),
            (
                json!({"model": "m", "input": [[]]}),
                "input[0] is an empty list",
            ),
            (
                json!({"model": "m", "input": vec!["a"; 2049]}),
                "input holds 2049 inputs",
            ),
            (json!({"model": "m", "input": 7}), "input must be a string"),
            (json!({"model": "m", "input": [1, -2]}), "input[1] is -2"),
            (
                json!({"model": "m", "input": [[1, 1.5]]}),
                "input[0][1] is 1.5",
            ),
            (
                json!({"model": "m", "input": [1, "a"]}),
                "input[1] is the string \"a\"",
            ),
            (
                json!({"model": "m", "input": ["a", 1]}),
                "input[1] must be a string or",
            ),
            (
                json!({"model": "m", "input": "a", "encoding_format": "int8"}),
                "it must be float or base64",
            ),
            (
                json!({"model": "m", "input": "a", "dimensions": 0}),
                "dimensions is 0",
            ),
            (
                json!({"model": "m", "input": "a", "input_type": "query"}),
                "input_type is not supported",
            ),
            (
                json!({"model": "m", "input": "a", "user": 3}),
                "user must be a string",
            ),
        ];
        for (body, expected) in cases {
            let error = parse(&body).unwrap_err();
            assert!(
                error.message.contains(expected),
                "{body}: {}",
                error.message
            );
            assert_eq!(error.status, axum::http::StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn numbers_are_short_in_text_and_whole_in_bytes() {
        let made = Embeddings {
            vectors: vec![vec![0.1, -1.0]],
            n_tokens: 3,
            cost: None,
        };
        let written = |format| {
            serde_json::to_string(&List::new(&made, "m".to_owned(), format).data[0].embedding)
                .unwrap()
        };
        assert_eq!(written(Format::Float), "[0.1,-1.0]");
        assert_eq!(written(Format::Base64), "\"zczMPQAAgL8=\"");
    }
}
