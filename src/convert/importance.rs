//! Importance matrices: how much an error in each column of a weight matters, as llama.cpp's tool
//! measures it on a text. Both of its formats are read.

use std::collections::HashMap;
use std::path::Path;

use super::Error;
use super::files;
use crate::gguf::{Gguf, TensorInfo, printable};

/// Larger ones no model has.
const MAX_BYTES: u64 = 1 << 30;

/// Means of squares that no network comes near, and with which no sum is infinite.
const GREATEST: f32 = 1e15;

/// What is known of each weight's columns.
#[derive(Debug, Default)]
pub struct Importance {
    columns: HashMap<String, Vec<f32>>,
    /// The text it was measured on, if that is known.
    pub(super) dataset: Option<String>,
    /// Pieces of text it was measured on.
    pub(super) n_chunks: u32,
}

impl Importance {
    /// Reads a matrix of either format.
    ///
    /// # Errors
    /// The file cannot be read, contradicts itself, or holds what is not finite.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let bytes = files::read(path, MAX_BYTES, "name an importance matrix")?;
        let this = if bytes.starts_with(b"GGUF") {
            Self::from_gguf(path, bytes)?
        } else {
            Self::from_legacy(path, &bytes).map_err(|problem| Error::content(path, problem))?
        };
        if this.columns.is_empty() {
            return Err(Error::content(path, "holds no importance matrix"));
        }
        for (name, columns) in &this.columns {
            if columns
                .iter()
                .any(|value| !(0.0..=GREATEST).contains(value))
            {
                let name = printable(name);
                let problem = format!("holds for {name} what is no importance: measure it anew");
                return Err(Error::content(path, problem));
            }
        }
        Ok(this)
    }

    /// What is known of a tensor's columns.
    pub(super) fn of(&self, name: &str) -> Option<&[f32]> {
        self.columns.get(name).map(Vec::as_slice)
    }

    /// Tensors of which something is known.
    pub(super) fn len(&self) -> usize {
        self.columns.len()
    }

    /// Sums of squares and counts, a tensor each.
    fn from_gguf(path: &Path, bytes: Vec<u8>) -> Result<Self, Error> {
        let gguf = Gguf::from_bytes(path, bytes)?;
        let mut this = Self::default();
        let metadata = gguf.metadata();
        this.n_chunks = metadata.opt_u32("imatrix.chunk_count")?.unwrap_or(0);
        if let Some(datasets) = metadata.opt_strings("imatrix.datasets")? {
            let first = datasets.iter().next();
            this.dataset = first.map(|text| String::from_utf8_lossy(text).into_owned());
        }
        for tensor in gguf.tensors() {
            let Some(name) = tensor.name.strip_suffix(".in_sum2") else {
                continue;
            };
            let wrong = |problem: String| Error::content(path, problem);
            let counts = gguf.tensor(&format!("{name}.counts")).ok_or_else(|| {
                let name = printable(name);
                wrong(format!(
                    "has sums but no counts for {name}: measure it anew"
                ))
            })?;
            let (sums, counts) = (floats(&gguf, tensor), floats(&gguf, counts));
            let (Some(sums), Some(counts)) = (sums, counts) else {
                let name = printable(name);
                return Err(wrong(format!("holds {name} in another type than F32")));
            };
            let mean = means(&sums, &counts).ok_or_else(|| {
                let (name, n_sums, n_counts) = (printable(name), sums.len(), counts.len());
                wrong(format!(
                    "has {n_sums} sums and {n_counts} counts for {name}"
                ))
            })?;
            this.columns.insert(name.to_owned(), mean);
        }
        Ok(this)
    }

    /// How many tensors; for each its name, calls, and values; then calls and the text's name.
    fn from_legacy(path: &Path, bytes: &[u8]) -> Result<Self, String> {
        let mut rest = Rest(bytes);
        let mut this = Self::default();
        let n_tensors = rest.count("tensors")?;
        for _ in 0..n_tensors {
            let name_len = rest.count("letters of a name")?;
            let name = rest.take(name_len)?;
            let name = std::str::from_utf8(name)
                .map_err(|_| "names a tensor in what is no UTF-8".to_owned())?;
            let n_calls = rest.i32()?;
            let n_values = rest.count("values")?;
            let bytes = rest.take(n_values.saturating_mul(4))?;
            let divisor = if n_calls > 0 { n_calls as f32 } else { 1.0 };
            let value = |word: &[u8; 4]| f32::from_le_bytes(*word) / divisor;
            let values = bytes.as_chunks().0.iter().map(value).collect();
            this.columns.insert(name.to_owned(), values);
        }
        // What follows need not be there.
        if let Ok(n_chunks) = rest.i32() {
            this.n_chunks = u32::try_from(n_chunks).unwrap_or(0);
            let name = rest
                .count("letters of a name")
                .and_then(|len| rest.take(len));
            this.dataset = name
                .ok()
                .map(|text| String::from_utf8_lossy(text).into_owned());
        }
        tracing::debug!("{}: {n_tensors} importance entries", path.display());
        Ok(this)
    }
}

fn floats(gguf: &Gguf, tensor: &TensorInfo) -> Option<Vec<f32>> {
    let is_f32 = tensor.ty.name() == "F32";
    let bytes = is_f32.then(|| gguf.bytes(tensor))?;
    Some(
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|word| f32::from_le_bytes(*word))
            .collect(),
    )
}

/// Sums over their count; ones where nothing was counted. Of experts each has a count.
fn means(sums: &[f32], counts: &[f32]) -> Option<Vec<f32>> {
    let n_columns = sums.len().checked_div(counts.len())?;
    let is_whole = n_columns > 0 && n_columns * counts.len() == sums.len();
    is_whole.then(|| {
        let with_count = sums.chunks(n_columns).zip(counts);
        let mean = |(sums, count): (&[f32], &f32)| {
            let count = count.round();
            let one = move |sum: &f32| if count > 0.0 { sum / count } else { 1.0 };
            sums.iter().map(one).collect::<Vec<_>>()
        };
        with_count.flat_map(mean).collect()
    })
}

/// What is still unread.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, n_bytes: usize) -> Result<&'a [u8], String> {
        let parts = self.0.split_at_checked(n_bytes);
        let (taken, rest) =
            parts.ok_or("ends in the middle of an importance matrix, or is none")?;
        self.0 = rest;
        Ok(taken)
    }

    fn i32(&mut self) -> Result<i32, String> {
        let bytes = self.take(4)?;
        let word = bytes.first_chunk().copied().unwrap_or_default();
        Ok(i32::from_le_bytes(word))
    }

    fn count(&mut self, what: &str) -> Result<usize, String> {
        let count = self.i32()?;
        let fits = usize::try_from(count).ok().filter(|count| *count > 0);
        fits.ok_or_else(|| format!("claims {count} {what}: this is no importance matrix"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sums_are_divided_by_their_counts() {
        assert_eq!(means(&[2.0, 4.0], &[2.0]), Some(vec![1.0, 2.0]));
        assert_eq!(means(&[2.0, 4.0], &[2.0, 0.0]), Some(vec![1.0, 1.0]));
        assert_eq!(means(&[2.0, 4.0], &[1.0; 3]), None);
        assert_eq!(means(&[], &[]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_take_memory_they_do_not_have(
            count in 0_i32..4, bytes in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut file = count.to_le_bytes().to_vec();
            file.extend(bytes);
            let _ = Importance::from_legacy(Path::new("imatrix"), &file);
        }
    }
}
