//! Records of models that lie in other programs' stores: `imports/<name>.toml`. Their files are used
//! where they lie and never written to or removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checked::Sha256;
use super::disk;
use super::error::Error;
use super::local::{LocalModel, Origin};

/// So long a name may be: escaped, it is a file's name.
const NAME_LONGEST: usize = 80;

/// What is known of an imported model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// What it is called, as its own program's users type it.
    pub name: String,
    /// Its files, in order; never empty.
    pub files: Vec<PathBuf>,
    /// Their length.
    pub size_bytes: u64,
    /// The checksum of its only file, as the other store states it or as it was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Which store it is in, in one line.
    pub from: String,
    /// The catalogue's model whose chat template is used, because the file has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_of: Option<String>,
    /// The terms it may be used under, where the other store says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is new.
    New,
    /// It was there, and is different now.
    Renewed,
    /// It was there already.
    Unchanged,
}

/// The folder of records.
#[derive(Clone, Debug)]
pub(super) struct Imports {
    folder: PathBuf,
}

impl Imports {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The model of this name, upper and lower case being the same; `:latest` may be left out.
    ///
    /// Errors: its record cannot be read.
    pub(super) fn find(&self, name: &str) -> Result<Option<LocalModel>, Error> {
        let latest = format!("{name}:latest");
        let plain = name.strip_suffix(":latest").unwrap_or(&latest);
        for name in [name, plain] {
            let Some(path) = self.path(name) else {
                continue;
            };
            match fs::read_to_string(&path) {
                Ok(text) => return parse(&path, &text).map(|import| Some(model(import))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("reading", &path, error)),
            }
        }
        Ok(None)
    }

    /// All of them, by name. A record that cannot be read is logged and left out.
    ///
    /// Errors: the folder cannot be read.
    pub(super) fn all(&self) -> Result<Vec<LocalModel>, Error> {
        let reading = |error| Error::io("reading", &self.folder, error);
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(reading)?,
        };
        let mut models = Vec::new();
        for entry in entries {
            let path = entry.map_err(reading)?.path();
            // What ends otherwise was being written when a process ended.
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let read =
                fs::read_to_string(&path).map_err(|error| Error::io("reading", &path, error));
            match read.and_then(|text| parse(&path, &text)) {
                Ok(import) => models.push(model(import)),
                Err(error) => tracing::warn!(%error, "a record of an imported model is left out"),
            }
        }
        models.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(models)
    }

    /// Writes a record, whole or not at all.
    ///
    /// Errors: the name cannot be one; the record cannot be written; another store's model has the name.
    pub(super) fn record(&self, import: &Import) -> Result<Recorded, Error> {
        let path = self.path(&import.name).ok_or_else(|| Error::Import {
            name: import.name.clone(),
            problem: format!(
                "a name has 1 to {NAME_LONGEST} letters, digits and signs, and no control characters"
            ),
        })?;
        let before = fs::read_to_string(&path)
            .ok()
            .and_then(|text| parse(&path, &text).ok());
        if before.as_ref() == Some(import) {
            return Ok(Recorded::Unchanged);
        }
        if let Some(before) = &before
            && before.from != import.from
            && before.files.iter().all(|file| file.is_file())
        {
            return Err(Error::Import {
                name: import.name.clone(),
                problem: format!(
                    "the model of this name in {} was imported before: forget that with ingle rm {} to \
                     have this one",
                    before.from, import.name
                ),
            });
        }
        let writing = |error| Error::io("writing", &path, error);
        let text = toml::to_string(import)
            .map_err(|error| writing(io::Error::other(error.to_string())))?;
        disk::write_atomic(&path, &text).map_err(writing)?;
        Ok(match before {
            Some(_) => Recorded::Renewed,
            None => Recorded::New,
        })
    }

    /// Forgets a model; its files stay. False when there was no record.
    ///
    /// Errors: the record cannot be removed.
    pub(super) fn forget(&self, name: &str) -> Result<bool, Error> {
        let Some(path) = self.path(name).filter(|path| path.exists()) else {
            return Ok(false);
        };
        disk::remove_all(&path).map_err(|error| Error::io("removing", &path, error))?;
        Ok(true)
    }

    /// Where the record of a name lies; `None` for what cannot be a name.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let is_name =
            (1..=NAME_LONGEST).contains(&name.len()) && !name.chars().any(char::is_control);
        is_name.then(|| self.folder.join(format!("{}.toml", escaped(name))))
    }
}

/// A name as part of a path: small letters, digits, `.`, `_` and `-` stay, others become `%` and two
/// digits a byte.
fn escaped(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.to_ascii_lowercase().bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => escaped.push(char::from(byte)),
            other => {
                let [high, low] = [other >> 4, other & 15].map(u32::from);
                let digit = |half| char::from_digit(half, 16).unwrap_or_default();
                escaped.extend(['%', digit(high), digit(low)]);
            }
        }
    }
    escaped
}

fn parse(path: &Path, text: &str) -> Result<Import, Error> {
    let wrong = |problem: String| Error::Manifest {
        file: path.display().to_string(),
        problem: format!("{problem}: run ingle import again"),
    };
    let import: Import =
        toml::from_str(text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
    let is_absolute = import.files.iter().all(|file| file.is_absolute());
    if import.files.is_empty() || !is_absolute {
        return Err(wrong(
            "files should be absolute paths, at least one".to_owned(),
        ));
    }
    Ok(import)
}

fn model(import: Import) -> LocalModel {
    LocalModel {
        name: import.name.clone(),
        path: import.files.first().cloned().unwrap_or_default(),
        files: import.files.clone(),
        origin: Origin::Import(Box::new(import)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(name: &str) -> Import {
        Import {
            name: name.to_owned(),
            files: vec![PathBuf::from("/store/blobs/sha256-1")],
            size_bytes: 7,
            sha256: Some(Sha256::from_bytes([1; 32])),
            from: "Ollama's store /store".to_owned(),
            template_of: None,
            license: Some("MIT".to_owned()),
        }
    }

    fn imports(folder: &tempfile::TempDir) -> Imports {
        Imports::new(folder.path().to_owned())
    }

    #[test]
    fn a_record_is_found_as_people_type_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let imports = imports(&folder);
        for name in ["llama3:8b", "mistral:latest", "hf.co/A/b-GGUF:Q4_K_M"] {
            assert_eq!(imports.record(&import(name)).unwrap(), Recorded::New);
            assert_eq!(imports.record(&import(name)).unwrap(), Recorded::Unchanged);
        }
        for (typed, name) in [
            ("llama3:8b", "llama3:8b"),
            ("Llama3:8B", "llama3:8b"),
            ("mistral", "mistral:latest"),
            ("mistral:latest", "mistral:latest"),
            ("hf.co/a/B-gguf:q4_k_m", "hf.co/A/b-GGUF:Q4_K_M"),
        ] {
            assert_eq!(imports.find(typed).unwrap().unwrap().name, name, "{typed}");
        }
        for typed in ["llama3", "", "../x", "a\0b", "llama3:8b/"] {
            assert_eq!(imports.find(typed).unwrap(), None, "{typed:?}");
        }
        assert_eq!(imports.all().unwrap().len(), 3);
        assert!(imports.forget("LLAMA3:8b").unwrap());
        assert!(!imports.forget("llama3:8b").unwrap());
        assert_eq!(imports.all().unwrap().len(), 2);
    }

    #[test]
    fn no_name_leaves_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let imports = imports(&folder);
        for name in ["../../x", "/etc/passwd", "a\\b", ".", "..", "%2F", "ü/ß"] {
            imports.record(&import(name)).unwrap();
            let path = imports.path(name).unwrap();
            assert_eq!(path.parent(), Some(folder.path()), "{name:?}");
            assert_eq!(imports.find(name).unwrap().unwrap().name, name);
        }
        for name in ["", "a\nb", &"x".repeat(81)] {
            assert!(imports.record(&import(name)).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_spoilt_record_is_named_and_half_a_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let imports = imports(&folder);
        imports.record(&import("a")).unwrap();
        fs::write(folder.path().join("b.toml.partial"), "name = ").unwrap();
        assert_eq!(imports.all().unwrap().len(), 1);
        fs::write(folder.path().join("a.toml"), "name = \"a\"\n").unwrap();
        let said = imports.find("a").unwrap_err().to_string();
        assert!(
            said.contains("a.toml") && said.contains("ingle import"),
            "{said}"
        );
        assert_eq!(imports.all().unwrap(), []);
        assert_eq!(imports.record(&import("a")).unwrap(), Recorded::New);
        assert!(
            imports.find("a").unwrap().is_some(),
            "importing again repairs it"
        );
    }
}
