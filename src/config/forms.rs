//! Values of settings that come in several forms.

use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// One folder, several in one text, or a list of them.
pub(super) fn folders<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Folders {
        Text(String),
        List(Vec<PathBuf>),
    }
    Ok(match Folders::deserialize(from)? {
        Folders::Text(text) => std::env::split_paths(&text)
            .filter(|folder| !folder.as_os_str().is_empty())
            .collect(),
        Folders::List(folders) => folders,
    })
}

/// A bool, or 1 or 0 as variables of the environment have it.
pub(super) fn yes_or_no<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Answer {
        Bool(bool),
        Number(u64),
        Text(String),
    }
    match Answer::deserialize(from)? {
        Answer::Bool(answer) => Ok(answer),
        Answer::Number(0) => Ok(false),
        Answer::Number(1) => Ok(true),
        Answer::Number(number) => Err(D::Error::custom(format!("{number} is neither 1 nor 0"))),
        Answer::Text(text) => match &*text.to_ascii_lowercase() {
            "yes" | "on" => Ok(true),
            "no" | "off" => Ok(false),
            _ => Err(D::Error::custom(format!(
                "{text:?} is neither true nor false"
            ))),
        },
    }
}
