//! Some columns of a wider matrix.

use crate::ShapeError;

/// Rows of floats that lie within wider ones: `[n_rows, width]`, `stride` apart, from column `first` on.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// The wider rows.
    pub values: &'a [f32],
    /// Values of a wider row.
    pub stride: usize,
    /// The first column.
    pub first: usize,
}

impl<'a> Columns<'a> {
    /// A matrix of its own, whose rows have `width` values.
    pub fn whole(values: &'a [f32], width: usize) -> Self {
        Self {
            values,
            stride: width,
            first: 0,
        }
    }

    /// Checks that there are `n_rows` rows of `width` values.
    pub(crate) fn check(
        &self,
        what: &'static str,
        n_rows: usize,
        width: usize,
    ) -> Result<(), ShapeError> {
        let end = self.first.saturating_add(width);
        ShapeError::check_range("the end of a row's columns", end, self.stride + 1)?;
        ShapeError::check_length(what, self.values.len(), n_rows * self.stride)
    }

    /// `len` values of a row, from column `column` of these on.
    pub(crate) fn part(&self, row: usize, column: usize, len: usize) -> &'a [f32] {
        let start = row * self.stride + self.first + column;
        &self.values[start..start + len]
    }
}
