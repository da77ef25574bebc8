//! A byte-level tokenizer, from `tokenizer.json`.

use serde_json::Value as Json;

use super::super::config::Config;
use super::{Family, Merge, Token, TokenizerJson, by_id};
use crate::gguf::printable;

/// Ways to cut text into words, by what a `tokenizer.json` says of them, and the names GGUF files have
/// for them.
///
/// llama.cpp's converter knows a tokenizer by a hash of the tokens it makes, so that one token more makes
/// it unknown; what cuts the words is written in the file itself.
const RULES: [(&str, &str); 5] = [
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "llama-bpe",
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "qwen2",
    ),
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "tekken",
    ),
    ("digits", "smollm"),
    ("", "gpt-2"),
];

pub(super) fn from_json(
    json: &TokenizerJson,
    config: &Config,
) -> Result<(Family, Vec<Token>), String> {
    let tokens = by_id(json, config, 0.0)?;
    let pre_tokenizer = pre_tokenizer(json)?;
    let merges = json.model.merges.iter().map(merge).collect();
    Ok((
        Family::ByteLevel {
            pre_tokenizer,
            merges,
        },
        tokens,
    ))
}

fn pre_tokenizer(json: &TokenizerJson) -> Result<&'static str, String> {
    let mut rule = String::new();
    let mut is_byte_level = false;
    let steps = match json.pre_tokenizer.get("pretokenizers") {
        Some(Json::Array(steps)) => &steps[..],
        _ => std::slice::from_ref(&json.pre_tokenizer),
    };
    for step in steps {
        match step.get("type").and_then(Json::as_str) {
            Some("ByteLevel") => is_byte_level = true,
            Some("Digits") if step.get("individual_digits") == Some(&Json::Bool(true)) => {
                rule.push_str("digits");
            }
            Some("Split") => {
                let pattern = step.pointer("/pattern/Regex").and_then(Json::as_str);
                rule.push_str(pattern.unwrap_or("another pattern"));
            }
            other => rule.push_str(other.unwrap_or("nothing")),
        }
    }
    let found = RULES.iter().find(|(its, _)| is_byte_level && *its == rule);
    match found {
        // With its rule, but merged all the same: the name of those who were the first to do so.
        Some((_, "llama-bpe")) if !json.model.ignore_merges => Ok("smaug-bpe"),
        Some((_, name)) => Ok(name),
        None => Err(format!(
            "cuts text into words by {:?}, a way that has no name in a GGUF file",
            printable(&rule)
        )),
    }
}

/// A merge as GGUF has it: a space between the two, and none in them.
fn merge(merge: &Merge) -> String {
    match merge {
        Merge::Text(text) => text.clone(),
        Merge::Pair([left, right]) => {
            let spaceless = |part: &str| part.replace(' ', "\u{120}");
            format!("{} {}", spaceless(left), spaceless(right))
        }
    }
}
