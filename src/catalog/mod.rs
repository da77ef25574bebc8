//! F1: which models exist, where their files come from, and which are here.
//!
//! A [`Catalog`] is read from manifests, a [`Store`] holds files. Nothing half-written, unverified
//! or lying outside the store's folder ever counts as installed.

mod address;
mod bundle;
mod carried;
mod checked;
mod disk;
mod embedded;
mod error;
mod fetch;
mod folders;
mod foreign;
mod imports;
mod local;
mod manifest;
mod names;
mod pins;
mod progress;
mod receipt;
mod sources;
mod store;
mod verify;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

pub use crate::secret::Secret;
pub use address::Address;
pub use bundle::{
    BundleError, BundleManifest, BundledFile, BundledKind, BundledModel, Created, FromCatalogue,
    Installed, Outcome, Packing, create as create_bundle, install as install_bundle,
    verify as verify_bundle,
};
pub use checked::{
    Alias, CarriedName, Id, Member, PackageName, PackageVersion, Repo, Revision, Sha256,
    TemplateName,
};
pub use disk::free_bytes;
pub use error::{Error, Near};
pub use fetch::{
    CaFile, FetchError, HttpOptions, HubOptions, PipOptions, ProxyOptions, client_builder, host,
    innermost, no_client,
};
pub use folders::{Skipped, without_shard};
pub use foreign::{Candidate, Contents, ForeignStore, Program, Refused};
pub use imports::{Import, Recorded};
pub use local::{Fact, LocalModel, LocalModels, NotHere, Origin};
pub use manifest::{
    HubFile, HubSource, Kind, License, LocalFile, Manifest, Network, PackageMember, PackageSource,
    Source, UrlFile, UrlSource,
};
pub use names::closest;
pub use progress::{FetchEvent, Progress};
pub use receipt::{InstalledFile, InstalledModel};
pub use store::{Store, StoreOptions};

pub use verify::sha256_file;

use manifest::RawManifest;

/// The model that is used where none is named.
const DEFAULT_MODEL: &str = "smollm2-135m-instruct";

/// The models there are, by id.
#[derive(Clone, Debug)]
pub struct Catalog {
    manifests: Vec<Manifest>,
    /// Their texts, in the same order.
    texts: Vec<String>,
    /// Every id and alias, to its place in `manifests`.
    names: BTreeMap<String, usize>,
}

impl Catalog {
    /// Reads the built-in manifests and those of a folder, which replace built-in ones of the same
    /// id and add others.
    ///
    /// A folder holds `<id>.toml` files, and their chat templates in `templates/`.
    ///
    /// # Errors
    /// [`Error::Manifest`], [`Error::NameTaken`], [`Error::Io`].
    pub fn load(overrides: Option<&Path>) -> Result<Self, Error> {
        Self::load_with(None, overrides)
    }

    /// As [`load`](Self::load), and between the two the manifests that bundles brought into the store
    /// in `home`. Those give way where another model has one of their aliases.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_with(home: Option<&Path>, overrides: Option<&Path>) -> Result<Self, Error> {
        let mut read = BTreeMap::new();
        for (id, text) in embedded::MANIFESTS {
            let file = format!("models/{id}.toml");
            let manifest = parse(&file, id, text, None)?;
            let text = (*text).to_owned();
            read.insert((*id).to_owned(), (file, text, manifest));
        }
        let carried = home.map(carried::folder).filter(|folder| folder.is_dir());
        let mut from_bundles = BTreeMap::new();
        read_folder(carried.as_deref(), &mut from_bundles)?;
        let mut own = BTreeMap::new();
        read_folder(overrides, &mut own)?;
        for id in from_bundles.keys() {
            read.remove(id);
        }
        read.extend(own);
        from_bundles.retain(|id, _| !read.contains_key(id));
        let mut catalog = Self {
            manifests: Vec::new(),
            texts: Vec::new(),
            names: BTreeMap::new(),
        };
        for (file, text, manifest) in read.into_values() {
            if let Some((name, first)) = catalog.taken(&manifest) {
                return Err(Error::NameTaken { file, name, first });
            }
            catalog.add(manifest, text);
        }
        for (file, text, mut manifest) in from_bundles.into_values() {
            if catalog.names.contains_key(&manifest.id) {
                tracing::warn!(file, "another model has its name: it is left out");
                continue;
            }
            manifest
                .aliases
                .retain(|alias| !catalog.names.contains_key(alias));
            catalog.add(manifest, text);
        }
        Ok(catalog)
    }

    /// A name of the manifest that another model has, and that model's id.
    fn taken(&self, manifest: &Manifest) -> Option<(String, String)> {
        let mut names = std::iter::once(&manifest.id).chain(&manifest.aliases);
        names.find_map(|name| {
            let other = self.manifests.get(*self.names.get(name)?)?;
            Some((name.clone(), other.id.clone()))
        })
    }

    fn add(&mut self, manifest: Manifest, text: String) {
        for name in std::iter::once(&manifest.id).chain(&manifest.aliases) {
            self.names.insert(name.clone(), self.manifests.len());
        }
        self.manifests.push(manifest);
        self.texts.push(text);
    }

    /// The text of a model's manifest.
    fn text(&self, id: &str) -> Option<&str> {
        let idx = self
            .manifests
            .iter()
            .position(|manifest| manifest.id == id)?;
        self.texts.get(idx).map(String::as_str)
    }

    /// The model with this id or alias; upper and lower case are the same.
    ///
    /// # Errors
    /// [`Error::Unknown`], with names that are close.
    pub fn find(&self, name: &str) -> Result<&Manifest, Error> {
        let folded = name.to_ascii_lowercase();
        let plain = folded.strip_suffix(":latest").unwrap_or(&folded);
        self.names
            .get(plain)
            .and_then(|&idx| self.manifests.get(idx))
            .ok_or_else(|| self.unknown(name, []))
    }

    /// The error about a name that nothing has, with names that are close: the catalogue's, and `others`
    /// that whoever asks knows besides.
    pub fn unknown<'a>(&'a self, name: &str, others: impl IntoIterator<Item = &'a str>) -> Error {
        let folded = name.to_ascii_lowercase();
        let known = self.names.keys().map(String::as_str).chain(others);
        let close = closest(&folded, known);
        let near = if close.is_empty() {
            let ids = self.manifests.iter().map(|manifest| manifest.id.clone());
            Near::All(ids.collect())
        } else {
            Near::Names(close.into_iter().map(str::to_owned).collect())
        };
        Error::Unknown {
            name: name.to_owned(),
            near,
        }
    }

    /// The model that is used where none is named.
    ///
    /// # Errors
    /// None while the built-in manifests are as they are.
    pub fn default_model(&self) -> Result<&Manifest, Error> {
        self.find(DEFAULT_MODEL)
    }

    /// All models, by id.
    pub fn manifests(&self) -> &[Manifest] {
        &self.manifests
    }
}

/// The `.toml` files of a folder, by name.
fn manifests_in(folder: &Path) -> Result<Vec<std::path::PathBuf>, Error> {
    let reading = |error| Error::io("reading the folder of models", folder, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(reading)? {
        let path = entry.map_err(reading)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What was read of a manifest: its file, its text, and itself; by id.
type Read = BTreeMap<String, (String, String, Manifest)>;

/// Reads the manifests of a folder.
fn read_folder(folder: Option<&Path>, read: &mut Read) -> Result<(), Error> {
    for path in folder.map(manifests_in).transpose()?.unwrap_or_default() {
        let file = path.display().to_string();
        let text = fs::read_to_string(&path).map_err(|error| Error::io("reading", &path, error))?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy());
        let manifest = parse(&file, &stem.unwrap_or_default(), &text, path.parent())?;
        read.insert(manifest.id.clone(), (file, text, manifest));
    }
    Ok(())
}

/// Reads one manifest.
///
/// - `stem` — the name of its file, which must be its id
/// - `folder` — where it lies; `None` for a built-in one
fn parse(file: &str, stem: &str, text: &str, folder: Option<&Path>) -> Result<Manifest, Error> {
    let wrong = |problem: String| Error::Manifest {
        file: file.to_owned(),
        problem,
    };
    let raw: RawManifest =
        toml::from_str(text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
    if raw.id.as_str() != stem {
        return Err(wrong(format!(
            "id is {:?}: name the file {}.toml",
            raw.id.as_str(),
            raw.id
        )));
    }
    if raw.sources.is_empty() {
        return Err(wrong(
            "sources is empty: a model needs at least one".to_owned(),
        ));
    }
    if let Some(network) = &raw.network
        && !network.is_sound()
    {
        let problem = "network: n_heads must divide n_embd, and n_kv_heads must divide n_heads";
        return Err(wrong(problem.to_owned()));
    }
    let template_name = raw.text.template.map(|name| name.to_string());
    let chat_template = match &template_name {
        None => None,
        Some(name) => Some(
            template(name, folder)
                .map_err(|reason| wrong(format!("text.template is {name:?}: {reason}")))?,
        ),
    };
    let folder = folder.unwrap_or(Path::new(""));
    let mut sources = Vec::with_capacity(raw.sources.len());
    for (idx, source) in raw.sources.into_iter().enumerate() {
        let source = source.checked(&raw.id, folder);
        sources.push(source.map_err(|reason| wrong(format!("sources[{idx}]: {reason}")))?);
    }
    Ok(Manifest {
        id: raw.id.to_string(),
        aliases: raw.aliases.iter().map(ToString::to_string).collect(),
        kind: raw.kind,
        architecture: raw.architecture,
        sources,
        chat_template,
        template_name,
        stop_tokens: raw.text.stop_tokens,
        context_default: raw.context_default.map(std::num::NonZeroU32::get),
        network: raw.network,
        license: raw.license,
    })
}

/// The text of a template: the folder's, or a built-in one.
fn template(name: &str, folder: Option<&Path>) -> Result<String, String> {
    if let Some(path) = folder.map(|folder| folder.join("templates").join(name))
        && path.exists()
    {
        return fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()));
    }
    let known = embedded::TEMPLATES;
    let found = known.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        format!(
            "there is no such file in templates/; built in are {}",
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests;
