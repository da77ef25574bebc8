//! What is written beside a model's files: where they came from, their checksums and lengths.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checked::{Member, Sha256};
use super::disk;
use super::manifest::Source;
use super::sources::is_gguf;

const FILE_NAME: &str = "receipt.toml";

/// A model that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledModel {
    /// Its id.
    pub id: String,
    /// Its GGUF file, the first of its shards, or the folder of a model that is no GGUF.
    pub path: PathBuf,
    /// The length of all its files.
    pub size_bytes: u64,
    /// Its files, by name.
    pub files: Vec<InstalledFile>,
    /// Where it came from, in one line.
    pub source: String,
}

/// A file of a model that is here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct InstalledFile {
    /// Where it lies in the model's folder.
    pub name: Member,
    /// Where the source had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its checksum as verified when it was fetched.
    pub sha256: Sha256,
    /// Its length.
    pub size_bytes: u64,
}

/// What is written beside a model's files.
#[derive(Deserialize, Serialize)]
pub(super) struct Receipt {
    pub(super) source: String,
    /// The commit of the hub's repository, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) commit: Option<String>,
    #[serde(rename = "file")]
    pub(super) files: Vec<InstalledFile>,
}

/// As it was written while a model was one file.
#[derive(Deserialize)]
struct OldReceipt {
    source: String,
    commit: Option<String>,
    sha256: Sha256,
    size_bytes: u64,
}

impl Receipt {
    /// Reads the receipt in a model's folder; `None` if there is none that can be read.
    ///
    /// - `id` — the model's
    pub(super) fn read(folder: &Path, id: &str) -> Option<Self> {
        let text = fs::read_to_string(folder.join(FILE_NAME)).ok()?;
        if let Ok(receipt) = toml::from_str::<Self>(&text) {
            return Some(receipt);
        }
        let old: OldReceipt = toml::from_str(&text).ok()?;
        let file = InstalledFile {
            name: Member::new(format!("{id}.gguf")).ok()?,
            from: None,
            sha256: old.sha256,
            size_bytes: old.size_bytes,
        };
        Some(Self {
            source: old.source,
            commit: old.commit,
            files: vec![file],
        })
    }

    /// Writes it into a model's folder.
    ///
    /// Errors: as the operating system says.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        disk::write_atomic(&folder.join(FILE_NAME), &text)
    }

    /// The model in this folder, if all its files are there with the lengths that were verified.
    pub(super) fn model(mut self, folder: &Path, id: String) -> Option<InstalledModel> {
        let is_whole = |file: &InstalledFile| {
            let meta = fs::metadata(folder.join(file.name.as_str()));
            meta.is_ok_and(|meta| meta.is_file() && meta.len() == file.size_bytes)
        };
        if self.files.is_empty() || !self.files.iter().all(is_whole) {
            return None;
        }
        self.files.sort_by(|left, right| left.name.cmp(&right.name));
        Some(InstalledModel {
            id,
            path: self.path(folder),
            size_bytes: self.files.iter().map(|file| file.size_bytes).sum(),
            files: self.files,
            source: self.source,
        })
    }

    /// What of the folder is the model: its first GGUF file, or all of it.
    fn path(&self, folder: &Path) -> PathBuf {
        let ggufs = self.files.iter().map(|file| &file.name);
        let first = ggufs.filter(|name| is_gguf(name)).min();
        first.map_or_else(|| folder.to_owned(), |name| folder.join(name.as_str()))
    }
}

impl InstalledModel {
    /// Whether it is what the source gives, as far as the manifest says.
    pub(super) fn is_from(&self, source: &Source) -> bool {
        let declared = source.declared();
        let is_here = |name: &Member, from: &str, sha256: Option<Sha256>| {
            self.files.iter().any(|file| {
                file.name == *name
                    && file.from.as_deref().is_none_or(|other| other == from)
                    && sha256.is_none_or(|sha256| sha256 == file.sha256)
            })
        };
        self.source == source.to_string()
            && self.files.len() == declared.len()
            && declared
                .iter()
                .all(|file| is_here(file.name, &file.from, file.sha256))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_of_one_file_is_still_read() {
        let folder = tempfile::tempdir().unwrap();
        let sha256 = Sha256::from_bytes([7; 32]);
        let text = format!("source = \"hub a/b\"\nsha256 = \"{sha256}\"\nsize_bytes = 4\n");
        fs::write(folder.path().join(FILE_NAME), text).unwrap();
        fs::write(folder.path().join("m.gguf"), "GGUF").unwrap();
        let receipt = Receipt::read(folder.path(), "m").unwrap();
        let model = receipt.model(folder.path(), "m".to_owned()).unwrap();
        assert_eq!(model.path, folder.path().join("m.gguf"));
        assert_eq!((model.size_bytes, model.files[0].sha256), (4, sha256));
    }

    #[test]
    fn a_receipt_that_points_elsewhere_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let sha256 = Sha256::from_bytes([7; 32]);
        for name in ["../m.gguf", "/etc/passwd", "", "a/../../m.gguf"] {
            let text = format!(
                "source = \"x\"\n[[file]]\nname = \"{name}\"\nsha256 = \"{sha256}\"\nsize_bytes = 4\n"
            );
            fs::write(folder.path().join(FILE_NAME), text).unwrap();
            assert!(Receipt::read(folder.path(), "m").is_none(), "{name}");
        }
    }
}
