//! The models as resources: the list at `ingle://models`, each at `ingle://models/{id}`.

use std::fmt::Write;

use rmcp::ErrorData;
use rmcp::model::{Resource, ResourceContents, ResourceTemplate};

use crate::http::admin::models;
use crate::pool::{ModelEntry, Pool, PoolError};

const LIST: &str = "ingle://models";
const JSON: &str = "application/json";

/// The list, and the models whose files are here.
pub(super) async fn list(pool: &Pool) -> Vec<Resource> {
    let mut resources = vec![
        Resource::new(LIST, "models")
            .with_title("Local models")
            .with_description("Every model there is, where it stands, and the memory models hold")
            .with_mime_type(JSON),
    ];
    resources.extend(pool.models().await.iter().filter_map(resource));
    resources
}

fn resource(model: &ModelEntry) -> Option<Resource> {
    model.file.as_ref()?;
    let id = model.id.as_str();
    let resource = Resource::new(format!("{LIST}/{}", encoded(id)), id)
        .with_description(format!(
            "What {id} is, what it asks of this machine, and where it stands"
        ))
        .with_mime_type(JSON);
    Some(resource)
}

pub(super) fn template() -> ResourceTemplate {
    ResourceTemplate::new(format!("{LIST}/{{id}}"), "model")
        .with_title("A local model")
        .with_description("What a model is, what it asks of this machine, and where it stands")
        .with_mime_type(JSON)
}

/// Reads the resource at `uri`.
///
/// Errors: there is none; its file is no model that can be loaded.
pub(super) async fn read(pool: &Pool, uri: &str) -> Result<ResourceContents, ErrorData> {
    let none = |reason: &dyn std::fmt::Display| {
        ErrorData::resource_not_found(format!("there is no resource {uri}: {reason}"), None)
    };
    let value = if uri == LIST {
        models::all(pool).await
    } else {
        let id = uri
            .strip_prefix(LIST)
            .and_then(|rest| rest.strip_prefix('/'));
        let id = id.and_then(decoded);
        let id = id.ok_or_else(|| none(&"resources/list names those there are"))?;
        match models::described(pool, &id).await {
            Ok(value) => value,
            Err(error @ PoolError::UnknownModel { .. }) => return Err(none(&error)),
            Err(error) => return Err(ErrorData::internal_error(error.to_string(), None)),
        }
    };
    Ok(ResourceContents::text(value.to_string(), uri).with_mime_type(JSON))
}

/// A name as a part of a URI.
fn encoded(name: &str) -> String {
    let mut part = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            part.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(part, "%{byte:02X}");
        }
    }
    part
}

/// The name that a part of a URI stands for.
fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let mut byte = [0];
            hex::decode_to_slice(after.get(..2)?, &mut byte).ok()?;
            bytes.extend(byte);
            rest = after.get(2..)?;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back_from_its_uri() {
        for name in ["tiny", "llama3.1:8b", "a b/c%d", "häuslich", ""] {
            assert_eq!(decoded(&encoded(name)).as_deref(), Some(name));
        }
        for part in ["%", "%4", "%zz", "%ff", "a%"] {
            assert_eq!(decoded(part), None, "{part}");
        }
    }
}
