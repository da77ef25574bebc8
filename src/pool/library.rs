//! The models there are, in memory or not: listed, described, fetched, removed.

use std::path::PathBuf;
use std::sync::Arc;

use super::Pool;
use super::describe::Description;
use super::error::PoolError;
use super::names::Target;
use super::report::FetchProgress;
use super::status::{LoadStage, ModelEntry, ModelId};
use crate::catalog::Origin;

impl Pool {
    /// Every model there is: of the catalogue, and served by path; by id. Reads the disk.
    pub async fn models(&self) -> Vec<ModelEntry> {
        let names = Arc::clone(&self.names);
        let models = tokio::task::spawn_blocking(move || names.all());
        models.await.unwrap_or_default()
    }

    /// What is known of `name` without loading it. Reads the disk.
    ///
    /// # Errors
    /// [`PoolError::UnknownModel`]; [`PoolError::File`] where its file is no model that can be loaded.
    pub async fn describe(&self, name: &str) -> Result<Description, PoolError> {
        let model = self.names.canonical(name)?;
        let loader = Arc::clone(&self.loader);
        let id = model.clone();
        let described = tokio::task::spawn_blocking(move || loader.describe(&id)).await;
        described.unwrap_or_else(|error| Err(file_error(&model, &error)))
    }

    /// Fetches `name` unless it is here, and says where it lies; `tell` hears how that goes.
    ///
    /// # Errors
    /// [`PoolError::UnknownModel`]; [`PoolError::Fetch`] where no source gives it, or nothing may be fetched.
    pub async fn fetch(
        &self,
        name: &str,
        tell: impl Fn(LoadStage) + Send + Sync,
    ) -> Result<PathBuf, PoolError> {
        let model = self.names.canonical(name)?;
        match self.names.target(&model)? {
            Target::File(path) => Ok(path),
            Target::Local(model) => Ok(model.path),
            Target::Catalog(manifest) => {
                let progress = FetchProgress::new(tell);
                let fetched = self.loader.fetch_file(&manifest, &progress).await;
                fetched.map_err(|error| PoolError::Fetch {
                    model,
                    reason: error.to_string(),
                })
            }
        }
    }

    /// Takes `name` out of memory and removes its file from the store; of an imported model only the record.
    /// Gives the bytes that were freed.
    ///
    /// # Errors
    /// [`PoolError::UnknownModel`], [`PoolError::ShuttingDown`]; [`PoolError::File`] where it is not in the
    /// store, or just being fetched.
    pub async fn remove(&self, name: &str) -> Result<u64, PoolError> {
        let model = self.names.canonical(name)?;
        let target = self.names.target(&model)?;
        let yours = match &target {
            Target::File(path) => Some((path, "was named by its path")),
            Target::Local(local) if matches!(local.origin, Origin::Folder(_)) => {
                Some((&local.path, "was put into a folder of models"))
            }
            Target::Local(_) | Target::Catalog(_) => None,
        };
        if let Some((path, what)) = yours {
            let reason = format!(
                "{} {what} and is not in the store: remove it yourself",
                path.display()
            );
            return Err(PoolError::File { model, reason });
        }
        self.unload(model.as_str()).await?;
        let (names, id) = (Arc::clone(&self.names), model.clone());
        let removed = tokio::task::spawn_blocking(move || match target {
            Target::Local(_) => names.store().forget_import(id.as_str()).map(|_| 0),
            _ => names.store().remove(id.as_str()),
        });
        let removed = removed.await;
        match removed {
            Ok(removed) => removed.map_err(|error| file_error(&model, &error)),
            Err(error) => Err(file_error(&model, &error)),
        }
    }
}

fn file_error(model: &ModelId, error: &dyn std::fmt::Display) -> PoolError {
    PoolError::File {
        model: model.clone(),
        reason: error.to_string(),
    }
}
