//! Tables for people: columns as wide as they need be.

use std::io::{self, Write};

/// Writes rows; the first one may be a head.
///
/// Errors: `out` does not take more.
pub(super) fn write<const N: usize, W: Write + ?Sized>(
    rows: &[[String; N]],
    out: &mut W,
) -> io::Result<()> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
