//! A model's vocabulary put to work: which tokens write a text, and around it.

use std::borrow::Cow;
use std::sync::Arc;

use super::byte_level::{ByteAlphabet, ByteLevel};
use super::detokenizer::{Detokenizer, TokenBytes};
use super::pre_tokenizer::Family;
use super::sentence_piece::{self, SentencePiece};
use super::special::{Segment, SpecialTexts, unquote};
use super::vocabulary::{Token, TokenKind, Vocabulary};
use super::{Error, Framing, SpecialTokens};
use crate::chat::TokenId;
use crate::gguf::Metadata;

/// More text than the longest context holds; it bounds the memory of a request.
const MAX_TEXT_BYTES: usize = 16 << 20;

/// Tokens that end an answer wherever they are structure: files often name only one.
const END_OF_GENERATION: &[&str] = &[
    "</s>",
    "<EOT>",
    "<eos>",
    "<|call|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<|endoftext|>",
    "<|end|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|im_end|>",
    "<|return|>",
    "<end_of_turn>",
    "<end_of_utterance>",
];

/// Text to tokens.
#[derive(Debug)]
pub(super) struct Tokenizer {
    vocabulary: Vocabulary,
    special: SpecialTexts,
    model: Model,
    table: Arc<TokenBytes>,
    adds_bos: bool,
    adds_eos: bool,
}

#[derive(Debug)]
enum Model {
    ByteLevel(Box<ByteLevel>),
    SentencePiece(Box<SentencePiece>),
}

/// Where a part of a text stands.
#[derive(Clone, Copy)]
enum Place {
    Beginning,
    AfterToken,
}

impl Tokenizer {
    /// Errors: the vocabulary is of no supported kind or contradicts itself.
    pub(super) fn from_gguf(metadata: &Metadata) -> Result<Self, Error> {
        let vocabulary = Vocabulary::from_gguf(metadata)?;
        let special = SpecialTexts::new(&vocabulary)?;
        let is_set = |key, default| metadata.opt_bool(key).map(|flag| flag.unwrap_or(default));
        let (model, table, adds_bos) = match metadata.str("tokenizer.ggml.model")? {
            "gpt2" => {
                let family = Family::named(metadata.opt_str("tokenizer.ggml.pre")?)?;
                let merges = metadata.strings("tokenizer.ggml.merges")?;
                let model = ByteLevel::new(&vocabulary, merges, &family)?;
                let alphabet = ByteAlphabet::new();
                // `add_space_prefix` also stands in files of this kind and means nothing there.
                let table = table(&vocabulary, false, |token| alphabet.decode(token));
                (Model::ByteLevel(model.into()), table, family.adds_bos)
            }
            "llama" => {
                let model =
                    SentencePiece::new(&vocabulary, &metadata.f32s("tokenizer.ggml.scores")?)?;
                let has_space_prefix = is_set("tokenizer.ggml.add_space_prefix", true)?;
                let table = table(&vocabulary, has_space_prefix, sentence_piece::decode);
                (Model::SentencePiece(model.into()), table, true)
            }
            other => {
                return Err(Error::UnknownModel {
                    model: other.into(),
                });
            }
        };
        Ok(Self {
            adds_bos: is_set("tokenizer.ggml.add_bos_token", adds_bos)?,
            adds_eos: is_set("tokenizer.ggml.add_eos_token", false)?,
            table: Arc::new(table),
            vocabulary,
            special,
            model,
        })
    }

    /// The tokens of a text.
    ///
    /// Errors: the text is too long.
    pub(super) fn encode(
        &self,
        text: &str,
        special_tokens: SpecialTokens,
        framing: Framing,
    ) -> Result<Vec<TokenId>, Error> {
        let tokens = self.unframed(text, special_tokens, |text| Cow::Borrowed(text))?;
        Ok(match framing {
            Framing::Bare => tokens,
            Framing::AsTheModelWants => {
                let bos = self.beginning();
                let eos = self.vocabulary.eos.filter(|_| self.adds_eos);
                bos.into_iter().chain(tokens).chain(eos).collect()
            }
        })
    }

    /// The tokens of a rendered prompt, whose messages are quoted. In front the beginning-of-sequence token, if the model
    /// wants one and the template did not write it; nothing behind, the answer goes on there.
    ///
    /// Errors: the prompt is too long.
    pub(super) fn encode_prompt(&self, prompt: &str) -> Result<Vec<TokenId>, Error> {
        let mut tokens = self.unframed(prompt, SpecialTokens::Parse, unquote)?;
        if let Some(bos) = self.beginning()
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    /// The token in front of every text, if the model wants one.
    pub(super) fn beginning(&self) -> Option<TokenId> {
        self.vocabulary.bos.filter(|_| self.adds_bos)
    }

    fn unframed(
        &self,
        text: &str,
        special_tokens: SpecialTokens,
        plain: fn(&str) -> Cow<'_, str>,
    ) -> Result<Vec<TokenId>, Error> {
        let n_bytes = text.len();
        if n_bytes > MAX_TEXT_BYTES {
            return Err(Error::TextTooLong {
                n_bytes,
                limit: MAX_TEXT_BYTES,
            });
        }
        let mut tokens = Vec::with_capacity(n_bytes / 4);
        let mut place = Place::Beginning;
        for segment in self.special.split(text, special_tokens) {
            match segment {
                Segment::Token(id) => tokens.push(id),
                Segment::Text(text) => match &*plain(text) {
                    "" => continue,
                    text => self.encode_text(text, place, &mut tokens)?,
                },
            }
            place = Place::AfterToken;
        }
        Ok(tokens)
    }

    fn encode_text(&self, text: &str, place: Place, out: &mut Vec<TokenId>) -> Result<(), Error> {
        match &self.model {
            Model::ByteLevel(model) => return model.encode(text, out),
            // A SentencePiece text begins with a space, and so does what stands after structure,
            // where models were trained on texts encoded one by one. Templates written for
            // tokenizers that put no space there write it themselves: it is not doubled.
            Model::SentencePiece(model) if self.table.has_space_prefix() => match place {
                Place::AfterToken if text.starts_with(' ') => model.encode(text, out),
                Place::Beginning | Place::AfterToken => model.encode(&format!(" {text}"), out),
            },
            Model::SentencePiece(model) => model.encode(text, out),
        }
        Ok(())
    }

    /// The tokens that end an answer, ascending: those the file names, the well-known ones, and
    /// the ones of the catalogue.
    ///
    /// Errors: one of the catalogue's is not in the vocabulary.
    pub(super) fn end_of_generation(&self, stop_tokens: &[String]) -> Result<Vec<TokenId>, Error> {
        let mut ends: Vec<TokenId> = self.vocabulary.end_of_turn.clone();
        ends.extend(self.vocabulary.eos);
        ends.extend(self.vocabulary.iter().filter_map(|(id, token)| {
            let ends =
                token.kind == TokenKind::Control && END_OF_GENERATION.contains(&&*token.text);
            ends.then_some(id)
        }));
        for text in stop_tokens {
            let found = self
                .vocabulary
                .iter()
                .find(|(_, token)| *token.text == **text);
            let (id, _) = found.ok_or_else(|| Error::StopToken { text: text.clone() })?;
            ends.push(id);
        }
        ends.sort_unstable();
        ends.dedup();
        Ok(ends)
    }

    pub(super) fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    pub(super) fn special(&self) -> &SpecialTexts {
        &self.special
    }

    pub(super) fn detokenizer(&self) -> Detokenizer {
        Detokenizer::new(Arc::clone(&self.table))
    }
}

fn table(
    vocabulary: &Vocabulary,
    has_space_prefix: bool,
    bytes_of: impl Fn(&Token) -> Vec<u8>,
) -> TokenBytes {
    let mut table = TokenBytes::new(has_space_prefix);
    for token in &vocabulary.tokens {
        table.push(token.kind, bytes_of(token));
    }
    table
}
