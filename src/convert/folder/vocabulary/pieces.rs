//! Tokenizers of pieces and scores: what is added to a `tokenizer.model`, and those that are in
//! `tokenizer.json` only.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::super::super::{Error, files};
use super::super::config::Config;
use super::{
    Added, Kind, Merge, Token, TokenizerJson, added_kind, added_text, by_id, check_room, padding,
};

/// The score of a piece that no merge makes.
const UNMERGED: f32 = -1e9;
const ADDED_SCORE: f32 = -1000.0;
const PADDING_SCORE: f32 = -10_000.0;

/// Brings pieces to as many as config.json has, and puts in what the folder adds to them.
pub(super) fn add(
    tokens: &mut Vec<Token>,
    folder: &Path,
    added: &BTreeMap<u64, Added>,
    config: &Config,
) -> Result<(), Error> {
    let n_vocab = config.n_vocab();
    let path = folder.join("tokenizer.model");
    check_room(n_vocab, tokens.len()).map_err(|problem| Error::content(&path, problem))?;
    let n_known = tokens.len();
    tokens.truncate(n_vocab as usize);
    tokens.extend((n_known..n_vocab as usize).map(|id| padding(id, PADDING_SCORE)));
    let older: Option<HashMap<String, u64>> = files::opt_json(&folder.join("added_tokens.json"))?;
    let older = older.into_iter().flatten();
    let older = older.map(|(text, id)| (id, text, Kind::UserDefined));
    let newer = added.iter().map(|(id, added)| {
        let kind = added_kind(&added.content, added.special);
        (*id, added_text(&added.content, kind), kind)
    });
    for (id, text, kind) in older.chain(newer) {
        let place = usize::try_from(id).ok();
        // Some folders add more than the network has rows for; such tokens cannot be said.
        if let Some(token) = place.and_then(|place| tokens.get_mut(place)) {
            *token = Token {
                text,
                kind,
                score: ADDED_SCORE,
            };
        }
    }
    Ok(())
}

/// Scores are what the merges' order makes them. llama.cpp's converter gives all pieces the same here,
/// which makes other tokens of a text than the model was trained with.
pub(super) fn from_json(json: &TokenizerJson, config: &Config) -> Result<Vec<Token>, String> {
    let mut tokens = by_id(json, config, UNMERGED)?;
    let mut ranks: HashMap<String, f32> = HashMap::new();
    for (rank, merge) in json.model.merges.iter().enumerate() {
        let made = match merge {
            Merge::Text(text) => text.replacen(' ', "", 1),
            Merge::Pair([left, right]) => format!("{left}{right}"),
        };
        ranks.entry(made).or_insert(-(rank as f32));
    }
    for token in &mut tokens {
        token.score = match token.kind {
            Kind::Normal => ranks.get(&token.text).copied().unwrap_or(UNMERGED),
            Kind::Unused => PADDING_SCORE,
            _ => ADDED_SCORE,
        };
        if token.kind == Kind::Normal && is_byte(&token.text) {
            token.kind = Kind::Byte;
            token.score = 0.0;
        }
        if token.text == "<unk>" {
            token.kind = Kind::Unknown;
        }
    }
    Ok(tokens)
}

/// Whether a text is like `<0x0A>`.
fn is_byte(text: &str) -> bool {
    let digits = text
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}
