//! Models in several files, named `<model>-00001-of-00003.gguf` and so on.
//!
//! Source: llama.cpp's `gguf-split`: the first shard has all metadata, each has `split.no`
//! (counted from 0), `split.count` and `split.tensors.count`.

use std::path::{Path, PathBuf};

use super::{Error, Metadata};

/// The file names have five digits.
const MAX_SHARDS: u64 = 99_999;

/// What a shard says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// Which shard it is, from 1.
    pub(super) number: u64,
    /// How many there are, at least 2.
    pub(super) count: u64,
    /// How many tensors all shards have together, if it says so.
    pub(super) n_tensors: Option<u64>,
}

impl Split {
    /// What the file at `path` says of itself; none when it is a whole model.
    pub(super) fn of(path: &Path, metadata: &Metadata) -> Result<Option<Self>, Error> {
        let wrong = |reason: String| Error::Shards {
            path: path.into(),
            reason,
        };
        let in_file = |error: Error| wrong(error.to_string());
        let count = match metadata.opt_u64("split.count").map_err(in_file)? {
            None | Some(0 | 1) => return Ok(None),
            Some(count) if count > MAX_SHARDS => {
                return Err(wrong(format!(
                    "split.count is {count}, more than {MAX_SHARDS}"
                )));
            }
            Some(count) => count,
        };
        let idx = metadata.u64("split.no").map_err(in_file)?;
        if idx >= count {
            return Err(wrong(format!(
                "split.no is {idx}, but split.count is {count}"
            )));
        }
        let n_tensors = metadata.opt_u64("split.tensors.count").map_err(in_file)?;
        Ok(Some(Self {
            number: idx + 1,
            count,
            n_tensors,
        }))
    }

    /// The name of the shard with a number, derived from the name of this one.
    pub(super) fn sibling(&self, path: &Path, number: u64) -> Result<PathBuf, Error> {
        let suffix = suffix(self.number, self.count);
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Some(stem) = name.strip_suffix(&suffix) else {
            let Self { number, count, .. } = self;
            let reason = format!(
                "says it is shard {number} of {count}, so its name should end in {suffix}: \
                 give all shards their names back"
            );
            return Err(Error::Shards {
                path: path.into(),
                reason,
            });
        };
        Ok(path.with_file_name(format!("{stem}{}", self::suffix(number, self.count))))
    }
}

fn suffix(number: u64, count: u64) -> String {
    format!("-{number:05}-of-{count:05}.gguf")
}
