//! Other programs' stores of models, read and never written to: what could be imported from them.

mod lm_studio;
mod ollama;

use std::fmt;
use std::path::{Path, PathBuf};

use super::checked::Sha256;
use super::error::Error;
use super::local::LocalModel;

/// Whose store it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Manifests, and blobs by their checksums.
    Ollama,
    /// A publisher's folder, in it a repository's, in it GGUF files.
    LmStudio,
}

/// Another program's store of models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignStore {
    program: Program,
    root: PathBuf,
}

/// A model of another store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What its program's users call it.
    pub name: String,
    /// Its files, in order; never empty.
    pub files: Vec<PathBuf>,
    /// The checksum of its only file, where the store states one.
    pub sha256: Option<Sha256>,
    /// The terms it may be used under, where the store says.
    pub license: Option<String>,
}

/// A model of another store that cannot be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What it is called.
    pub name: String,
    /// Why, in one clause.
    pub reason: String,
}

/// What a store holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// What could be imported, by name.
    pub candidates: Vec<Candidate>,
    /// What cannot, by name.
    pub refused: Vec<Refused>,
}

impl ForeignStore {
    /// The store in `folder`: Ollama's, if manifests and blobs are in there or in its `models`; else
    /// one of GGUF files, as LM Studio has it.
    ///
    /// # Errors
    /// [`Error::Io`] where there is no such folder.
    pub fn at(folder: &Path) -> Result<Self, Error> {
        let root = folder
            .canonicalize()
            .and_then(|root| root.read_dir().map(|_| root))
            .map_err(|error| Error::io("reading the store", folder, error))?;
        let is_ollama =
            |root: &Path| root.join("manifests").is_dir() && root.join("blobs").is_dir();
        let inner = root.join("models");
        let (program, root) = if is_ollama(&root) {
            (Program::Ollama, root)
        } else if is_ollama(&inner) {
            (Program::Ollama, inner)
        } else if inner.is_dir() && root.ends_with(".lmstudio") {
            (Program::LmStudio, inner)
        } else {
            (Program::LmStudio, root)
        };
        Ok(Self { program, root })
    }

    /// Where the programs put their stores unless they are told otherwise.
    ///
    /// - `variable` — reads a variable of the environment
    pub fn usual_places(variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
        let home = variable("HOME").map(PathBuf::from);
        let in_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let own = variable("OLLAMA_MODELS").map(PathBuf::from);
        let places = [
            own.or_else(|| in_home(".ollama/models")),
            Some(PathBuf::from("/usr/share/ollama/.ollama/models")),
            in_home(".lmstudio/models"),
            in_home(".cache/lm-studio/models"),
        ];
        places.into_iter().flatten().collect()
    }

    /// What is in it.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read.
    pub fn contents(&self) -> Result<Contents, Error> {
        let mut contents = match self.program {
            Program::Ollama => ollama::contents(&self.root)?,
            Program::LmStudio => lm_studio::contents(&self.root),
        };
        contents
            .candidates
            .sort_by(|left, right| left.name.cmp(&right.name));
        contents
            .refused
            .sort_by(|left, right| left.name.cmp(&right.name));
        Ok(contents)
    }

    /// Whose it is.
    pub fn program(&self) -> Program {
        self.program
    }
}

/// One line that names the store, and by which its models are known again.
impl fmt::Display for ForeignStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = match self.program {
            Program::Ollama => "Ollama",
            Program::LmStudio => "LM Studio",
        };
        write!(f, "{program}'s store {}", self.root.display())
    }
}

impl Contents {
    fn refuse(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.refused.push(Refused {
            name: name.into(),
            reason: reason.into(),
        });
    }

    /// Takes what a folder of GGUF files holds.
    fn take(&mut self, model: &LocalModel) {
        self.candidates.push(Candidate {
            name: model.name.clone(),
            files: model.files.clone(),
            sha256: None,
            license: None,
        });
    }
}
