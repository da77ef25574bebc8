//! Parses and checks a file's header: nothing of a file is trusted before this has passed.
//!
//! Memory: what is kept grows with what the header really holds, never with what it claims, and
//! stops at [`MAX_KEYS`] and [`MAX_TENSORS`].

use std::ops::Range;
use std::str;
use std::sync::Arc;

use super::metadata::{Entry, Metadata};
use super::reader::{MAX_ARRAY_DEPTH, Reader, What};
use super::source::Source;
use super::tensor::{self, TensorInfo};
use super::value::{Value, ValueType};

/// More keys than this no model has (they have a few dozen).
pub(super) const MAX_KEYS: u64 = 65_536;
/// More tensors than this no file has (the largest mixtures of experts have some ten thousand).
pub(super) const MAX_TENSORS: u64 = 65_536;
/// The longest key GGUF allows, and the longest tensor name taken.
pub(super) const MAX_NAME_BYTES: usize = 65_535;
/// What tensor data is aligned to where the file does not say.
const DEFAULT_ALIGNMENT: u64 = 32;
/// GGUF asks for a multiple of 8; more than this only wastes the file.
const ALIGNMENTS: Range<u64> = 8..(1 << 20) + 1;
/// The fewest bytes of a key: its length, a letter, a type, a byte.
const MIN_KEY_BYTES: u64 = 8 + 1 + 4 + 1;
/// The fewest bytes of a tensor's description: length, a letter, one dimension, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// Why a header does not describe the file it stands in. Names are ready to be shown: control
/// characters escaped, long ones cut.
#[derive(Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum HeaderError {
    #[error("is {n_bytes} bytes long, too short to be a GGUF file")]
    TooShort { n_bytes: u64 },
    #[error("starts with \"{got}\", not with \"GGUF\": this is no GGUF file")]
    Magic { got: String },
    #[error("is a big-endian GGUF file: only little-endian ones are read")]
    BigEndian,
    #[error("is GGUF version {version}: versions 2 and 3 are read, so convert the model anew")]
    Version { version: u32 },
    #[error("{what} at byte {at} needs {n_bytes} bytes, but the file ends after {left} more")]
    PastEnd {
        what: What,
        at: u64,
        n_bytes: u64,
        left: u64,
    },
    #[error("claims {count} {what}, but has room for {room} at most")]
    Count {
        what: &'static str,
        count: u64,
        room: u64,
    },
    #[error("claims {count} {what}: more than {limit} are refused")]
    TooMany {
        what: &'static str,
        count: u64,
        limit: u64,
    },
    #[error("{what} {number} has a name {reason}")]
    Name {
        what: &'static str,
        number: u64,
        reason: &'static str,
    },
    #[error("key {key} stands there twice")]
    DuplicateKey { key: String },
    #[error("key {key}: {problem}")]
    Key {
        key: String,
        problem: Box<HeaderError>,
    },
    #[error("value type {id} is unknown")]
    ValueType { id: u32 },
    #[error("arrays are nested more than {MAX_ARRAY_DEPTH} deep")]
    Depth,
    #[error("an array claims {len} elements of type {element}, but has room for {room} at most")]
    ArrayLen {
        len: u64,
        element: &'static str,
        room: u64,
    },
    #[error("a bool is {got}, neither 0 nor 1")]
    Bool { got: u8 },
    #[error("general.alignment is {got}: a u32 that is a power of two from 8 to 1048576 is needed")]
    Alignment { got: String },
    #[error("tensor {tensor} has {n_dims} dimensions: 1 to 4 are allowed")]
    DimCount { tensor: String, n_dims: u32 },
    #[error("tensor {tensor} has dimensions {dims:?}: none may be 0")]
    ZeroDim { tensor: String, dims: Vec<u64> },
    #[error("tensor {tensor} has type {id}, which is unknown")]
    TensorType { tensor: String, id: u32 },
    #[error(
        "tensor {tensor} has rows of {len} numbers, \
         not a multiple of the {block_len} that a block of {ty} holds"
    )]
    RowLen {
        tensor: String,
        len: u64,
        ty: &'static str,
        block_len: u64,
    },
    #[error("tensor {tensor} has dimensions {dims:?}, whose product is too large")]
    Overflow { tensor: String, dims: Vec<u64> },
    #[error("tensor {tensor} starts at offset {offset}, which is no multiple of {alignment}")]
    Misaligned {
        tensor: String,
        offset: u64,
        alignment: u64,
    },
    #[error(
        "tensor {tensor} takes {n_bytes} bytes at offset {offset}, \
         but the file holds {room} bytes of tensors"
    )]
    OutOfFile {
        tensor: String,
        offset: u64,
        n_bytes: u64,
        room: u64,
    },
    #[error("tensors {first} and {second} overlap")]
    Overlap { first: String, second: String },
    #[error("two tensors are called {tensor}")]
    DuplicateTensor { tensor: String },
}

/// A header that has passed every check.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) alignment: u64,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<TensorInfo>,
}

impl Header {
    /// Checks the whole header against the file it stands in.
    pub(super) fn parse(source: &Arc<Source>) -> Result<Self, HeaderError> {
        let mut reader = Reader::new(source, 0);
        let (version, n_tensors, n_keys) = preamble(&mut reader)?;
        check_count("keys", n_keys, reader.left() / MIN_KEY_BYTES, MAX_KEYS)?;
        check_count(
            "tensors",
            n_tensors,
            reader.left() / MIN_TENSOR_BYTES,
            MAX_TENSORS,
        )?;
        let mut entries = Vec::new();
        for number in 1..=n_keys {
            entries.push(entry(&mut reader, number)?);
        }
        let metadata = Metadata::new(Arc::clone(source), entries).map_err(|key| {
            HeaderError::DuplicateKey {
                key: printable(&key),
            }
        })?;
        let alignment = alignment(&metadata)?;
        let mut descriptions = Vec::new();
        for number in 1..=n_tensors {
            descriptions.push(tensor::describe(&mut reader, number)?);
        }
        let data_start = (reader.position() as u64).next_multiple_of(alignment);
        let tensors = tensor::place(source, descriptions, data_start, alignment)?;
        Ok(Self {
            version,
            alignment,
            metadata,
            tensors,
        })
    }
}

/// Version, number of tensors, number of keys.
fn preamble(reader: &mut Reader<'_>) -> Result<(u32, u64, u64), HeaderError> {
    let n_bytes = reader.left();
    if n_bytes < 4 {
        return Err(HeaderError::TooShort { n_bytes });
    }
    let magic = reader.take(4, What::Preamble)?;
    if magic != b"GGUF" {
        return Err(HeaderError::Magic {
            got: magic.escape_ascii().to_string(),
        });
    }
    let version = reader.u32(What::Preamble)?;
    match version {
        2 | 3 => {}
        _ if (1..=3).contains(&version.swap_bytes()) => return Err(HeaderError::BigEndian),
        _ => return Err(HeaderError::Version { version }),
    }
    Ok((
        version,
        reader.u64(What::Preamble)?,
        reader.u64(What::Preamble)?,
    ))
}

fn check_count(what: &'static str, count: u64, room: u64, limit: u64) -> Result<(), HeaderError> {
    if count > room {
        return Err(HeaderError::Count { what, count, room });
    }
    if count > limit {
        return Err(HeaderError::TooMany { what, count, limit });
    }
    Ok(())
}

/// The `number`th key and where its value stands.
fn entry(reader: &mut Reader<'_>, number: u64) -> Result<Entry, HeaderError> {
    let key = name(reader, What::Key, number)?;
    let in_key = |problem| HeaderError::Key {
        key: printable(key),
        problem: Box::new(problem),
    };
    let id = reader.u32(What::Value).map_err(in_key)?;
    let value_type = ValueType::from_id(id)
        .ok_or(HeaderError::ValueType { id })
        .map_err(in_key)?;
    let start = reader.position();
    reader.value(value_type).map_err(in_key)?;
    Ok(Entry {
        key: key.into(),
        value_type,
        range: start..reader.position(),
    })
}

/// A key's or a tensor's name: UTF-8, neither empty nor beyond [`MAX_NAME_BYTES`].
pub(super) fn name<'a>(
    reader: &mut Reader<'a>,
    what: What,
    number: u64,
) -> Result<&'a str, HeaderError> {
    let bytes = reader.string(what)?;
    let bad = |reason| {
        let what = if what == What::Key { "key" } else { "tensor" };
        HeaderError::Name {
            what,
            number,
            reason,
        }
    };
    match bytes.len() {
        0 => Err(bad("of no letters")),
        1..=MAX_NAME_BYTES => str::from_utf8(bytes).map_err(|_| bad("that is not UTF-8")),
        _ => Err(bad("of more than 65535 bytes")),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64, HeaderError> {
    let bad = |got| HeaderError::Alignment { got };
    match metadata.value("general.alignment") {
        Ok(None) => Ok(DEFAULT_ALIGNMENT),
        Ok(Some(Value::U32(got))) => {
            let got = u64::from(got);
            let is_good = got.is_power_of_two() && ALIGNMENTS.contains(&got);
            if is_good {
                Ok(got)
            } else {
                Err(bad(got.to_string()))
            }
        }
        Ok(Some(other)) => Err(bad(other.describe())),
        Err(error) => Err(bad(error.to_string())),
    }
}

/// Text from a file as it may be shown: nothing in it can move a terminal's cursor, change its
/// colours or turn the direction of writing, and at most 120 characters of it.
pub(crate) fn printable(text: &str) -> String {
    const MAX_CHARS: usize = 120;
    let mut shown = String::new();
    for c in text.chars().take(MAX_CHARS) {
        if is_control(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    if text.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// Whether a character is one that a terminal obeys instead of showing it.
pub(crate) fn is_control(c: char) -> bool {
    let turns_or_hides = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}');
    c.is_control() || turns_or_hides
}
