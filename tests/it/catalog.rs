//! The catalogue's store against real servers and a real pip, on this machine alone.

mod address;
mod advice;
mod broken;
mod hub;
mod killed;
mod many;
mod package;
mod proxy;
mod server;
mod spread;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use ingle::catalog::{
    Catalog, Error, FetchEvent, HttpOptions, HubOptions, Manifest, PipOptions, Progress, Secret,
    Sha256, Store, StoreOptions,
};
use ingle::egress::{Egress, ModelFetch};
use sha2::Digest;
use tempfile::TempDir;

/// What the hub's test file holds: long enough for many chunks.
fn content() -> Vec<u8> {
    static CONTENT: OnceLock<Vec<u8>> = OnceLock::new();
    let made = || {
        (0..1_500_000_u32)
            .flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 8).to_le_bytes())
            .take(3_000_001)
            .collect()
    };
    CONTENT.get_or_init(made).clone()
}

fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(bytes).into())
}

fn permit() -> ModelFetch {
    Egress::new(false).model_fetch().unwrap()
}

/// A folder with a store in it, and a catalogue of one more model.
struct House {
    folder: TempDir,
    hub: HubOptions,
    http: HttpOptions,
    pip: PipOptions,
}

impl House {
    fn new(endpoint: &str) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            hub: HubOptions {
                endpoint: endpoint.to_owned(),
                ..HubOptions::default()
            },
            http: HttpOptions {
                retry_delay: Duration::from_millis(5),
                ..HttpOptions::default()
            },
            pip: PipOptions::default(),
        }
    }

    fn with_token(mut self) -> Self {
        self.hub.token = Some(Secret::new("hf_secret"));
        self
    }

    /// The same, where the test file is shared by four connections.
    fn spread(mut self) -> Self {
        self.http.segment_bytes = 1 << 18;
        self
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn store(&self) -> Store {
        let options = StoreOptions {
            hub: self.hub.clone(),
            http: self.http.clone(),
            pip: self.pip.clone(),
            ..StoreOptions::default()
        };
        Store::with_options(&self.home(), options).unwrap()
    }

    /// The model `tiny` from these sources, each a few lines of TOML.
    fn manifest(&self, sources: &[&str]) -> Manifest {
        let folder = self.folder.path().join("catalogue");
        fs::create_dir_all(&folder).unwrap();
        let mut text = "id = \"tiny\"\n".to_owned();
        for source in sources {
            text += "[[sources]]\n";
            text += source;
            text += "\n";
        }
        fs::write(folder.join("tiny.toml"), text).unwrap();
        let catalog = Catalog::load(Some(&folder)).unwrap();
        catalog.find("tiny").unwrap().clone()
    }

    /// The model `tiny` from the hub alone.
    fn on_hub(&self) -> Manifest {
        self.manifest(&[ON_HUB])
    }

    /// The files of unfinished downloads with their lengths, by name.
    fn partial(&self) -> Vec<(String, u64)> {
        let Ok(entries) = fs::read_dir(self.home().join("partial/tiny")) else {
            return Vec::new();
        };
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (
                    entry.file_name().into_string().unwrap(),
                    entry.metadata().unwrap().len(),
                )
            })
            .filter(|(name, _)| [".part", ".pieces"].iter().any(|end| name.ends_with(end)))
            .collect();
        files.sort();
        files
    }

    /// Nothing that could be taken for a model is there.
    fn assert_nothing_visible(&self) {
        assert_eq!(fs::read_dir(self.home().join("models")).unwrap().count(), 0);
        assert_eq!(self.store().installed_models().unwrap(), []);
    }
}

const ON_HUB: &str = "hub.repo = 'some/model'\nhub.revision = 'main'\nhub.file = 'sub/tiny.gguf'";
const HUB_PATH: &str = "/some/model/resolve/main/sub/tiny.gguf";

/// Keeps all events.
#[derive(Default)]
struct Heard(Mutex<Vec<FetchEvent>>);

impl Progress for Heard {
    fn event(&self, event: FetchEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Heard {
    fn all(&self) -> Vec<FetchEvent> {
        self.0.lock().unwrap().clone()
    }

    fn last_bytes(&self) -> Option<u64> {
        self.all().iter().rev().find_map(|event| match event {
            FetchEvent::Bytes { done, .. } => Some(*done),
            _ => None,
        })
    }

    fn n_retries(&self) -> usize {
        let is_retry = |event: &&FetchEvent| matches!(event, FetchEvent::Retrying { .. });
        self.all().iter().filter(is_retry).count()
    }
}

/// Fetches and expects what `bytes` are.
async fn fetched(store: &Store, manifest: &Manifest, bytes: &[u8]) -> PathBuf {
    let path = store.fetch(manifest, &permit(), &()).await.unwrap();
    assert_holds(&path, bytes);
    assert_eq!(store.installed(manifest).as_ref(), Some(&path));
    path
}

fn assert_holds(path: &Path, bytes: &[u8]) {
    // Not assert_eq: megabytes in a message help nobody.
    assert!(
        fs::read(path).unwrap() == bytes,
        "{} holds other bytes",
        path.display()
    );
}

/// Fetches and expects it to fail; gives what is said.
async fn refused(store: &Store, manifest: &Manifest) -> String {
    let error = store.fetch(manifest, &permit(), &()).await.unwrap_err();
    assert!(matches!(error, Error::NoSource { .. }), "{error}");
    assert_eq!(store.installed(manifest), None);
    error.to_string()
}
