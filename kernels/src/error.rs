//! What can be wrong with a call: the shapes.

/// A length or an index that does not fit the operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A slice of the wrong length.
    #[error("{what} has {got} elements where {expected} are needed")]
    Length {
        /// The slice.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The length that fits.
        expected: usize,
    },
    /// A dimension that is not a whole number of groups.
    #[error("{what} is {got}, which is not a positive multiple of {of}")]
    Multiple {
        /// The dimension.
        what: &'static str,
        /// Its value.
        got: usize,
        /// The size of a group.
        of: usize,
    },
    /// An index past its end.
    #[error("{what} is {got}, which is not below {limit}")]
    Range {
        /// The index.
        what: &'static str,
        /// Its value.
        got: usize,
        /// The first value that is too large.
        limit: usize,
    },
    /// An operation that this weight type does not take.
    #[error("a {weight_type} matrix takes {needed} activations")]
    Activations {
        /// The name of the weight type.
        weight_type: &'static str,
        /// What it takes: `quantised` or `f32`.
        needed: &'static str,
    },
}

impl ShapeError {
    /// Checks that a slice has the length it needs.
    pub(crate) fn check_length(
        what: &'static str,
        got: usize,
        expected: usize,
    ) -> Result<(), Self> {
        if got == expected {
            Ok(())
        } else {
            Err(Self::Length {
                what,
                got,
                expected,
            })
        }
    }

    /// Checks that a dimension is a positive multiple of `of`.
    pub(crate) fn check_multiple(what: &'static str, got: usize, of: usize) -> Result<(), Self> {
        if got > 0 && of > 0 && got.is_multiple_of(of) {
            Ok(())
        } else {
            Err(Self::Multiple { what, got, of })
        }
    }

    /// Checks that an index is below its limit.
    pub(crate) fn check_range(what: &'static str, got: usize, limit: usize) -> Result<(), Self> {
        if got < limit {
            Ok(())
        } else {
            Err(Self::Range { what, got, limit })
        }
    }
}
