//! The fields of a JSON object, read one by one: a wrong type names the field and what it was.

use serde_json::{Map, Value};

use crate::http::error::ApiError;
use crate::keep_alive::KeepAlive;

/// The largest integer that every JSON reader agrees on.
const EXACT_MOST: f64 = 9_007_199_254_740_992.0;

/// An object of the request, and the path to it.
#[derive(Clone, Copy)]
pub(in crate::http) struct Fields<'a> {
    object: &'a Map<String, Value>,
    path: &'a str,
}

impl<'a> Fields<'a> {
    /// The fields of `value`, which `path` leads to; the request itself has an empty path.
    pub(in crate::http) fn of(value: &'a Value, path: &'a str) -> Result<Self, ApiError> {
        match value {
            Value::Object(object) => Ok(Self { object, path }),
            other if path.is_empty() => Err(ApiError::new(
                axum::http::StatusCode::BAD_REQUEST,
                format!("the body must be a JSON object, not {}", shown(other)),
            )),
            other => Err(wrong_type(path, "an object", other)),
        }
    }

    /// The field's name with the path before it.
    pub(in crate::http) fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// A field that is there and not null.
    pub(in crate::http) fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    pub(in crate::http) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.object.keys().map(String::as_str)
    }

    /// How long a model stays in memory afterwards: a number of seconds, or a time such as `10m`.
    pub(in crate::http) fn keep_alive(&self, key: &str) -> Result<Option<KeepAlive>, ApiError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let said = serde_json::from_value(value.clone());
        said.map(Some).map_err(|error| {
            ApiError::invalid(self.name(key), format!("{}: {error}", self.name(key)))
        })
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(wrong_type(&self.name(key), expected, value)),
        }
    }

    pub(in crate::http) fn str(&self, key: &str) -> Result<Option<&'a str>, ApiError> {
        self.read(key, "a string", Value::as_str)
    }

    pub(in crate::http) fn bool(&self, key: &str) -> Result<Option<bool>, ApiError> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub(in crate::http) fn list(&self, key: &str) -> Result<Option<&'a [Value]>, ApiError> {
        self.read(key, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    /// A number within `least..=most`.
    pub(in crate::http) fn float(
        &self,
        key: &str,
        least: f32,
        most: f32,
    ) -> Result<Option<f32>, ApiError> {
        let value = self.read(key, "a number", Value::as_f64)?;
        let Some(value) = value else {
            return Ok(None);
        };
        if (f64::from(least)..=f64::from(most)).contains(&value) {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rounding is what is wanted"
            )]
            return Ok(Some(value as f32));
        }
        let name = self.name(key);
        let message = format!("{name} is {value}: it must be between {least} and {most}");
        Err(ApiError::invalid(name, message))
    }

    /// A whole number of 32 bits, at least `least`. A whole number written with a point counts.
    pub(in crate::http) fn u32(&self, key: &str, least: u32) -> Result<Option<u32>, ApiError> {
        let value = self.read(key, "a whole number", whole)?;
        let Some(value) = value else {
            return Ok(None);
        };
        match u32::try_from(value) {
            Ok(value) if value >= least => Ok(Some(value)),
            _ => {
                let name = self.name(key);
                let most = u32::MAX;
                let message = format!("{name} is {value}: it must be between {least} and {most}");
                Err(ApiError::invalid(name, message))
            }
        }
    }

    /// A whole number of 64 bits, with or without a sign.
    pub(in crate::http) fn seed(&self, key: &str) -> Result<Option<u64>, ApiError> {
        self.read(key, "a whole number of 64 bits", |value| {
            let unsigned = value.as_u64();
            unsigned.or_else(|| value.as_i64().map(i64::cast_unsigned))
        })
    }
}

/// A whole number, also where a client wrote `5.0`.
fn whole(value: &Value) -> Option<i64> {
    let from_float = || {
        let float = value.as_f64()?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "checked to be whole and exact"
        )]
        (float.fract() == 0.0 && float.abs() <= EXACT_MOST).then_some(float as i64)
    };
    value.as_i64().or_else(from_float)
}

/// A field of the wrong type.
pub(in crate::http) fn wrong_type(name: &str, expected: &str, got: &Value) -> ApiError {
    ApiError::invalid(
        name,
        format!("{name} must be {expected}, not {}", shown(got)),
    )
}

/// A value as a sentence names it; long ones are not repeated.
pub(in crate::http) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(text) if text.chars().count() <= 40 => format!("the string {text:?}"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
