//! The small JSON files of a model's folder, read key by key: a wrong value is named with its key.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value};

use crate::gguf;
use crate::model::error::Error;

/// The longest of them. Units: bytes.
const BYTES_MOST: usize = 4 << 20;

/// A JSON file of a model's folder.
pub(super) struct Document {
    /// Its name within the folder.
    name: String,
    value: Value,
}

impl Document {
    /// Reads `name` in `folder`; `None` where there is no such file.
    ///
    /// Errors: it cannot be read, is too long, or is no JSON.
    pub(super) fn read(folder: &Path, name: &str) -> Result<Option<Self>, Error> {
        let path = folder.join(name);
        let bytes = match gguf::map_file(&path) {
            Ok(bytes) => bytes,
            Err(gguf::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let wrong = |problem: String| Error::Folder {
            path: path.clone(),
            problem,
        };
        if bytes.len() > BYTES_MOST {
            let n_bytes = bytes.len();
            return Err(wrong(format!(
                "it has {n_bytes} bytes: at most {BYTES_MOST} are read"
            )));
        }
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| wrong(format!("it is not valid JSON: {error}")))?;
        let name = name.to_owned();
        Ok(Some(Self { name, value }))
    }

    /// The whole of it.
    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    /// Its keys.
    ///
    /// Errors: it is no object.
    pub(super) fn keys(&self) -> Result<Keys<'_>, Error> {
        match &self.value {
            Value::Object(object) => Ok(Keys {
                name: &self.name,
                object,
            }),
            _ => Err(Error::Key {
                key: format!("{} (the whole file)", self.name),
                value: "no object".to_owned(),
                must_be: "a JSON object".to_owned(),
            }),
        }
    }
}

/// The keys of an object.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    name: &'a str,
    object: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    /// A key that is there and not null.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// A key whose value cannot be.
    pub(super) fn wrong(&self, key: &str, value: impl Display, must_be: &str) -> Error {
        Error::Key {
            key: format!("{key} of {}", self.name),
            value: value.to_string(),
            must_be: must_be.to_owned(),
        }
    }

    fn read<T>(
        &self,
        key: &str,
        must_be: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        read(value)
            .map(Some)
            .ok_or_else(|| self.wrong(key, shown(value), must_be))
    }

    pub(super) fn str(&self, key: &str) -> Result<Option<&'a str>, Error> {
        self.read(key, "a string", Value::as_str)
    }

    pub(super) fn bool(&self, key: &str) -> Result<bool, Error> {
        let value = self.read(key, "true or false", Value::as_bool)?;
        Ok(value.unwrap_or(false))
    }

    pub(super) fn list(&self, key: &str) -> Result<Option<&'a [Value]>, Error> {
        self.read(key, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    /// A number above 0.
    pub(super) fn positive(&self, key: &str) -> Result<Option<f64>, Error> {
        self.read(key, "a number above 0", |value| {
            value.as_f64().filter(|value| *value > 0.0)
        })
    }

    /// A whole number from 1 to `most`, which has to be there.
    pub(super) fn size(&self, key: &str, most: usize) -> Result<usize, Error> {
        let must_be = format!("a whole number from 1 to {most}");
        let size = self.read(key, &must_be, |value| size(value, most))?;
        size.ok_or_else(|| self.wrong(key, "missing", &must_be))
    }
}

/// A whole number from 1 to `most`.
pub(super) fn size(value: &Value, most: usize) -> Option<usize> {
    let size = usize::try_from(value.as_u64()?).ok()?;
    (1..=most).contains(&size).then_some(size)
}

/// A value as a sentence names it, cut where it is long.
fn shown(value: &Value) -> String {
    const CHARACTERS_MOST: usize = 60;
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string().chars().take(CHARACTERS_MOST).collect(),
    }
}
