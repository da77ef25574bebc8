//! What the tools take and give, as JSON schemas.

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

/// Every tool.
pub(super) fn tools() -> Vec<Tool> {
    let look = ToolAnnotations::new().read_only(true).open_world(false);
    let change = ToolAnnotations::new()
        .read_only(false)
        .destructive(false)
        .idempotent(true);
    vec![
        tool(
            "list_models",
            "List available local models",
            &json!({}),
            &[],
        )
        .with_title("List models")
        .with_raw_output_schema(models())
        .with_annotations(look.clone()),
        tool(
            "load_model",
            "Load a model into memory",
            &json!({"model": name(), "keep_alive": keep_alive()}),
            &["model"],
        )
        .with_title("Load a model")
        .with_raw_output_schema(loaded())
        // One that is not here is fetched.
        .with_annotations(change.clone().open_world(true)),
        tool(
            "unload_model",
            "Unload model to free memory",
            &json!({"model": name()}),
            &["model"],
        )
        .with_title("Unload a model")
        .with_raw_output_schema(unloaded())
        .with_annotations(change.clone().open_world(false)),
        tool(
            "model_info",
            "Get model capabilities and requirements",
            &json!({"model": name()}),
            &["model"],
        )
        .with_title("Describe a model")
        .with_raw_output_schema(described())
        .with_annotations(look),
        tool(
            "pull_model",
            "Download a model's file without loading it",
            &json!({"model": name()}),
            &["model"],
        )
        .with_title("Download a model")
        .with_raw_output_schema(pulled())
        .with_annotations(change.open_world(true)),
    ]
}

fn tool(
    name: &'static str,
    description: &'static str,
    properties: &Value,
    required: &[&str],
) -> Tool {
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    Tool::new(name, description, object(schema))
}

fn object(value: Value) -> Arc<JsonObject> {
    match value {
        Value::Object(object) => Arc::new(object),
        _ => Arc::default(),
    }
}

fn name() -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "description": "The id or an alias of a model, as list_models gives them",
    })
}

fn keep_alive() -> Value {
    json!({
        "type": ["string", "number"],
        "description": "How long it stays in memory once nobody uses it: seconds, or a time such as \
                        \"10m\"; 0 unloads it at once, -1 keeps it for ever",
    })
}

/// Bytes of the host and of a GPU.
fn bytes() -> Value {
    let count = json!({"type": "integer", "minimum": 0});
    json!({
        "type": "object",
        "properties": {"host_bytes": count, "device_bytes": count},
        "required": ["host_bytes", "device_bytes"],
    })
}

fn state() -> Value {
    json!({"type": "string", "description": "absent, fetching, queued, loading, ready, draining or failed"})
}

fn texts() -> Value {
    json!({"type": "array", "items": {"type": "string"}})
}

fn models() -> Arc<JsonObject> {
    let model = json!({
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "aliases": texts(),
            "source": {"type": ["string", "null"]},
            "file": {"type": ["object", "null"], "description": "null where it is not here yet"},
            "state": state(),
        },
        "required": ["id", "aliases", "source", "file", "state"],
    });
    object(json!({
        "type": "object",
        "properties": {
            "models": {"type": "array", "items": model},
            "memory": {
                "type": "object",
                "properties": {"held": bytes(), "budget": bytes()},
                "required": ["held", "budget"],
            },
        },
        "required": ["models", "memory"],
    }))
}

fn loaded() -> Arc<JsonObject> {
    object(json!({
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "stage": {"type": "string"},
            "context": {"type": "integer", "description": "Tokens of one conversation at most"},
            "memory": bytes(),
            "load_seconds": {"type": "number"},
        },
        "required": ["model", "stage", "context", "memory", "load_seconds"],
    }))
}

fn unloaded() -> Arc<JsonObject> {
    object(json!({
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "unloaded": {"type": "boolean", "description": "false where it was not in memory"},
        },
        "required": ["model", "unloaded"],
    }))
}

fn described() -> Arc<JsonObject> {
    let requirement = json!({
        "type": "object",
        "properties": {
            "context": {"type": "integer", "description": "Tokens"},
            "memory": bytes(),
            "fits": {"type": "boolean", "description": "Whether all models may hold so much"},
        },
        "required": ["context", "memory", "fits"],
    });
    object(json!({
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "aliases": texts(),
            "sources": texts(),
            "license": {"type": ["string", "null"]},
            "file": {
                "type": ["object", "null"],
                "description": "What it is; null where it is not here yet",
            },
            "requirements": {
                "type": "array",
                "items": requirement,
                "description": "The memory it asks for, by context and form of its cache",
            },
            "state": state(),
        },
        "required": ["id", "state"],
    }))
}

fn pulled() -> Arc<JsonObject> {
    object(json!({
        "type": "object",
        "properties": {"model": {"type": "string"}, "path": {"type": "string"}},
        "required": ["model", "path"],
    }))
}
