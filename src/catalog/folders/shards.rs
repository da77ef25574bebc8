//! Models in several files, by what the files are called: `m-00001-of-00003.gguf` and so on.

use std::path::{Path, PathBuf};

/// The number of a shard and of how many it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShardNumber {
    pub(super) number: u32,
    pub(super) count: u32,
}

/// What the shards of a model have in common, and which of them this is; `None` for a whole model.
pub(super) fn shard(stem: &str) -> Option<(&str, ShardNumber)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| {
        let is_number = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<u32>().ok()).flatten()
    };
    let (number, count) = (digits(number)?, digits(count)?);
    let is_shard = !name.is_empty() && (1..=count).contains(&number);
    is_shard.then_some((name, ShardNumber { number, count }))
}

/// A sharded model is called what its shards have in common: `m-00001-of-00003` is `m`.
pub fn without_shard(stem: &str) -> &str {
    shard(stem).map_or(stem, |(name, _)| name)
}

/// The GGUF file at `path` and, of a sharded model, those beside it; `None` where it is no GGUF file.
pub(in crate::catalog) fn siblings(path: &Path) -> Option<Vec<PathBuf>> {
    let is_gguf = path.extension()?.eq_ignore_ascii_case("gguf");
    let stem = path.file_stem()?.to_str()?;
    let Some((name, ShardNumber { count, .. })) = shard(stem) else {
        return is_gguf.then(|| vec![path.to_owned()]);
    };
    let file = |number| path.with_file_name(format!("{name}-{number:05}-of-{count:05}.gguf"));
    is_gguf.then(|| (1..=count).map(file).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_a_name() {
        assert_eq!(without_shard("llama-00001-of-00003"), "llama");
        let second = ShardNumber {
            number: 2,
            count: 3,
        };
        assert_eq!(shard("a-b-00002-of-00003"), Some(("a-b", second)));
        for plain in [
            "llama",
            "a-of-b",
            "one-1-of-2",
            "-00001-of-00003",
            "m-00004-of-00003",
            "m-00000-of-00003",
        ] {
            assert_eq!(without_shard(plain), plain);
        }
    }
}
