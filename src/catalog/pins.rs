//! What each source gave the first time: `pins/<id>.toml`. Removing a model leaves its pins, so that
//! a source that changes its file is noticed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checked::Sha256;
use super::disk;
use super::error::Error;

const HEAD: &str = "# Written by Ingle: what the hub's files were when they were first fetched.\n\
                    # Delete an entry to trust what the hub has now.\n\n";

/// The pins of one model.
pub(super) struct Pins {
    path: PathBuf,
    file: PinFile,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PinFile {
    #[serde(default)]
    pin: Vec<Pin>,
}

/// One file as it was first fetched.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pin {
    /// The source's one line.
    pub(super) source: String,
    pub(super) sha256: Sha256,
    pub(super) size_bytes: u64,
    /// The commit the revision stood for, where the hub said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) commit: Option<String>,
}

impl Pins {
    /// Reads the pins of a model; a file that is not there has none.
    ///
    /// Errors: the file cannot be read or is not what Ingle wrote.
    pub(super) fn load(path: &Path) -> Result<Self, Error> {
        let file = match fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| Error::Manifest {
                file: path.display().to_string(),
                problem: error.to_string().trim_end().to_owned(),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => PinFile::default(),
            Err(error) => return Err(Error::io("reading", path, error)),
        };
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn get(&self, source: &str) -> Option<&Pin> {
        self.file.pin.iter().find(|pin| pin.source == source)
    }

    /// Pins what a source gave, unless it is pinned already, and writes the file.
    ///
    /// Errors: the file cannot be written.
    pub(super) fn add(&mut self, pin: Pin) -> Result<(), Error> {
        if self.get(&pin.source).is_some() {
            return Ok(());
        }
        self.file.pin.push(pin);
        let writing = |error| Error::io("writing", &self.path, error);
        let text = toml::to_string(&self.file)
            .map_err(|error| writing(io::Error::other(error.to_string())))?;
        disk::write_atomic(&self.path, &format!("{HEAD}{text}")).map_err(writing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.toml");
        let pin = |byte, commit: Option<&str>| Pin {
            source: "hub a/b@main/c.gguf".to_owned(),
            sha256: Sha256::from_bytes([byte; 32]),
            size_bytes: 7,
            commit: commit.map(str::to_owned),
        };
        let mut pins = Pins::load(&path).unwrap();
        assert_eq!(pins.get("hub a/b@main/c.gguf"), None);
        pins.add(pin(1, Some("abc"))).unwrap();
        pins.add(pin(2, None)).unwrap();
        let pins = Pins::load(&path).unwrap();
        assert_eq!(pins.get("hub a/b@main/c.gguf"), Some(&pin(1, Some("abc"))));
        fs::write(&path, "pin = 3").unwrap();
        assert!(
            Pins::load(&path).is_err(),
            "a broken lock file is not silently forgotten"
        );
    }
}
