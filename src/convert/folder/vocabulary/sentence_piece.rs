//! `tokenizer.model`: a message of protocol buffers, of which the pieces are read.
//!
//! Source: `sentencepiece_model.proto`: a model has pieces in field 1, a piece its text, score and type in
//! fields 1, 2 and 3.

use std::path::Path;

use super::super::super::{Error, files};
use super::{Kind, Token};

/// Larger ones no model has.
const MAX_BYTES: u64 = 1 << 26;
/// More tokens no vocabulary has.
const MAX_PIECES: usize = 1 << 22;

/// Reads the pieces.
pub(super) fn read(path: &Path) -> Result<Vec<Token>, Error> {
    let bytes = files::read(path, MAX_BYTES, "the folder has no tokenizer")?;
    let wrong =
        |problem: &str| Error::content(path, format!("is no SentencePiece model: {problem}"));
    let mut tokens = Vec::new();
    let mut fields = Fields(&bytes);
    while let Some(field) = fields.next().map_err(wrong)? {
        if let Field::Bytes(1, piece) = field {
            tokens.push(token(piece).map_err(wrong)?);
        }
        if tokens.len() > MAX_PIECES {
            return Err(wrong("it has too many pieces"));
        }
    }
    if tokens.is_empty() {
        return Err(wrong("it has no pieces"));
    }
    Ok(tokens)
}

fn token(piece: &[u8]) -> Result<Token, &'static str> {
    let mut token = Token {
        text: String::new(),
        kind: Kind::Normal,
        score: 0.0,
    };
    let mut fields = Fields(piece);
    while let Some(field) = fields.next()? {
        match field {
            Field::Bytes(1, text) => {
                let text = std::str::from_utf8(text).map_err(|_| "a piece is not UTF-8")?;
                text.clone_into(&mut token.text);
            }
            Field::Word(2, word) => token.score = f32::from_le_bytes(word),
            Field::Number(3, kind) => {
                token.kind = match kind {
                    2 => Kind::Unknown,
                    3 => Kind::Control,
                    5 => Kind::Unused,
                    6 => Kind::Byte,
                    _ => Kind::Normal,
                }
            }
            _ => {}
        }
    }
    Ok(token)
}

/// A field and its number.
enum Field<'a> {
    Number(u64, u64),
    Word(u64, [u8; 4]),
    Bytes(u64, &'a [u8]),
    Other,
}

/// The fields of a message that are still unread.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<Field<'a>>, &'static str> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        Ok(Some(match tag & 7 {
            0 => Field::Number(number, self.varint()?),
            1 => {
                self.take(8)?;
                Field::Other
            }
            2 => {
                let len = self.varint()?;
                let len = usize::try_from(len).map_err(|_| "a field is too long")?;
                Field::Bytes(number, self.take(len)?)
            }
            5 => {
                let word = self.take(4)?.first_chunk().copied();
                Field::Word(number, word.unwrap_or_default())
            }
            _ => return Err("a field has an unknown type"),
        }))
    }

    fn take(&mut self, n_bytes: usize) -> Result<&'a [u8], &'static str> {
        let parts = self.0.split_at_checked(n_bytes);
        let (taken, rest) = parts.ok_or("a field is longer than the file")?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take(1)? else {
                return Err("a field is longer than the file");
            };
            value |= u64::from(byte & 127) << shift;
            if byte & 128 == 0 {
                return Ok(value);
            }
        }
        Err("a number has too many bytes")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_piece_is_read_as_written() {
        // Text "ab", score 1.5, type 6.
        let token = token(&[10, 2, b'a', b'b', 21, 0, 0, 0xc0, 0x3f, 24, 6]).unwrap();
        assert_eq!(
            (&*token.text, token.kind, token.score),
            ("ab", Kind::Byte, 1.5)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_go_on_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut fields = Fields(&bytes);
            let mut n_fields = 0;
            while let Ok(Some(_)) = fields.next() {
                n_fields += 1;
            }
            prop_assert!(n_fields <= bytes.len());
            let _ = token(&bytes);
        }
    }
}
