//! SentencePiece BPE, as Llama 2, Mistral, CodeLlama and TinyLlama have it.
//!
//! Not the BPE of the `tokenizers` crate: that one ranks pairs, this one ranks what a pair makes.
//! Where two ways to make the same piece overlap (a run of one letter) the left one comes first
//! here, while ranked pairs would have to choose one way for good, and the ids would differ.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;

use super::Error;
use super::vocabulary::{Token, TokenKind, Vocabulary, named_byte};
use crate::chat::TokenId;

/// Stands for a space in a piece: U+2581.
const SPACE: char = '▁';
/// The same as a text.
const SPACE_TEXT: &str = "▁";

/// Words are merged no longer than this. No text anyone reads has such words; it bounds the
/// memory a hostile one takes.
const MAX_WORD_BYTES: usize = 1 << 16;

/// The tokenizer of such a vocabulary.
#[derive(Debug)]
pub(super) struct SentencePiece {
    pieces: HashMap<Box<str>, Piece>,
    /// The token that writes each byte.
    bytes: [TokenId; 256],
    /// No piece has a space behind something else, so no merge reaches across a word's beginning.
    words_are_apart: bool,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    id: TokenId,
    score: f32,
}

impl SentencePiece {
    /// Errors: the scores are not one number per token, byte tokens name no byte, or a byte has
    /// neither its token nor an unknown token.
    pub(super) fn new(vocabulary: &Vocabulary, scores: &[f32]) -> Result<Self, Error> {
        let (got, expected) = (scores.len(), vocabulary.tokens.len());
        if got != expected {
            return Err(Error::Length {
                key: "tokenizer.ggml.scores",
                got,
                expected,
            });
        }
        let mut pieces = HashMap::with_capacity(expected);
        let mut bytes = [vocabulary.unknown; 256];
        for ((id, token), &score) in vocabulary.iter().zip(scores) {
            match token.kind {
                TokenKind::Normal | TokenKind::UserDefined if score.is_finite() => {
                    // Minus zero is zero here: both scores stand in files.
                    pieces.insert(
                        token.text.clone(),
                        Piece {
                            id,
                            score: score + 0.0,
                        },
                    );
                }
                TokenKind::Normal | TokenKind::UserDefined => {
                    return Err(Error::Score { id, score });
                }
                TokenKind::Byte => {
                    let text = || token.text.chars().take(80).collect();
                    let byte = named_byte(&token.text)
                        .ok_or_else(|| Error::ByteToken { id, text: text() })?;
                    bytes[usize::from(byte)] = Some(id);
                }
                TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => {}
            }
        }
        let words_are_apart = !pieces
            .keys()
            .any(|piece| piece.trim_start_matches(SPACE).contains(SPACE));
        Ok(Self {
            pieces,
            bytes: all_bytes(&bytes)?,
            words_are_apart,
        })
    }

    /// Appends the tokens of a text.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<TokenId>) {
        let escaped = text.replace(' ', SPACE_TEXT);
        let mut symbols = Symbols::default();
        let mut rest = &*escaped;
        while !rest.is_empty() {
            let (word, after) = rest.split_at(self.word_bytes(rest));
            symbols.merge(word, &self.pieces);
            symbols.ranges(|range| self.push(&word[range], out));
            rest = after;
        }
    }

    /// The length of the first part of a text that can be merged by itself.
    fn word_bytes(&self, text: &str) -> usize {
        let head = text.floor_char_boundary(MAX_WORD_BYTES);
        if !self.words_are_apart {
            return head;
        }
        let text = &text[..head];
        let spaces = text.len() - text.trim_start_matches(SPACE).len();
        text[spaces..].find(SPACE).map_or(head, |end| spaces + end)
    }

    /// Appends a merged piece, or the bytes of a character that has none.
    fn push(&self, piece: &str, out: &mut Vec<TokenId>) {
        match self.pieces.get(piece) {
            Some(piece) => out.push(piece.id),
            None => out.extend(piece.bytes().map(|byte| self.bytes[usize::from(byte)])),
        }
    }
}

/// The bytes a token writes.
pub(super) fn decode(token: &Token) -> Vec<u8> {
    match token.kind {
        TokenKind::Byte => named_byte(&token.text).into_iter().collect(),
        _ => token.text.replace(SPACE, " ").into_bytes(),
    }
}

fn all_bytes(tokens: &[Option<TokenId>; 256]) -> Result<[TokenId; 256], Error> {
    let mut all = [0; 256];
    for ((byte, token), slot) in (0..=u8::MAX).zip(tokens).zip(&mut all) {
        *slot = (*token).ok_or(Error::NoFallback { byte })?;
    }
    Ok(all)
}

/// A word on its way from characters to pieces: a linked list in a vector.
#[derive(Default)]
struct Symbols {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Merge>,
}

/// A part of the word. An empty one was merged into the one before.
struct Symbol {
    start: usize,
    end: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

/// Two neighbours that make a piece. Out of date when their length is no longer `n_bytes`.
struct Merge {
    score: f32,
    left: usize,
    right: usize,
    n_bytes: usize,
}

impl Symbols {
    /// Merges the pair with the highest score, the leftmost among equals, until none makes a piece.
    fn merge(&mut self, word: &str, pieces: &HashMap<Box<str>, Piece>) {
        let n_chars = word.chars().count();
        self.symbols.clear();
        self.symbols.extend(
            word.char_indices()
                .enumerate()
                .map(|(idx, (start, char))| Symbol {
                    start,
                    end: start + char.len_utf8(),
                    previous: idx.checked_sub(1),
                    next: Some(idx + 1).filter(|next| *next < n_chars),
                }),
        );
        for right in 1..n_chars {
            self.offer(right - 1, right, word, pieces);
        }
        while let Some(merge) = self.queue.pop() {
            let Merge {
                left,
                right,
                n_bytes,
                ..
            } = merge;
            let (start, end, next) = (
                self.symbols[left].start,
                self.symbols[right].end,
                self.symbols[right].next,
            );
            let is_gone = |idx: usize| self.symbols[idx].start == self.symbols[idx].end;
            if is_gone(left) || is_gone(right) || end - start != n_bytes {
                continue;
            }
            self.symbols[left].end = end;
            self.symbols[left].next = next;
            self.symbols[right].start = end;
            if let Some(next) = next {
                self.symbols[next].previous = Some(left);
                self.offer(left, next, word, pieces);
            }
            if let Some(previous) = self.symbols[left].previous {
                self.offer(previous, left, word, pieces);
            }
        }
    }

    fn offer(&mut self, left: usize, right: usize, word: &str, pieces: &HashMap<Box<str>, Piece>) {
        let range = self.symbols[left].start..self.symbols[right].end;
        let n_bytes = range.len();
        if let Some(piece) = word.get(range).and_then(|text| pieces.get(text)) {
            self.queue.push(Merge {
                score: piece.score,
                left,
                right,
                n_bytes,
            });
        }
    }

    fn ranges(&self, mut each: impl FnMut(Range<usize>)) {
        for symbol in self
            .symbols
            .iter()
            .filter(|symbol| symbol.start < symbol.end)
        {
            each(symbol.start..symbol.end);
        }
    }
}

impl Ord for Merge {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score
            .total_cmp(&other.score)
            .then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Merge {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Merge {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Merge {}
