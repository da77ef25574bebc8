//! The tokenizer of a model that makes vectors of texts, from its folder.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::Tokenizer;

use super::Error;
use crate::chat::TokenId;
use crate::gguf;

/// The longest tokenizer of an honest model is a quarter of it. Units: bytes.
const TOKENIZER_BYTES_MOST: usize = 64 << 20;
/// The same of the small files beside it.
const SETTINGS_BYTES_MOST: usize = 1 << 20;
/// More text than the longest input holds; it bounds the memory of a request.
const TEXT_BYTES_MOST: usize = 16 << 20;

/// Whole texts to tokens, with those around them that the model wants.
#[derive(Debug)]
pub struct Sentences {
    tokenizer: Tokenizer,
    /// Stands before every text.
    prompt: String,
    /// Whether texts are lowercased before the tokenizer sees them.
    lowercases: bool,
    max_tokens: Option<usize>,
}

/// The tokens of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentenceTokens {
    /// All of them.
    pub ids: Vec<TokenId>,
    /// How many at the end frame the text and are kept where it is cut off.
    n_closing: usize,
}

impl SentenceTokens {
    /// Cuts the text's end off where it is longer than `n_most` tokens, frame included.
    pub fn truncate(&mut self, n_most: usize) {
        if self.ids.len() > n_most {
            let n_closing = self.n_closing.min(n_most);
            let closing = self.ids.split_off(self.ids.len() - n_closing);
            self.ids.truncate(n_most - n_closing);
            self.ids.extend(closing);
        }
    }
}

impl Sentences {
    /// Reads `tokenizer.json` in `folder`, and what sentence-transformers put beside it: the longest
    /// input it allows, and what it puts before each.
    ///
    /// # Errors
    /// There is no tokenizer, or a file cannot be used.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        const TOKENIZER: &str = "tokenizer.json";
        let path = folder.join(TOKENIZER);
        let wrong = |problem: String| Error::Folder {
            path: path.clone(),
            problem,
        };
        let bytes = read(&path, TOKENIZER_BYTES_MOST)?
            .ok_or_else(|| wrong("it is missing: it says how texts become tokens".to_owned()))?;
        let mut tokenizer =
            Tokenizer::from_bytes(&*bytes).map_err(|error| wrong(error.to_string()))?;
        // Files hold the settings of whoever saved them last.
        tokenizer.with_padding(None);
        let untruncated = tokenizer.with_truncation(None).map(|_| ());
        untruncated.map_err(|error| wrong(error.to_string()))?;
        let settings = Settings::read(folder, "sentence_bert_config.json")?;
        Ok(Self {
            tokenizer,
            prompt: prompt(folder)?,
            lowercases: settings.get("do_lower_case") == Some(&Value::Bool(true)),
            max_tokens: settings.max_seq_length()?,
        })
    }

    /// Tokens of an input at most, where the folder says so; the network's positions bound it too.
    pub fn max_tokens(&self) -> Option<usize> {
        self.max_tokens
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// The text is too long to be looked at, or the tokenizer refuses it.
    pub fn encode(&self, text: &str) -> Result<SentenceTokens, Error> {
        let n_bytes = text.len();
        if n_bytes > TEXT_BYTES_MOST {
            let limit = TEXT_BYTES_MOST;
            return Err(Error::TextTooLong { n_bytes, limit });
        }
        let mut text = format!("{}{text}", self.prompt);
        if self.lowercases {
            text = text.to_lowercase();
        }
        let encoding = self.tokenizer.encode_fast(text, true);
        let encoding = encoding.map_err(|error| Error::Encoding {
            problem: error.to_string(),
        })?;
        let mask = encoding.get_special_tokens_mask().iter().rev();
        Ok(SentenceTokens {
            ids: encoding.get_ids().to_vec(),
            n_closing: mask.take_while(|is_special| **is_special == 1).count(),
        })
    }
}

/// What is put before every text: the default one of the folder's prompts.
fn prompt(folder: &Path) -> Result<String, Error> {
    let settings = Settings::read(folder, "config_sentence_transformers.json")?;
    let Some(name) = settings.get("default_prompt_name").and_then(Value::as_str) else {
        return Ok(String::new());
    };
    let prompts = settings.get("prompts");
    let prompt = prompts.and_then(|prompts| prompts.get(name)?.as_str());
    prompt.map(str::to_owned).ok_or_else(|| Error::Folder {
        path: settings.path.clone(),
        problem: format!("default_prompt_name is {name:?}, which prompts does not hold"),
    })
}

/// A small JSON file of the folder; one that is missing says nothing.
struct Settings {
    path: PathBuf,
    value: Value,
}

impl Settings {
    fn read(folder: &Path, name: &str) -> Result<Self, Error> {
        let path = folder.join(name);
        let value = match read(&path, SETTINGS_BYTES_MOST)? {
            None => Value::Null,
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::Folder {
                path: path.clone(),
                problem: format!("it is not valid JSON: {error}"),
            })?,
        };
        Ok(Self { path, value })
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key)
    }

    fn max_seq_length(&self) -> Result<Option<usize>, Error> {
        const KEY: &str = "max_seq_length";
        let Some(value) = self.get(KEY).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let length = value.as_u64().and_then(|n| usize::try_from(n).ok());
        // An input of nothing but its frame has no text.
        length
            .filter(|n| *n > 2)
            .map(Some)
            .ok_or_else(|| Error::Folder {
                path: self.path.clone(),
                problem: format!("{KEY} is {value}: it must be a whole number above 2"),
            })
    }
}

/// A file's bytes; `None` where there is no such file.
fn read(path: &Path, n_most: usize) -> Result<Option<gguf::TensorBytes>, Error> {
    let bytes = match gguf::map_file(path) {
        Ok(bytes) => bytes,
        Err(gguf::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    if bytes.len() > n_most {
        let n_bytes = bytes.len();
        return Err(Error::Folder {
            path: path.to_owned(),
            problem: format!("it has {n_bytes} bytes: at most {n_most} are read"),
        });
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_is_the_texts_end_and_not_its_frame() {
        let tokens = |n_closing| SentenceTokens {
            ids: vec![101, 1, 2, 3, 102],
            n_closing,
        };
        let cut = |n_closing, n_most| {
            let mut tokens = tokens(n_closing);
            tokens.truncate(n_most);
            tokens.ids
        };
        assert_eq!(cut(1, 5), [101, 1, 2, 3, 102]);
        assert_eq!(cut(1, 4), [101, 1, 2, 102]);
        assert_eq!(cut(1, 2), [101, 102]);
        assert_eq!(cut(1, 1), [102]);
        assert_eq!(cut(0, 3), [101, 1, 2]);
    }
}
