//! Where model files lie. A model's folder appears by one rename, after all its files were verified
//! and written to the disk: what is there is whole.
//!
//! ```text
//! models/<id>/<id>.gguf     the file, or several under their own names
//! models/<id>/receipt.toml  where they came from, their checksums and lengths
//! partial/<id>/             what is being fetched; a later fetch goes on from it
//! pins/<id>.toml            what sources gave the first time
//! locks/<id>.lock           held by who fetches or removes
//! gguf/                     files that people put there: see `folders`
//! manifests/<id>.toml       of models that came in bundles: see `carried`
//! imports/<name>.toml       models that lie in other programs' stores: see `imports`
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::egress::ModelFetch;

use super::carried;
use super::checked::Id;
use super::disk;
use super::error::Error;
use super::fetch::{
    FetchError, Fetched, FetchedFile, Fetcher, HttpOptions, HubOptions, PipOptions, Workplace,
};
use super::folders::Folders;
use super::imports::Imports;
use super::manifest::{HubSource, Manifest, Source};
use super::pins::{Pin, Pins};
use super::progress::{FetchEvent, Progress};
use super::receipt::{InstalledFile, InstalledModel, Receipt};
use super::verify::sha256_of;

/// So often a lock that another holds is tried again.
const LOCK_EVERY: Duration = Duration::from_millis(100);

/// How sources are reached.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// The hub.
    pub hub: HubOptions,
    /// Whatever comes over HTTP.
    pub http: HttpOptions,
    /// Packages.
    pub pip: PipOptions,
    /// Folders of GGUF files that are models by being there, besides the store's own.
    pub model_folders: Vec<PathBuf>,
}

/// A folder of model files. Several processes may use one at the same time.
#[derive(Clone, Debug)]
pub struct Store {
    home: PathBuf,
    options: StoreOptions,
    pub(super) folders: Arc<Folders>,
    pub(super) imports: Imports,
}

impl Store {
    /// Opens the store in `home`, which is made if need be, with the default ways to its sources.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(home: &Path) -> Result<Self, Error> {
        Self::with_options(home, StoreOptions::default())
    }

    /// Opens the store in `home`, which is made if need be.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn with_options(home: &Path, options: StoreOptions) -> Result<Self, Error> {
        let named = options.model_folders.clone();
        let store = Self {
            home: home.to_owned(),
            options,
            folders: Arc::new(Folders::new(home.join("gguf"), named)),
            imports: Imports::new(home.join("imports")),
        };
        for folder in ["models", "partial", "pins", "locks", "gguf", "imports"] {
            let path = home.join(folder);
            // A store on a read-only disk can still be read.
            match fs::create_dir_all(&path) {
                Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => break,
                made => made.map_err(|error| Error::io("creating", &path, error))?,
            }
        }
        Ok(store)
    }

    /// Where it lies.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The model's file, its first shard or its folder, if it is here and from one of the manifest's
    /// sources. Reads the disk.
    pub fn installed(&self, manifest: &Manifest) -> Option<PathBuf> {
        let fetched = self.read_installed(&manifest.id);
        manifest.sources.iter().find_map(|source| match source {
            Source::File(file) => file.is_here().then(|| file.path.clone()),
            source => {
                let model = fetched.as_ref().filter(|model| model.is_from(source));
                model.map(|model| model.path.clone())
            }
        })
    }

    /// All models that were fetched, by id, whether the catalogue still knows them or not.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn installed_models(&self) -> Result<Vec<InstalledModel>, Error> {
        let folder = self.home.join("models");
        let reading = |error| Error::io("reading", &folder, error);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(reading)?,
        };
        let mut models = Vec::new();
        for entry in entries {
            let name = entry.map_err(reading)?.file_name();
            models.extend(name.to_str().and_then(|id| self.read_installed(id)));
        }
        models.sort_by(|left, right| left.id.cmp(&right.id));
        Ok(models)
    }

    /// Gets the model's files unless they are here: each source in turn, until one gives them.
    ///
    /// Any number of calls for one model, in any processes, make one download. Dropping the future
    /// ends the download and leaves what arrived for a later call.
    ///
    /// # Errors
    /// [`Error::NoSource`], [`Error::Io`].
    pub async fn fetch(
        &self,
        manifest: &Manifest,
        permit: &ModelFetch,
        progress: &dyn Progress,
    ) -> Result<PathBuf, Error> {
        if let Some(path) = self.installed(manifest) {
            progress.event(FetchEvent::Done);
            return Ok(path);
        }
        let lock = self.lock(&manifest.id, progress).await?;
        // Whoever held the lock may have fetched it.
        let path = match self.installed(manifest) {
            Some(path) => path,
            None => Box::pin(self.fetch_locked(manifest, lock, permit, progress)).await?,
        };
        progress.event(FetchEvent::Done);
        Ok(path)
    }

    /// Checks that the model's files are still what was verified when they were fetched. Reads all of
    /// them and blocks its thread.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::NotInstalled`], [`Error::Io`].
    pub fn verify(&self, id: &str) -> Result<InstalledModel, Error> {
        let model = self
            .read_installed(id)
            .ok_or_else(|| self.not_installed(id))?;
        for file in &model.files {
            let path = self.folder(&model.id).join(file.name.as_str());
            let got = sha256_of(&path).map_err(|error| Error::io("reading", &path, error))?;
            if got != file.sha256 {
                let (expected, got) = (file.sha256.to_string(), got.to_string());
                return Err(Error::Corrupt {
                    path,
                    expected,
                    got,
                });
            }
        }
        Ok(model)
    }

    /// Removes the model's files, and what an unfinished fetch of it left. Pins stay.
    ///
    /// - `id` — an id, not an alias
    ///
    /// Gives the bytes that were freed.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::Busy`], [`Error::Io`].
    pub fn remove(&self, id: &str) -> Result<u64, Error> {
        let id = Id::new(id).map_err(|_| self.not_installed(id))?;
        let folders = [
            self.folder(id.as_str()),
            self.home.join("partial").join(id.as_str()),
        ];
        if !folders.iter().any(|folder| folder.exists()) {
            return Err(self.not_installed(id.as_str()));
        }
        let _lock = self.try_lock(id.as_str())?;
        let freed = folders.iter().map(|folder| disk::bytes_below(folder)).sum();
        for folder in &folders {
            disk::remove_all(folder).map_err(|error| Error::io("removing", folder, error))?;
        }
        carried::remove(&self.home, &id)?;
        Ok(freed)
    }

    async fn fetch_locked(
        &self,
        manifest: &Manifest,
        lock: Arc<File>,
        permit: &ModelFetch,
        progress: &dyn Progress,
    ) -> Result<PathBuf, Error> {
        let id = manifest.id.as_str();
        let mut pins = Pins::load(&self.home.join("pins").join(format!("{id}.toml")))?;
        let workplace = Workplace::open(self.home.join("partial").join(id), lock)?;
        let mut failures: Vec<(String, FetchError)> = Vec::new();
        let mut sources = manifest.sources.iter().peekable();
        while let Some(source) = sources.next() {
            let name = source.to_string();
            let fetcher = Fetcher {
                hub: &self.options.hub,
                http: &self.options.http,
                pip: &self.options.pip,
                workplace: workplace.clone(),
                pins: &pins,
                progress,
                permit,
            };
            match fetcher.fetch(source).await {
                Ok(fetched) => {
                    if let Source::Hub(hub) = source {
                        pin(&mut pins, hub, &fetched)?;
                    }
                    return self.install(id, name, fetched, &workplace);
                }
                Err(error) => {
                    let next = sources.peek().map(ToString::to_string);
                    let reason = error.to_string();
                    tracing::warn!(model = id, source = %name, %reason, "a source gave nothing");
                    progress.event(FetchEvent::Failed {
                        source: name.clone(),
                        reason,
                        next,
                    });
                    failures.push((name, error));
                }
            }
        }
        Err(Error::NoSource {
            id: id.to_owned(),
            failures,
        })
    }

    /// Puts verified files into their place.
    pub(super) fn install(
        &self,
        id: &str,
        source: String,
        fetched: Fetched,
        workplace: &Workplace,
    ) -> Result<PathBuf, Error> {
        let (ready, old) = (workplace.ready(), workplace.folder().join("old"));
        for left_over in [&ready, &old] {
            disk::remove_all(left_over).map_err(|error| Error::io("removing", left_over, error))?;
        }
        let target = self.folder(id);
        let place = || -> io::Result<Option<InstalledModel>> {
            fs::create_dir(&ready)?;
            let receipt = gather(source, fetched, &ready)?;
            if target.exists() {
                // From a source the manifest no longer has.
                fs::rename(&target, &old)?;
            }
            fs::rename(&ready, &target)?;
            disk::sync_folder(&self.home.join("models"))?;
            disk::remove_all(workplace.folder())?;
            Ok(receipt.model(&target, id.to_owned()))
        };
        let placing = |error| Error::io("putting the model into", &target, error);
        let model = place().map_err(placing)?;
        let gone = || placing(io::Error::other("somebody took it away again"));
        model.map(|model| model.path).ok_or_else(gone)
    }

    pub(super) fn read_installed(&self, id: &str) -> Option<InstalledModel> {
        let id = Id::new(id).ok()?.to_string();
        let folder = self.folder(&id);
        Receipt::read(&folder, &id)?.model(&folder, id)
    }

    /// Takes the model's lock, unless somebody else has it.
    pub(super) fn try_lock(&self, id: &str) -> Result<File, Error> {
        let file = self.lock_file(id)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::Busy { id: id.to_owned() }),
            Err(TryLockError::Error(error)) => {
                Err(Error::io("locking", &self.lock_path(id), error))
            }
        }
    }

    /// Waits for the model's lock.
    async fn lock(&self, id: &str, progress: &dyn Progress) -> Result<Arc<File>, Error> {
        let file = self.lock_file(id)?;
        let mut has_told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Arc::new(file)),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(Error::io("locking", &self.lock_path(id), error));
                }
            }
            if !has_told {
                has_told = true;
                progress.event(FetchEvent::Waiting);
            }
            tokio::time::sleep(LOCK_EVERY).await;
        }
    }

    fn lock_file(&self, id: &str) -> Result<File, Error> {
        let path = self.lock_path(id);
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| Error::io("opening", &path, error))
    }

    // Never deleted: who waits on a deleted file would not see who locks a new one.
    fn lock_path(&self, id: &str) -> PathBuf {
        self.home.join("locks").join(format!("{id}.lock"))
    }

    fn folder(&self, id: &str) -> PathBuf {
        self.home.join("models").join(id)
    }

    fn not_installed(&self, id: &str) -> Error {
        Error::NotInstalled {
            id: id.to_owned(),
            store: self.home.join("models"),
        }
    }
}

/// Moves verified files into `folder` and writes their receipt. The receipt comes first: where the
/// process ends on the way, it says what the moved files are.
fn gather(source: String, fetched: Fetched, folder: &Path) -> io::Result<Receipt> {
    let described = |file: &FetchedFile| InstalledFile {
        name: file.name.clone(),
        from: Some(file.from.clone()),
        sha256: file.sha256,
        size_bytes: file.size_bytes,
    };
    let receipt = Receipt {
        source,
        commit: fetched.commit,
        files: fetched.files.iter().map(described).collect(),
    };
    receipt.write(folder)?;
    let mut moved: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for file in fetched.files {
        let place = folder.join(file.name.as_str());
        let inner = place.parent().unwrap_or(folder);
        fs::create_dir_all(inner)?;
        // Files with the same bytes came as one.
        match moved.get(&file.path) {
            Some(same) => {
                fs::copy(same, &place)?;
                File::open(&place)?.sync_all()?;
            }
            None => fs::rename(&file.path, &place)?,
        }
        disk::sync_folder(inner)?;
        moved.insert(file.path, place);
    }
    disk::sync_folder(folder)?;
    Ok(receipt)
}

/// Pins what the hub gave the first time.
fn pin(pins: &mut Pins, hub: &HubSource, fetched: &Fetched) -> Result<(), Error> {
    for (file, got) in hub.files.iter().zip(&fetched.files) {
        pins.add(Pin {
            source: hub.line(file),
            sha256: got.sha256,
            size_bytes: got.size_bytes,
            commit: fetched.commit.clone(),
        })?;
    }
    Ok(())
}
