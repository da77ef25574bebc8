//! What can be wrong with the catalogue and the store, one sentence each.

use std::io;
use std::path::{Path, PathBuf};

use super::fetch::FetchError;

/// Why a model is not known, not here, or could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No model has this id or alias.
    #[error("there is no model {name:?}{}", near_text(.near))]
    Unknown {
        /// The name as it was asked for.
        name: String,
        /// Names that are close to it, or all ids if none is.
        near: Near,
    },
    /// A manifest cannot be read.
    #[error("{file}: {problem}")]
    Manifest {
        /// Which manifest.
        file: String,
        /// Where in it and what.
        problem: String,
    },
    /// Two models answer to one name.
    #[error("{file}: {first} has the name {name:?} already: a name stands for one model")]
    NameTaken {
        /// The manifest that was read second.
        file: String,
        /// The name both have.
        name: String,
        /// The id of the model that has it.
        first: String,
    },
    /// Several files that were put into folders have one name.
    #[error("several files are called {name:?}: ask for {}", .names.join(" or "))]
    Ambiguous {
        /// The name as it was asked for.
        name: String,
        /// What each of them is called.
        names: Vec<String>,
    },
    /// A model of another store cannot be recorded.
    #[error("{name:?} cannot be imported: {problem}")]
    Import {
        /// What it is called.
        name: String,
        /// Why, in one clause.
        problem: String,
    },
    /// The store's files cannot be read or written.
    #[error("{doing} {}: {source}", .path.display())]
    Io {
        /// What was tried, e.g. `creating`.
        doing: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The model is not in the store.
    #[error("{id} is not in {}: there is nothing to remove", .store.display())]
    NotInstalled {
        /// The model.
        id: String,
        /// The store's folder of models.
        store: PathBuf,
    },
    /// Somebody else is fetching or removing the model.
    #[error("{id} is being fetched or removed by another process: try again when that is done")]
    Busy {
        /// The model.
        id: String,
    },
    /// The file in the store is not what was verified when it was fetched.
    #[error(
        "{} has changed on disk: its sha256 is {got}, and {expected} was verified when it was \
         fetched: remove the model and fetch it again", .path.display()
    )]
    Corrupt {
        /// The model's file.
        path: PathBuf,
        /// What the receipt says.
        expected: String,
        /// What the file has.
        got: String,
    },
    /// No source gave the file.
    #[error("{id} could not be fetched: {}", failures_text(.failures))]
    NoSource {
        /// The model.
        id: String,
        /// Each source that was tried, and why it gave nothing.
        failures: Vec<(String, FetchError)>,
    },
}

impl Error {
    /// An error of the operating system about `path`.
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::Io {
            doing,
            path,
            source,
        }
    }
}

/// What to say about a name that nothing has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Near {
    /// Names a slip of the finger away.
    Names(Vec<String>),
    /// None is close: these are all.
    All(Vec<String>),
}

fn near_text(near: &Near) -> String {
    match near {
        Near::Names(names) => format!(": did you mean {}?", names.join(" or ")),
        Near::All(ids) => format!(
            ": the catalogue has {}; a path to a .gguf file will do as well",
            ids.join(", ")
        ),
    }
}

fn failures_text(failures: &[(String, FetchError)]) -> String {
    let lines = failures
        .iter()
        .map(|(source, reason)| format!("{source}: {reason}"));
    lines.collect::<Vec<_>>().join("; ")
}
