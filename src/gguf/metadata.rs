//! The key-value part of the header, read in place.

use super::Error;

/// The keys of a file.
pub struct Metadata {}

macro_rules! skeleton {
    ($($name:ident, $opt:ident: $ty:ty;)*) => {$(
        /// The value of a key that has to be there.
        ///
        /// # Errors
        /// The key is absent or holds another type.
        pub fn $name<'a>(&'a self, _key: &str) -> Result<$ty, Error> { todo!() }
        /// The value of a key; none when it is absent.
        ///
        /// # Errors
        /// The key holds another type.
        pub fn $opt<'a>(&'a self, _key: &str) -> Result<Option<$ty>, Error> { todo!() }
    )*};
}

impl Metadata {
    /// `general.architecture`.
    ///
    /// # Errors
    /// The key is absent or no text.
    pub fn architecture(&self) -> Result<&str, Error> {
        self.str("general.architecture")
    }

    /// Whether the file has the key.
    pub fn contains(&self, _key: &str) -> bool {
        todo!()
    }

    /// How many elements the array under a key has; none when it is absent.
    ///
    /// # Errors
    /// The key holds no array.
    pub fn opt_len(&self, _key: &str) -> Result<Option<usize>, Error> {
        todo!()
    }

    skeleton! {
        str, opt_str: &'a str;
        u32, opt_u32: u32;
        u64, opt_u64: u64;
        f32, opt_f32: f32;
        bool, opt_bool: bool;
        strings, opt_strings: Strings<'a>;
        f32s, opt_f32s: Vec<f32>;
        i32s, opt_i32s: Vec<i32>;
    }
}

/// An array of texts, read in place. They may not be UTF-8.
#[derive(Clone, Copy)]
pub struct Strings<'a> {
    bytes: &'a [u8],
}

impl<'a> Strings<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        [self.bytes].into_iter()
    }
}
