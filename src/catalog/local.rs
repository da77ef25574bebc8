//! Models that are used where they lie: put into a folder, or imported from another program's store.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::error::Error;
use super::folders::Skipped;
use super::imports::{Import, Recorded};
use super::store::Store;

/// A file that was written to in this time may still be being written.
const QUIET: Duration = Duration::from_secs(2);

/// A model that is used where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalModel {
    /// What it is called.
    pub name: String,
    /// Its file, the first of its shards.
    pub path: PathBuf,
    /// All its files, in order.
    pub files: Vec<PathBuf>,
    /// How it came to be known.
    pub origin: Origin,
}

/// How a model that is used where it lies came to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It lies in a folder of models.
    Folder(PathBuf),
    /// It was imported.
    Import(Box<Import>),
}

/// By what a file is known to be still the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    path: PathBuf,
    size_bytes: u64,
    modified: SystemTime,
}

/// Why a model's file cannot be used now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotHere {
    /// It is gone.
    #[error("{path:?} is gone{}", advice_text(.advice))]
    Gone {
        /// Which file.
        path: PathBuf,
        /// What to do.
        advice: String,
    },
    /// It is another than when it was imported.
    #[error(
        "{path:?} is {got} bytes long and was {expected} when it was imported: run ingle import again"
    )]
    Changed {
        /// Which file.
        path: PathBuf,
        /// Its length now.
        got: u64,
        /// Its length when it was imported.
        expected: u64,
    },
    /// It may not be whole yet.
    #[error(
        "{path:?} was written to a moment ago: it is offered once it has been left alone for 2 s"
    )]
    StillWritten {
        /// Which file.
        path: PathBuf,
    },
    /// It cannot be looked at.
    #[error("{path:?}: {reason}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
}

/// All models that are used where they lie.
#[derive(Debug, Default)]
pub struct LocalModels {
    /// Those there are, by name.
    pub models: Vec<LocalModel>,
    /// Files in folders of models that are not offered.
    pub skipped: Vec<Skipped>,
}

impl Store {
    /// The model of this name that is used where it lies: one that was put into a folder before one
    /// that was imported. Reads the disk.
    ///
    /// # Errors
    /// [`Error::Ambiguous`]; a record that cannot be read.
    pub fn local(&self, name: &str) -> Result<Option<LocalModel>, Error> {
        let scan = self.folders.scan();
        if let Some(names) = scan.ambiguous.get(name) {
            let (name, names) = (name.to_owned(), names.clone());
            return Err(Error::Ambiguous { name, names });
        }
        match scan.find(name) {
            Some(model) => Ok(Some(model.clone())),
            None => self.imports.find(name),
        }
    }

    /// All models that are used where they lie. Reads the disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn local_models(&self) -> Result<LocalModels, Error> {
        let scan = self.folders.scan();
        let mut models: Vec<LocalModel> = scan.models().cloned().collect();
        // Of two with one name it is the file in the folder that is asked for.
        let hidden = |import: &LocalModel| scan.find(&import.name).is_some();
        let imports = self.imports.all()?.into_iter();
        models.extend(imports.filter(|import| !hidden(import)));
        models.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(LocalModels {
            models,
            skipped: scan.skipped.clone(),
        })
    }

    /// Records a model of another program's store, or what has changed of it.
    ///
    /// # Errors
    /// [`Error::Import`], [`Error::Io`].
    pub fn record_import(&self, import: &Import) -> Result<Recorded, Error> {
        self.imports.record(import)
    }

    /// All recorded imports, by name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn imported(&self) -> Result<Vec<LocalModel>, Error> {
        self.imports.all()
    }

    /// Forgets an imported model; its files stay where they are. False when none has the name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn forget_import(&self, name: &str) -> Result<bool, Error> {
        self.imports.forget(name)
    }
}

fn advice_text(advice: &str) -> String {
    if advice.is_empty() {
        return String::new();
    }
    format!(": {advice}")
}

impl LocalModel {
    /// By what its files are known to be still the same. Reads the disk.
    ///
    /// # Errors
    /// One of them is gone, another than it was, or still being written.
    pub fn facts(&self) -> Result<Vec<Fact>, NotHere> {
        let mut facts = Vec::with_capacity(self.files.len());
        for path in &self.files {
            facts.push(self.fact(path)?);
        }
        if let Origin::Import(import) = &self.origin {
            let got = facts.iter().map(|fact| fact.size_bytes).sum();
            if got != import.size_bytes {
                return Err(NotHere::Changed {
                    path: self.path.clone(),
                    got,
                    expected: import.size_bytes,
                });
            }
        }
        Ok(facts)
    }

    fn fact(&self, path: &Path) -> Result<Fact, NotHere> {
        let meta = fs::metadata(path).map_err(|error| self.not_here(path, &error))?;
        let modified = meta
            .modified()
            .map_err(|error| self.not_here(path, &error))?;
        // A time that is yet to come says nothing.
        let since = SystemTime::now().duration_since(modified);
        let is_written = matches!(self.origin, Origin::Folder(_));
        if is_written && since.is_ok_and(|since| since < QUIET) {
            let path = path.to_owned();
            return Err(NotHere::StillWritten { path });
        }
        Ok(Fact {
            path: path.to_owned(),
            size_bytes: meta.len(),
            modified,
        })
    }

    fn not_here(&self, path: &Path, error: &io::Error) -> NotHere {
        let path = path.to_owned();
        if error.kind() != io::ErrorKind::NotFound {
            let reason = error.to_string();
            return NotHere::Unreadable { path, reason };
        }
        let advice = match &self.origin {
            Origin::Folder(_) => String::new(),
            Origin::Import(import) => format!(
                "get it again where it was imported from ({}) and run ingle import, or forget it with \
                 ingle rm {}",
                import.from, self.name
            ),
        };
        NotHere::Gone { path, advice }
    }

    /// Bytes of all its files; of those that are gone nothing.
    pub fn size_bytes(&self) -> u64 {
        let lengths = self.files.iter().map(fs::metadata);
        lengths.flatten().map(|meta| meta.len()).sum()
    }
}

/// Where it comes from, in one line.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "put into {}", folder.display()),
            Self::Import(import) => write!(f, "imported from {}", import.from),
        }
    }
}
