//! What a model may be called, and which file stands behind a name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::catalog::{Catalog, LocalModel, Manifest, Store, without_shard};

use super::error::PoolError;
use super::offered::Offered;
use super::status::{ModelEntry, ModelFile, ModelId};

/// Catalogue names, files served by path, and models that are used where they lie. A name stands for the
/// first of: a file served by path, one in a folder of models, an imported one, one of the catalogue.
pub(super) struct Names {
    catalog: Arc<Catalog>,
    store: Arc<Store>,
    served: RwLock<BTreeMap<ModelId, PathBuf>>,
    offered: Offered,
}

/// Where a model comes from.
pub(super) enum Target {
    /// The catalogue; its file may not be here yet.
    Catalog(Box<Manifest>),
    /// A file named by its path.
    File(PathBuf),
    /// A file in a folder of models, or an imported one.
    Local(Box<LocalModel>),
}

impl Names {
    pub(super) fn new(catalog: Arc<Catalog>, store: Arc<Store>) -> Self {
        Self {
            catalog,
            store,
            served: RwLock::default(),
            offered: Offered::default(),
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// The id of a name.
    pub(super) fn canonical(&self, name: &str) -> Result<ModelId, PoolError> {
        let id = ModelId::new(name);
        if self.served_path(&id).is_some() {
            return Ok(id);
        }
        if let Some(model) = self.local(name)? {
            return Ok(ModelId::new(model.name));
        }
        if let Ok(manifest) = self.catalog.find(name) {
            return Ok(ModelId::new(manifest.id.as_str()));
        }
        let local = self.store.local_models().unwrap_or_default().models;
        let local = local.iter().map(|model| model.name.as_str());
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        let others = served.keys().map(ModelId::as_str).chain(local);
        Err(PoolError::UnknownModel {
            name: name.to_owned(),
            hint: self.catalog.unknown(name, others).to_string(),
        })
    }

    /// The model of this name that is used where it lies.
    fn local(&self, name: &str) -> Result<Option<LocalModel>, PoolError> {
        self.store
            .local(name)
            .map_err(|error| PoolError::UnknownModel {
                name: name.to_owned(),
                hint: error.to_string(),
            })
    }

    /// Checks that a model that is used where it lies can be loaded now. Reads the disk.
    ///
    /// Errors: one sentence.
    pub(super) fn check(&self, model: &LocalModel) -> Result<(), String> {
        self.offered.check(model)
    }

    /// The catalogue's model of this id.
    pub(super) fn manifest(&self, id: &str) -> Option<&Manifest> {
        self.catalog.find(id).ok()
    }

    /// The id of a name or of a path, which becomes a name by this.
    pub(super) fn resolve(&self, name_or_path: &str) -> Result<ModelId, PoolError> {
        let path = Path::new(name_or_path);
        if is_gguf(path) {
            return self.register(path);
        }
        self.canonical(name_or_path).or_else(|unknown| {
            if path.is_file() || is_folder(path) {
                self.register(path)
            } else {
                Err(unknown)
            }
        })
    }

    /// Makes the file at `path` known under its stem, or the folder under its name.
    pub(super) fn register(&self, path: &Path) -> Result<ModelId, PoolError> {
        let bad = |reason: &str| PoolError::BadPath {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let absolute = path
            .canonicalize()
            .map_err(|error| bad(&error.to_string()))?;
        // The name is the one the path was given with, not the one a link leads to.
        let name = if is_folder(&absolute) {
            // `.` is called as the folder it is.
            path.file_name().or(absolute.file_name())
        } else if absolute.is_file() {
            path.file_stem()
        } else {
            return Err(bad("neither a file nor a folder with a config.json"));
        };
        let name = name.and_then(|name| name.to_str()).ok_or_else(|| {
            bad("its name is not valid UTF-8, and a model is served under its file's name")
        })?;
        let id = ModelId::new(without_shard(name));
        let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
        match served.get(&id) {
            Some(other) if *other != absolute => {
                let other = other.display();
                Err(bad(&format!(
                    "{other} is served as `{id}` already: rename one of them"
                )))
            }
            _ => {
                served.insert(id.clone(), absolute);
                Ok(id)
            }
        }
    }

    /// What stands behind an id that [`canonical`](Self::canonical) gave.
    pub(super) fn target(&self, id: &ModelId) -> Result<Target, PoolError> {
        if let Some(path) = self.served_path(id) {
            return Ok(Target::File(path));
        }
        if let Some(model) = self.local(id.as_str())? {
            return Ok(Target::Local(Box::new(model)));
        }
        match self.catalog.find(id.as_str()) {
            Ok(manifest) => Ok(Target::Catalog(Box::new(manifest.clone()))),
            Err(error) => Err(PoolError::UnknownModel {
                name: id.to_string(),
                hint: error.to_string(),
            }),
        }
    }

    /// The bytes of a model's file, if it is here. Reads the disk.
    pub(super) fn file_bytes(&self, id: &ModelId) -> Option<u64> {
        let path = match self.target(id).ok()? {
            Target::File(path) => path,
            Target::Local(model) => return Some(model.size_bytes()),
            Target::Catalog(manifest) => self.store.installed(&manifest)?,
        };
        Some(model_file(path)?.size_bytes)
    }

    /// Every model there is, by id. Reads the disk.
    pub(super) fn all(&self) -> Vec<ModelEntry> {
        let served = self
            .served
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut models: BTreeMap<ModelId, ModelEntry> = BTreeMap::new();
        for manifest in self.catalog.manifests() {
            let id = ModelId::new(manifest.id.as_str());
            let entry = ModelEntry {
                id: id.clone(),
                aliases: manifest.aliases.clone(),
                source: manifest.sources.first().map(ToString::to_string),
                file: self.store.installed(manifest).and_then(model_file),
            };
            models.insert(id, entry);
        }
        for model in self.store.local_models().unwrap_or_default().models {
            // What is no model yet, or never one, is not offered: `ingle list` says why.
            let is_offered = self.offered.check(&model).is_ok();
            let file = model_file(model.path.clone()).filter(|_| is_offered);
            let Some(file) = file else { continue };
            let id = ModelId::new(model.name.as_str());
            let file = ModelFile {
                size_bytes: model.size_bytes(),
                ..file
            };
            let entry = ModelEntry {
                id: id.clone(),
                aliases: Vec::new(),
                source: Some(model.origin.to_string()),
                file: Some(file),
            };
            models.insert(id, entry);
        }
        for (id, path) in served {
            let entry = ModelEntry {
                id: id.clone(),
                aliases: Vec::new(),
                source: None,
                file: model_file(path),
            };
            models.insert(id, entry);
        }
        models.into_values().collect()
    }

    fn served_path(&self, id: &ModelId) -> Option<PathBuf> {
        self.served
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }
}

/// A file, or a folder of files, that is there.
fn model_file(path: PathBuf) -> Option<ModelFile> {
    let meta = std::fs::metadata(&path).ok()?;
    let size_bytes = if meta.is_dir() {
        let entries = std::fs::read_dir(&path).ok()?.flatten();
        let files = entries.filter_map(|entry| std::fs::metadata(entry.path()).ok());
        files
            .filter(std::fs::Metadata::is_file)
            .map(|meta| meta.len())
            .sum()
    } else {
        meta.len()
    };
    Some(ModelFile {
        size_bytes,
        modified: meta.modified().ok()?,
        path,
    })
}

/// Whether it is a folder with a model of several files.
fn is_folder(path: &Path) -> bool {
    path.join("config.json").is_file()
}

fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}
