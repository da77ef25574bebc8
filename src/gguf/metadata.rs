//! The key-value part of a header. Only keys are copied; values are read where they stand.

use std::ops::Range;
use std::str;
use std::sync::Arc;

use super::Error;
use super::reader::Reader;
use super::source::Source;
use super::value::{Array, Value, ValueType};

/// A key and where its value stands in the file.
pub(super) struct Entry {
    pub(super) key: Box<str>,
    pub(super) value_type: ValueType,
    pub(super) range: Range<usize>,
}

/// The keys of a file and their values.
///
/// For each type there is a getter that wants the key, and one (`opt_`) that answers `None` when
/// the file does not have it. Both answer an error when the key holds something else. Integers may
/// have any width as long as the number fits.
pub struct Metadata {
    source: Arc<Source>,
    /// In the order of the file.
    entries: Vec<Entry>,
    /// Places in `entries`, by ascending key.
    by_key: Vec<usize>,
}

impl Metadata {
    /// Errors: the key that stands there twice.
    pub(super) fn new(source: Arc<Source>, entries: Vec<Entry>) -> Result<Self, String> {
        let key = |idx: usize| entries.get(idx).map(|entry| &*entry.key);
        let mut by_key: Vec<usize> = (0..entries.len()).collect();
        by_key.sort_unstable_by_key(|idx| key(*idx));
        let twice = by_key.windows(2).find(|pair| key(pair[0]) == key(pair[1]));
        if let Some(key) = twice.and_then(|pair| key(pair[0])) {
            return Err(key.to_owned());
        }
        Ok(Self {
            source,
            entries,
            by_key,
        })
    }

    /// `general.architecture`, e.g. `llama`.
    ///
    /// # Errors
    /// The key is absent or no UTF-8 text.
    pub fn architecture(&self) -> Result<&str, Error> {
        self.str("general.architecture")
    }

    /// Every key, in the order of the file.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.key)
    }

    /// Whether the file has a key.
    pub fn contains(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// The value of a key whatever its type; none when the file does not have it.
    ///
    /// # Errors
    /// [`Error::Changed`].
    pub fn value(&self, key: &str) -> Result<Option<Value<'_>>, Error> {
        let Some(entry) = self.entry(key) else {
            return Ok(None);
        };
        let bytes = self.source.get(..entry.range.end).unwrap_or_default();
        match Reader::new(bytes, entry.range.start).value(entry.value_type) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Error::Changed { key: key.into() }),
        }
    }

    /// The text of a key that has to be there.
    ///
    /// # Errors
    /// The key is absent or no UTF-8 text.
    pub fn str(&self, key: &str) -> Result<&str, Error> {
        required(key, self.opt_str(key)?)
    }

    /// The text of a key.
    ///
    /// # Errors
    /// The key holds no UTF-8 text.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>, Error> {
        match self.value(key)? {
            None => Ok(None),
            Some(Value::Str(bytes)) => str::from_utf8(bytes)
                .map(Some)
                .map_err(|_| Error::NotUtf8 { key: key.into() }),
            Some(other) => Err(wrong_type(key, "a text", other)),
        }
    }

    /// The integer of a key that has to be there.
    ///
    /// # Errors
    /// The key is absent, no integer, or not in 0..2^32.
    pub fn u32(&self, key: &str) -> Result<u32, Error> {
        required(key, self.opt_u32(key)?)
    }

    /// The integer of a key.
    ///
    /// # Errors
    /// The key holds no integer, or one that is not in 0..2^32.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>, Error> {
        self.opt_integer(key, "an unsigned 32-bit integer")
    }

    /// The integer of a key that has to be there.
    ///
    /// # Errors
    /// The key is absent, no integer, or negative.
    pub fn u64(&self, key: &str) -> Result<u64, Error> {
        required(key, self.opt_u64(key)?)
    }

    /// The integer of a key.
    ///
    /// # Errors
    /// The key holds no integer, or a negative one.
    pub fn opt_u64(&self, key: &str) -> Result<Option<u64>, Error> {
        self.opt_integer(key, "an unsigned 64-bit integer")
    }

    /// The floating-point number of a key that has to be there.
    ///
    /// # Errors
    /// The key is absent or no f32 or f64.
    pub fn f32(&self, key: &str) -> Result<f32, Error> {
        required(key, self.opt_f32(key)?)
    }

    /// The floating-point number of a key. An f64 is rounded.
    ///
    /// # Errors
    /// The key holds no f32 or f64.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, Error> {
        match self.value(key)? {
            None => Ok(None),
            Some(Value::F32(value)) => Ok(Some(value)),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rounding is what is asked for"
            )]
            Some(Value::F64(value)) => Ok(Some(value as f32)),
            Some(other) => Err(wrong_type(key, "a floating-point number", other)),
        }
    }

    /// The yes or no of a key that has to be there.
    ///
    /// # Errors
    /// The key is absent or no bool.
    pub fn bool(&self, key: &str) -> Result<bool, Error> {
        required(key, self.opt_bool(key)?)
    }

    /// The yes or no of a key.
    ///
    /// # Errors
    /// The key holds no bool.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.value(key)? {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type(key, "a bool", other)),
        }
    }

    /// How many elements the array of a key has.
    ///
    /// # Errors
    /// The key holds no array.
    pub fn opt_len(&self, key: &str) -> Result<Option<usize>, Error> {
        match self.value(key)? {
            None => Ok(None),
            Some(Value::Array(array)) => Ok(Some(array.len())),
            Some(other) => Err(wrong_type(key, "an array", other)),
        }
    }

    /// The texts of a key that has to be there.
    ///
    /// # Errors
    /// The key is absent or no array of texts.
    pub fn strings(&self, key: &str) -> Result<Strings<'_>, Error> {
        required(key, self.opt_strings(key)?)
    }

    /// The texts of a key.
    ///
    /// # Errors
    /// The key holds no array of texts.
    pub fn opt_strings(&self, key: &str) -> Result<Option<Strings<'_>>, Error> {
        let of_texts = |array: Array<'_>| array.element_type() == ValueType::Str;
        let array = self.opt_array(key, "an array of texts", of_texts)?;
        Ok(array.map(|array| Strings { array }))
    }

    /// The numbers of a key that has to be there.
    ///
    /// # Errors
    /// The key is absent or no array of f32.
    pub fn f32s(&self, key: &str) -> Result<Vec<f32>, Error> {
        required(key, self.opt_f32s(key)?)
    }

    /// The numbers of a key.
    ///
    /// # Errors
    /// The key holds no array of f32.
    pub fn opt_f32s(&self, key: &str) -> Result<Option<Vec<f32>>, Error> {
        let of_f32 = |array: Array<'_>| array.element_type() == ValueType::F32;
        let Some(array) = self.opt_array(key, "an array of f32", of_f32)? else {
            return Ok(None);
        };
        let (words, _) = array.bytes().as_chunks();
        Ok(Some(
            words.iter().map(|word| f32::from_le_bytes(*word)).collect(),
        ))
    }

    /// The integers of a key that has to be there.
    ///
    /// # Errors
    /// The key is absent, no array of 32-bit or 64-bit integers, or one does not fit an i32.
    pub fn i32s(&self, key: &str) -> Result<Vec<i32>, Error> {
        required(key, self.opt_i32s(key)?)
    }

    /// The integers of a key. Narrower ones than 32 bits, which no writer uses here, are refused:
    /// the list would be larger than the file.
    ///
    /// # Errors
    /// The key holds no array of 32-bit or 64-bit integers, or one does not fit an i32.
    pub fn opt_i32s(&self, key: &str) -> Result<Option<Vec<i32>>, Error> {
        use ValueType::{I32, I64, U32, U64};
        let of_integers = |array: Array<'_>| matches!(array.element_type(), I32 | U32 | I64 | U64);
        let expected = "an array of 32-bit integers";
        let Some(array) = self.opt_array(key, expected, of_integers)? else {
            return Ok(None);
        };
        let mut fit = Vec::with_capacity(array.len());
        for integer in array.iter().filter_map(Value::integer) {
            fit.push(i32::try_from(integer).map_err(|_| out_of_range(key, integer, expected))?);
        }
        Ok(Some(fit))
    }

    fn opt_array(
        &self,
        key: &str,
        expected: &'static str,
        fits: impl Fn(Array<'_>) -> bool,
    ) -> Result<Option<Array<'_>>, Error> {
        match self.value(key)? {
            None => Ok(None),
            Some(Value::Array(array)) if fits(array) => Ok(Some(array)),
            Some(other) => Err(wrong_type(key, expected, other)),
        }
    }

    fn opt_integer<T: TryFrom<i128>>(
        &self,
        key: &str,
        expected: &'static str,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.value(key)? else {
            return Ok(None);
        };
        let integer = value
            .integer()
            .ok_or_else(|| wrong_type(key, expected, value))?;
        T::try_from(integer)
            .map(Some)
            .map_err(|_| out_of_range(key, integer, expected))
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        let key_of = |idx: &usize| self.entries.get(*idx).map(|entry| &*entry.key);
        let place = self
            .by_key
            .binary_search_by(|idx| key_of(idx).cmp(&Some(key)))
            .ok()?;
        self.entries.get(*self.by_key.get(place)?)
    }
}

/// An array of texts, in place: nothing is copied until it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Strings<'a> {
    array: Array<'a>,
}

impl<'a> Strings<'a> {
    /// How many texts there are.
    pub fn len(&self) -> usize {
        self.array.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.array.is_empty()
    }

    /// Each text in order. They need not be UTF-8: a token may be half a character.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.array.iter().filter_map(|value| match value {
            Value::Str(bytes) => Some(bytes),
            _ => None,
        })
    }
}

fn required<T>(key: &str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| Error::MissingKey { key: key.into() })
}

fn wrong_type(key: &str, expected: &'static str, got: Value<'_>) -> Error {
    Error::WrongType {
        key: key.into(),
        expected,
        got: got.describe(),
    }
}

fn out_of_range(key: &str, value: i128, expected: &'static str) -> Error {
    Error::OutOfRange {
        key: key.into(),
        value,
        expected,
    }
}
