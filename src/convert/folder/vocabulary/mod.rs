//! The folder's tokenizer, as a GGUF file has it.

mod byte_level;
mod pieces;
mod sentence_piece;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value as Json;

use super::super::{Error, files};
use super::config::Config;
use super::special::Special;
use super::write_texts;
use crate::gguf::{Value, ValueType, Writer};

/// CodeLlama's vocabulary, whose tokens for filling in are known by number only.
const CODE_LLAMA: u32 = 32_016;
/// Vocabularies of this size never begin with a token, whatever the folder says.
const NO_BEGIN: u32 = 49_152;

/// What a token is for. Its number is the one in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// A token of the file to be.
#[derive(Clone, Debug)]
struct Token {
    text: String,
    kind: Kind,
    score: f32,
}

/// How text becomes tokens.
enum Family {
    /// Bytes and merges.
    ByteLevel {
        pre_tokenizer: &'static str,
        merges: Vec<String>,
    },
    /// Pieces and scores.
    Pieces,
}

/// A tokenizer.
pub(super) struct Vocabulary {
    family: Family,
    tokens: Vec<Token>,
    special: Special,
    adds_space: Option<bool>,
    n_vocab: u32,
}

/// A token beside the vocabulary.
#[derive(Clone, Deserialize)]
struct Added {
    content: String,
    #[serde(default)]
    special: bool,
}

/// What is read of `tokenizer.json`.
#[derive(Deserialize)]
pub(super) struct TokenizerJson {
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedWithId>,
    #[serde(default)]
    pre_tokenizer: Json,
    #[serde(default)]
    pub(super) post_processor: Json,
    model: BytePairs,
}

#[derive(Deserialize)]
pub(super) struct AddedWithId {
    pub(super) id: u64,
    pub(super) content: String,
    #[serde(default)]
    special: bool,
}

/// The model of a tokenizer.
#[derive(Deserialize)]
struct BytePairs {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: Json,
    #[serde(default)]
    merges: Vec<Merge>,
}

/// Older files have a text with a space in it, newer ones a pair.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair([String; 2]),
}

impl Vocabulary {
    /// Errors: no tokenizer is there, it contradicts itself or config.json, or is of a kind that no
    /// network of the Llama family has.
    pub(super) fn read(folder: &Path, config: &Config) -> Result<Self, Error> {
        let config_path = folder.join("tokenizer_config.json");
        let settings: Option<serde_json::Map<String, Json>> = files::opt_json(&config_path)?;
        let json_path = folder.join("tokenizer.json");
        let json: Option<TokenizerJson> = files::opt_json(&json_path)?;
        let model_path = folder.join("tokenizer.model");
        let (family, tokens) = if model_path.exists() {
            let mut tokens = sentence_piece::read(&model_path)?;
            let added = added_tokens(&config_path, settings.as_ref())?;
            pieces::add(&mut tokens, folder, &added, config)?;
            (Family::Pieces, tokens)
        } else if let Some(json) = &json {
            let wrong = |problem: String| Error::content(&json_path, problem);
            if json.model.kind.as_deref().is_some_and(|kind| kind != "BPE") {
                let kind = json.model.kind.clone().unwrap_or_default();
                return Err(wrong(format!(
                    "has a model of type {kind:?}: BPE can be converted"
                )));
            }
            let found = if json.model.byte_fallback {
                (
                    Family::Pieces,
                    pieces::from_json(json, config).map_err(wrong)?,
                )
            } else {
                byte_level::from_json(json, config).map_err(wrong)?
            };
            let added = added_tokens(&config_path, settings.as_ref())?;
            let (family, mut tokens) = found;
            mark_added(&mut tokens, &added);
            (family, tokens)
        } else {
            return Err(Error::Missing {
                path: json_path,
                needed: "the folder needs tokenizer.model or tokenizer.json",
            });
        };
        let n_known = match family {
            Family::Pieces => Some(tokens.len() as u64),
            Family::ByteLevel { .. } => None,
        };
        let adds_space = settings
            .as_ref()
            .and_then(|settings| settings.get("add_prefix_space"))
            .and_then(Json::as_bool);
        Ok(Self {
            family,
            tokens,
            special: Special::read(folder, settings, json.as_ref(), config, n_known)?,
            adds_space,
            n_vocab: config.n_vocab(),
        })
    }

    /// Writes every key of the tokenizer.
    pub(super) fn write(&self, writer: &mut Writer) {
        if let Some(adds_space) = self.adds_space {
            writer.key("tokenizer.ggml.add_space_prefix", Value::Bool(adds_space));
        }
        let (model, pre_tokenizer) = match &self.family {
            Family::ByteLevel { pre_tokenizer, .. } => ("gpt2", *pre_tokenizer),
            Family::Pieces => ("llama", "default"),
        };
        writer.key("tokenizer.ggml.model", Value::Str(model.as_bytes()));
        writer.key("tokenizer.ggml.pre", Value::Str(pre_tokenizer.as_bytes()));
        let texts = self.tokens.iter().map(|token| token.text.as_bytes());
        write_texts(writer, "tokenizer.ggml.tokens", texts);
        if let Family::Pieces = self.family {
            let scores = self.tokens.iter().map(|token| Value::F32(token.score));
            writer.array("tokenizer.ggml.scores", ValueType::F32, scores);
        }
        let kinds = self
            .tokens
            .iter()
            .map(|token| Value::I32(token.kind as i32));
        writer.array("tokenizer.ggml.token_type", ValueType::I32, kinds);
        if let Family::ByteLevel { merges, .. } = &self.family {
            let merges = merges.iter().map(String::as_bytes);
            write_texts(writer, "tokenizer.ggml.merges", merges);
        }
        let mut special = self.special.clone();
        if self.n_vocab == CODE_LLAMA {
            let by_number = [
                ("prefix", 32_007),
                ("suffix", 32_008),
                ("middle", 32_009),
                ("eot", 32_010),
            ];
            special.ids.extend(by_number);
        }
        if self.n_vocab == NO_BEGIN {
            special.adds.insert("bos", false);
        }
        special.write(writer);
    }
}

/// The tokens `tokenizer_config.json` adds, by id.
fn added_tokens(
    path: &Path,
    settings: Option<&serde_json::Map<String, Json>>,
) -> Result<BTreeMap<u64, Added>, Error> {
    let Some(added) = settings.and_then(|settings| settings.get("added_tokens_decoder")) else {
        return Ok(BTreeMap::new());
    };
    serde_json::from_value(added.clone()).map_err(|problem| {
        Error::content(
            path,
            format!("has added tokens that cannot be used: {problem}"),
        )
    })
}

/// What a token that was added is for.
fn added_kind(text: &str, is_special: bool) -> Kind {
    if is_special || looks_special(text) {
        Kind::Control
    } else {
        Kind::UserDefined
    }
}

/// Some vocabularies do not say of their structure that it is structure.
fn looks_special(text: &str) -> bool {
    let between = |start, end| text.starts_with(start) && text.ends_with(end);
    matches!(text, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || between("<|", "|>")
        || between("<\u{ff5c}", "\u{ff5c}>")
        || between("<unused", ">")
}

/// The text of an added token: spaces as such in those that are text.
fn added_text(text: &str, kind: Kind) -> String {
    if kind == Kind::UserDefined {
        text.replace('\u{2581}', " ")
    } else {
        text.to_owned()
    }
}

/// Applies what `tokenizer_config.json` says of tokens that `tokenizer.json` has.
fn mark_added(tokens: &mut [Token], added: &BTreeMap<u64, Added>) {
    for (id, added) in added {
        let place = usize::try_from(*id).ok();
        if let Some(token) = place.and_then(|place| tokens.get_mut(place)) {
            token.kind = added_kind(&added.content, added.special);
            token.text = added_text(&added.content, token.kind);
        }
    }
}

/// A token of no use, in a place that config.json has and the tokenizer has not.
fn padding(id: usize, score: f32) -> Token {
    Token {
        text: format!("[PAD{id}]"),
        kind: Kind::Unused,
        score,
    }
}

/// Texts by id, from what a tokenizer's JSON has for a vocabulary and beside it.
fn by_id(json: &TokenizerJson, config: &Config, score: f32) -> Result<Vec<Token>, String> {
    let n_vocab = config.n_vocab();
    let vocab = json.model.vocab.as_object().ok_or("has no vocabulary")?;
    check_room(n_vocab, vocab.len() + json.added_tokens.len())?;
    let place = |text: &str, id: Option<u64>| {
        let place = id.filter(|id| *id < u64::from(n_vocab));
        place
            .and_then(|id| usize::try_from(id).ok())
            .ok_or_else(|| {
                let text = crate::gguf::printable(text);
                let id = id.map_or("no number".to_owned(), |id| id.to_string());
                format!("gives token {text:?} the id {id}, but config.json has {n_vocab} tokens")
            })
    };
    let mut slots: Vec<Option<Token>> = Vec::new();
    let mut put = |place: usize, token: Token| {
        if slots.len() <= place {
            slots.resize(place + 1, None);
        }
        if let Some(slot) = slots.get_mut(place) {
            *slot = Some(token);
        }
    };
    for (text, id) in vocab {
        let token = Token {
            text: text.clone(),
            kind: Kind::Normal,
            score,
        };
        put(place(text, id.as_u64())?, token);
    }
    for added in &json.added_tokens {
        let kind = added_kind(&added.content, added.special);
        let token = Token {
            text: added_text(&added.content, kind),
            kind,
            score,
        };
        put(place(&added.content, Some(added.id))?, token);
    }
    slots.resize(n_vocab as usize, None);
    let padded = slots.into_iter().enumerate();
    Ok(padded
        .map(|(id, token)| token.unwrap_or_else(|| padding(id, score)))
        .collect())
}

/// A vocabulary may have some places without a token, but not as many as a config.json can claim.
fn check_room(n_vocab: u32, n_tokens: usize) -> Result<(), String> {
    const UNUSED_MOST: usize = 1 << 20;
    if n_vocab as usize > n_tokens.saturating_add(UNUSED_MOST) {
        return Err(format!(
            "has {n_tokens} tokens, but config.json claims {n_vocab}"
        ));
    }
    Ok(())
}
