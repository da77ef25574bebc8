//! What can be wrong with a model file, one sentence each.

use std::io;
use std::path::PathBuf;

use super::header::HeaderError;

/// Why a GGUF file cannot be used, or a key of it not be read as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system would not open or map the file.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A folder, a device, a pipe or a socket.
    #[error("{} is {kind}, not a regular file: name a .gguf file", .path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// The header does not describe the file it stands in.
    #[error("{} {problem}", .path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: HeaderError,
    },
    /// One shard of a model in several files was named, but not the first.
    #[error(
        "{} is shard {number} of {count}: open the first one, {}",
        .path.display(), .first.display()
    )]
    NotFirstShard {
        /// What was named.
        path: PathBuf,
        /// Its number, from 1.
        number: u64,
        /// How many there are.
        count: u64,
        /// The name the first should have.
        first: PathBuf,
    },
    /// A shard is not where its name says.
    #[error(
        "{} is missing: the model is in {count} files and all must lie side by side",
        .path.display()
    )]
    MissingShard {
        /// Where it was looked for.
        path: PathBuf,
        /// How many shards there are.
        count: u64,
    },
    /// The shards do not belong together.
    #[error("{} {reason}", .path.display())]
    Shards {
        /// The shard that does not fit.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A key that has to be there is not.
    #[error("the file has no key {key}")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A key holds another type than its meaning needs.
    #[error("key {key} should be {expected} but is {got}")]
    WrongType {
        /// The key.
        key: String,
        /// The type asked for, with its article.
        expected: &'static str,
        /// The type in the file, with its article.
        got: String,
    },
    /// A number does not fit the type its meaning needs.
    #[error("key {key} is {value}, which does not fit {expected}")]
    OutOfRange {
        /// The key.
        key: String,
        /// The number in the file.
        value: i128,
        /// The type asked for, with its article.
        expected: &'static str,
    },
    /// A text is not UTF-8.
    #[error("key {key} holds text that is not UTF-8")]
    NotUtf8 {
        /// The key.
        key: String,
    },
    /// A value is no longer what it was when the file was opened and checked.
    #[error("key {key} has changed since the file was opened: something wrote to the file")]
    Changed {
        /// The key.
        key: String,
    },
}
