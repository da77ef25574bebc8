//! One archive with everything a machine without a network needs: models with their manifests, chat
//! templates and terms, and if wanted the program itself.
//!
//! It is a plain tar, so that any machine can look into it and take the program out of it:
//!
//! ```text
//! manifest.json            what follows, file by file with length and SHA-256
//! bin/ingle                the programs, if they go with it
//! models/<id>/<file>       models of the catalogue
//! files/<name>.gguf        models that were a file in a folder, or imported
//! ```
//!
//! Installing trusts nothing: the manifest says what every byte of the archive has to be, also of its
//! tar headers, and whatever is otherwise ends it before anything is visible.

mod create;
mod error;
mod install;
mod layout;
mod read;

use serde::{Deserialize, Serialize};

use super::checked::{CarriedName, Id, Member, Sha256};
use super::manifest::License;

pub use create::{Created, Packing, create};
pub use error::BundleError;
pub use install::{Installed, Outcome, install};
pub use read::verify;

/// What a bundle calls itself.
const FORMAT: &str = "ingle-bundle";
/// The one way bundles are written so far.
const VERSION: u32 = 1;
/// A manifest lists a few files; a longer one is not read.
const MANIFEST_BYTES_MOST: u64 = 4 << 20;
/// So many models go into one bundle.
const MODELS_MOST: usize = 1000;
/// So many files may a model have.
const FILES_MOST: usize = 1000;
/// The programs that may go with it.
const PROGRAMS: &[&str] = &["ingle", "ingle-cuda"];

/// What a bundle holds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BundleManifest {
    format: String,
    version: u32,
    /// The program that wrote it.
    pub created_by: String,
    /// The programs that go with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<BundledFile>,
    /// The machine that those are for, e.g. `x86_64-linux`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub programs_for: Option<String>,
    /// The models.
    pub models: Vec<BundledModel>,
}

/// A model in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BundledModel {
    /// The terms it may be used under, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<License>,
    /// What it is called, and how it is installed.
    pub kind: BundledKind,
    /// Its files.
    pub files: Vec<BundledFile>,
}

/// What a model in a bundle is called, and how it is installed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BundledKind {
    /// A model of the catalogue: it counts as fetched from where it was fetched first.
    Catalogue(FromCatalogue),
    /// A file, installed into the store's folder of such: its name is its file's.
    File(CarriedName),
}

/// What the catalogue and the receipt say of a model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FromCatalogue {
    /// Its id.
    pub id: Id,
    /// Where it was fetched from, in one line.
    pub source: String,
    /// The commit the hub said it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Its manifest, for a catalogue that does not know it.
    pub manifest: String,
    /// Its chat template, where the manifest names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

/// A file in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BundledFile {
    /// Where it stands in the archive.
    pub path: String,
    /// Where the source had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its length.
    pub size_bytes: u64,
    /// Its checksum.
    pub sha256: Sha256,
}

/// What tells whether the rest can be read.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

impl BundleManifest {
    /// Reads a manifest and checks that what it lists can be a bundle.
    ///
    /// Errors: one clause.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let head: Head = serde_json::from_slice(bytes)
            .map_err(|error| format!("its manifest cannot be read: {error}"))?;
        if head.format != FORMAT {
            return Err(format!(
                "its manifest is one of {:?}, not of {FORMAT:?}",
                head.format
            ));
        }
        if head.version != VERSION {
            return Err(format!(
                "it is written in version {} of the format, and this program reads version {VERSION}: \
                 install with the program that wrote it",
                head.version
            ));
        }
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| format!("its manifest cannot be read: {error}"))?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        if self.models.len() > MODELS_MOST {
            return Err(format!("it lists more than {MODELS_MOST} models"));
        }
        for program in &self.programs {
            let name = program.path.strip_prefix("bin/").unwrap_or_default();
            if !PROGRAMS.contains(&name) {
                let known = PROGRAMS.join(", bin/");
                return Err(format!(
                    "it lists the program {:?}, not bin/{known}",
                    program.path
                ));
            }
        }
        for model in &self.models {
            model.check()?;
        }
        let names = self.models.iter().map(BundledModel::name);
        let paths = self.files().map(|file| file.path.as_str());
        match twice(names.collect()).or_else(|| twice(paths.collect())) {
            Some(twice) => Err(format!("it lists {twice:?} twice")),
            None => Ok(()),
        }
    }

    /// All files, in the archive's order.
    pub fn files(&self) -> impl Iterator<Item = &BundledFile> {
        let of_models = self.models.iter().flat_map(|model| &model.files);
        self.programs.iter().chain(of_models)
    }
}

fn twice(mut texts: Vec<&str>) -> Option<&str> {
    texts.sort_unstable();
    texts
        .array_windows()
        .find(|[left, right]| left == right)
        .map(|[twice, _]| *twice)
}

impl BundledModel {
    /// What it is called.
    pub fn name(&self) -> &str {
        match &self.kind {
            BundledKind::Catalogue(model) => model.id.as_str(),
            BundledKind::File(name) => name.as_str(),
        }
    }

    /// Bytes of all its files.
    pub fn size_bytes(&self) -> u64 {
        let lengths = self.files.iter().map(|file| file.size_bytes);
        lengths.fold(0, u64::saturating_add)
    }

    /// Its files with their names in the model's folder.
    fn members(&self) -> Result<Vec<(Member, &BundledFile)>, String> {
        let folder = match &self.kind {
            BundledKind::Catalogue(model) => format!("models/{}/", model.id),
            BundledKind::File(_) => "files/".to_owned(),
        };
        let member = |file: &'_ BundledFile| {
            let name = file
                .path
                .strip_prefix(&folder)
                .ok_or_else(|| format!("it lists {:?}, which should lie in {folder}", file.path))?;
            Member::new(name)
        };
        let named = self
            .files
            .iter()
            .map(|file| member(file).map(|name| (name, file)));
        named.collect()
    }

    fn check(&self) -> Result<(), String> {
        if self.files.is_empty() || self.files.len() > FILES_MOST {
            let n_files = self.files.len();
            return Err(format!(
                "it lists {n_files} files of {}: a model has 1 to {FILES_MOST}",
                self.name()
            ));
        }
        match &self.kind {
            BundledKind::Catalogue(_) => self.members().map(drop),
            BundledKind::File(name) => {
                let n_files = self.files.len();
                let paths = (1..=n_files).map(|number| layout::file_path(name, number, n_files));
                for (path, file) in paths.zip(&self.files) {
                    if file.path != path {
                        return Err(format!("it lists {:?}, which should be {path}", file.path));
                    }
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
