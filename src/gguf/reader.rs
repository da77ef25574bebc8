//! Reads little-endian values off a slice and never past its end.

use super::header::HeaderError;
use super::value::{Array, Value, ValueType};

/// Arrays in arrays in arrays: deeper than any writer goes, shallow enough for any stack.
pub(super) const MAX_ARRAY_DEPTH: u32 = 4;

/// A place in a file.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self {
            bytes,
            at: at.min(bytes.len()),
        }
    }

    /// How many bytes were read, counted from the start of the file.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `n_bytes`; `what` is what an error calls them.
    pub(super) fn take(&mut self, n_bytes: u64, what: What) -> Result<&'a [u8], HeaderError> {
        let end = usize::try_from(n_bytes)
            .ok()
            .and_then(|n| self.at.checked_add(n));
        let slice = end.and_then(|end| self.bytes.get(self.at..end));
        match slice {
            Some(slice) => {
                self.at += slice.len();
                Ok(slice)
            }
            None => Err(HeaderError::PastEnd {
                what,
                at: self.at as u64,
                n_bytes,
                left: self.left(),
            }),
        }
    }

    fn array<const N: usize>(&mut self, what: What) -> Result<[u8; N], HeaderError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: What) -> Result<u32, HeaderError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: What) -> Result<u64, HeaderError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A text: its length, then its bytes.
    pub(super) fn string(&mut self, what: What) -> Result<&'a [u8], HeaderError> {
        let n_bytes = self.u64(what)?;
        self.take(n_bytes, what)
    }

    /// A value of a type, all of it checked, nothing of it copied.
    pub(super) fn value(&mut self, ty: ValueType) -> Result<Value<'a>, HeaderError> {
        self.value_at_depth(ty, 0)
    }

    fn value_at_depth(&mut self, ty: ValueType, depth: u32) -> Result<Value<'a>, HeaderError> {
        let what = What::Value;
        Ok(match ty {
            ValueType::U8 => Value::U8(u8::from_le_bytes(self.array(what)?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(self.array(what)?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(self.array(what)?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(self.array(what)?)),
            ValueType::U32 => Value::U32(self.u32(what)?),
            ValueType::I32 => Value::I32(i32::from_le_bytes(self.array(what)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.array(what)?)),
            ValueType::Bool => match self.array(what)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [got] => return Err(HeaderError::Bool { got }),
            },
            ValueType::Str => Value::Str(self.string(what)?),
            ValueType::Array => Value::Array(self.array_value(depth + 1)?),
            ValueType::U64 => Value::U64(self.u64(what)?),
            ValueType::I64 => Value::I64(i64::from_le_bytes(self.array(what)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.array(what)?)),
        })
    }

    /// An array: walked over only where its elements differ in length.
    fn array_value(&mut self, depth: u32) -> Result<Array<'a>, HeaderError> {
        if depth > MAX_ARRAY_DEPTH {
            return Err(HeaderError::Depth);
        }
        let id = self.u32(What::Array)?;
        let element = ValueType::from_id(id).ok_or(HeaderError::ValueType { id })?;
        let len = self.u64(What::Array)?;
        let room = self.left() / element.min_bytes();
        if len > room {
            return Err(HeaderError::ArrayLen {
                len,
                element: element.name(),
                room,
            });
        }
        let start = self.at;
        match element {
            ValueType::Str => {
                for _ in 0..len {
                    self.string(What::Value)?;
                }
            }
            ValueType::Array => {
                for _ in 0..len {
                    self.array_value(depth + 1)?;
                }
            }
            ValueType::Bool => {
                let bad = self.take(len, What::Array)?.iter().find(|byte| **byte > 1);
                if let Some(got) = bad {
                    return Err(HeaderError::Bool { got: *got });
                }
            }
            // `len` is at most `room`, so the product is at most what is left.
            _ => {
                self.take(len * element.min_bytes(), What::Array)?;
            }
        }
        let bytes = self.bytes.get(start..self.at).unwrap_or_default();
        Ok(Array::new(element, len, bytes))
    }
}

/// What was being read when the file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The fixed fields every file starts with.
    Preamble,
    /// The name of a key.
    Key,
    /// The value of a key.
    Value,
    /// An array's type, length or elements.
    Array,
    /// A tensor's name, dimensions, type or offset.
    Tensor,
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Preamble => "the header",
            Self::Key => "a key",
            Self::Value => "a value",
            Self::Array => "an array",
            Self::Tensor => "a tensor's description",
        })
    }
}
