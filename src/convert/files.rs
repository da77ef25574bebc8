//! Files of strangers, and the one to be written.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::Error;

/// Bytes written at once.
const BUFFER_BYTES: usize = 1 << 20;
/// The largest JSON file read. Tokenizers have up to some tens of millions of bytes.
const MAX_JSON_BYTES: u64 = 1 << 28;

/// Opens a regular file. A pipe or a device is refused before it is opened: opening waits for a writer.
pub(super) fn open(path: &Path, needed: &'static str) -> Result<File, Error> {
    let facts = fs::metadata(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => Error::Missing {
            path: path.into(),
            needed,
        },
        _ => Error::io(path)(source),
    })?;
    if !facts.is_file() {
        return Err(Error::NotAFile { path: path.into() });
    }
    File::open(path).map_err(Error::io(path))
}

/// All of a regular file that is at most `limit` bytes long.
pub(super) fn read(path: &Path, limit: u64, needed: &'static str) -> Result<Vec<u8>, Error> {
    let file = open(path, needed)?;
    let n_bytes = file.metadata().map_err(Error::io(path))?.len();
    if n_bytes > limit {
        return Err(Error::TooLong {
            path: path.into(),
            n_bytes,
            limit,
        });
    }
    let mut bytes = Vec::new();
    let read = file.take(limit).read_to_end(&mut bytes);
    read.map_err(Error::io(path))?;
    Ok(bytes)
}

/// What a JSON file says.
pub(super) fn json<T: DeserializeOwned>(path: &Path, needed: &'static str) -> Result<T, Error> {
    let bytes = read(path, MAX_JSON_BYTES, needed)?;
    serde_json::from_slice(&bytes)
        .map_err(|problem| Error::content(path, format!("cannot be used: {problem}")))
}

/// What a JSON file says that need not be there.
pub(super) fn opt_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match json(path, "") {
        Ok(value) => Ok(Some(value)),
        Err(Error::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file under way: it has its name once it is whole and on the disk, and is removed if it never is.
/// One that a killed run left is begun anew.
pub(super) struct Part {
    file: Option<BufWriter<File>>,
    unfinished: PathBuf,
    path: PathBuf,
}

impl Part {
    /// Errors: the file cannot be made, or another process writes it.
    pub(super) fn begin(path: &Path) -> Result<Self, Error> {
        let mut part = OsString::from(path);
        part.push(".part");
        let part = PathBuf::from(part);
        let mut options = OpenOptions::new();
        let opened = options.create(true).write(true).truncate(false).open(&part);
        let file = opened.map_err(Error::io(&part))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { path: path.into() }),
            // Not every file system has locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Another run may have finished it, and given it its name, between our opening and locking it.
        if !is_there(&file, &part) {
            return Err(Error::Busy { path: path.into() });
        }
        file.set_len(0).map_err(Error::io(&part))?;
        Ok(Self {
            file: Some(BufWriter::with_capacity(BUFFER_BYTES, file)),
            unfinished: part,
            path: path.into(),
        })
    }

    /// Where its bytes go.
    pub(super) fn out(&mut self) -> Option<&mut dyn Write> {
        self.file.as_mut().map(|file| file as &mut dyn Write)
    }

    /// Puts the file on the disk and gives it its name. Gives its length.
    pub(super) fn finish(mut self) -> Result<u64, Error> {
        let part = self.unfinished.clone();
        let on_error = Error::io(&part);
        let Some(file) = self.file.take() else {
            return Ok(0);
        };
        let file = file
            .into_inner()
            .map_err(|error| on_error(error.into_error()))?;
        let n_bytes = file.metadata().map_err(&on_error)?.len();
        file.sync_all().map_err(&on_error)?;
        fs::rename(&part, &self.path).map_err(Error::io(&self.path))?;
        self.unfinished = PathBuf::new();
        sync_folder(&self.path);
        Ok(n_bytes)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.unfinished.as_os_str().is_empty() {
            // What cannot be removed is begun anew by the next run.
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

/// Whether a path leads to an open file.
#[cfg(unix)]
fn is_there(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (open, there) = (file.metadata(), fs::metadata(path));
    matches!((open, there), (Ok(open), Ok(there))
        if (open.dev(), open.ino()) == (there.dev(), there.ino()))
}

/// An open file cannot be renamed there.
#[cfg(not(unix))]
fn is_there(_: &File, _: &Path) -> bool {
    true
}

/// A new name is on the disk once its folder is. Where that cannot be asked for, it will be soon.
fn sync_folder(path: &Path) {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) {
        let _ = folder.sync_all();
    }
}
