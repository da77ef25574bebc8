//! Why a source gave no file, one clause each.

use std::io;
use std::path::{Path, PathBuf};

use crate::catalog::checked::Sha256;

/// Why a source gave no file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The address in the configuration is none.
    #[error("HF_ENDPOINT is {value:?}, not an http or https address: {reason}")]
    Endpoint {
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A proxy's address is none.
    #[error("{variable} is no proxy's address: {reason}")]
    Proxy {
        /// Where it stands.
        variable: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The file of certificates cannot be used.
    #[error(
        "{named_by} names {}, which cannot be used: {reason}; it should hold certificates in PEM",
        .path.display()
    )]
    Certificates {
        /// The setting.
        named_by: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No client could be made, e.g. because the machine has no root certificates.
    #[error("cannot prepare a connection: {0}")]
    Client(String),
    /// Nobody answers.
    #[error("cannot reach {host}: {reason}")]
    Unreachable {
        /// Which host.
        host: String,
        /// What happened.
        reason: String,
    },
    /// The server answers with an error.
    #[error("{url} answers {status}: {advice}")]
    Status {
        /// What was asked for, without its query.
        url: String,
        /// The status.
        status: u16,
        /// What to do.
        advice: String,
        /// How long the server asks to wait.
        retry_after_seconds: Option<u64>,
    },
    /// The server sends the client somewhere it will not go.
    #[error("{url} redirects {reason}")]
    Redirect {
        /// What was asked for, without its query.
        url: String,
        /// Where to, and why not.
        reason: String,
    },
    /// The server packs what it was asked to send as it is.
    #[error(
        "{url} answers with content-encoding {encoding:?}, though plain bytes were asked for: a \
         proxy or mirror that changes files is of no use here"
    )]
    Encoded {
        /// What was asked for, without its query.
        url: String,
        /// How it is packed.
        encoding: String,
    },
    /// The hub has the file from another commit than was asked for.
    #[error(
        "commit {asked} was asked for, and the hub answers from {got}: it is not the hub's to \
         choose; check HF_ENDPOINT"
    )]
    OtherCommit {
        /// The manifest's.
        asked: String,
        /// The hub's.
        got: String,
    },
    /// Nobody says what the file should be.
    #[error(
        "{url} states no sha256 of the file, so what it sends could not be verified: write the \
         file's sha256 into the manifest"
    )]
    NoChecksum {
        /// What was asked for.
        url: String,
    },
    /// Nobody says how long the file is.
    #[error("{url} does not say how long the file is")]
    NoLength {
        /// What was asked for, without its query.
        url: String,
    },
    /// The hub has another file than the manifest says.
    #[error(
        "the hub has another file than the manifest says: its sha256 is {stated}, the manifest's \
         {declared}"
    )]
    NotAsDeclared {
        /// What the hub states.
        stated: Sha256,
        /// What the manifest states.
        declared: Sha256,
    },
    /// The hub has another file than the first time.
    #[error(
        "the hub has another file than when it was first fetched: its sha256 is {stated}, {pinned} \
         is pinned; if the change is wanted, delete the entry in {}", .pins.display()
    )]
    NotAsPinned {
        /// What the hub or the manifest states.
        stated: Sha256,
        /// What is pinned.
        pinned: Sha256,
        /// The lock file.
        pins: PathBuf,
    },
    /// The hub's repository changed between two files of one model.
    #[error(
        "the repository moved from commit {before} to {now} while its files were looked up: fetch \
         it again"
    )]
    Moved {
        /// What the first file was from.
        before: String,
        /// What a later file is from.
        now: String,
    },
    /// The file has another length than stated.
    #[error("the file is {got} bytes long, {expected} were stated")]
    Length {
        /// As the manifest or the hub says.
        expected: u64,
        /// As it is.
        got: u64,
    },
    /// The answer ended early.
    #[error("the answer ended after {got} of {total} bytes")]
    Truncated {
        /// Bytes that are here.
        got: u64,
        /// Bytes of the whole file.
        total: u64,
    },
    /// Nothing arrived for long.
    #[error("nothing arrived for {seconds} s")]
    Stalled {
        /// How long.
        seconds: u64,
    },
    /// The connection broke, or what came over it was not as asked.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// All bytes are here, but not the right ones.
    #[error("the file's sha256 is {got}, expected was {expected}: it was thrown away")]
    WrongChecksum {
        /// What was stated.
        expected: Sha256,
        /// What was computed.
        got: Sha256,
    },
    /// The disk is too full.
    #[error(
        "{needed} more bytes are needed in {}, and {free} are free: make room, or set INGLE_HOME to \
         a folder on a larger disk", .path.display()
    )]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// Bytes that are still to come.
        needed: u64,
        /// Bytes that can be written.
        free: u64,
    },
    /// The file system or a limit takes no file of this length.
    #[error(
        "{} may not grow to {needed} bytes: its file system, or the limit on file sizes (ulimit -f), \
         is too small", .path.display()
    )]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// Bytes it should have.
        needed: u64,
    },
    /// The disk would not have it.
    #[error("{doing} {}: {source}", .path.display())]
    Io {
        /// What was tried, e.g. `writing`.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is no pip.
    #[error("pip is needed and none of these runs: {tried}; install Python 3 with pip")]
    NoPip {
        /// The commands that were tried, with what each said.
        tried: String,
    },
    /// pip gave no file.
    #[error("{command}: {last_line}")]
    Pip {
        /// How it was called.
        command: String,
        /// The last line it wrote.
        last_line: String,
    },
    /// The package is not what the manifest says.
    #[error("the package {problem}")]
    Package {
        /// What is wrong with it.
        problem: String,
    },
    /// The file of a `file` source is not there.
    #[error("{} is no file", .path.display())]
    NoFile {
        /// Where it should be.
        path: PathBuf,
    },
    /// The store's own files cannot be used.
    #[error("{0}")]
    Store(String),
}

impl FetchError {
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::Io {
            doing,
            path,
            source,
        }
    }

    /// Whether the same request may well succeed a moment later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Truncated { .. } | Self::Stalled { .. } | Self::Broken(_) => true,
            Self::Status { status, .. } => matches!(*status, 408 | 429 | 500..=599),
            _ => false,
        }
    }
}
