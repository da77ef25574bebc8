//! Going through a folder of models: what is a model there, and what is not and why.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::shards::{ShardNumber, shard};
use super::{Found, Skipped, changed_at};
use crate::catalog::disk;

/// Folders inside folders that are looked into: enough for the hub's own cache.
const DEPTH_MOST: usize = 4;
/// Entries of all folders that are looked at.
const ENTRIES_MOST: usize = 20_000;

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) folders: Vec<(PathBuf, Option<SystemTime>)>,
    pub(super) found: Vec<Found>,
    pub(super) skipped: Vec<Skipped>,
    n_entries: usize,
}

/// Where the walk is.
struct Place<'a> {
    /// The folder that was named.
    root: &'a Path,
    /// The same without links.
    real_root: &'a Path,
    /// The folders' names from the root's own on.
    below: Vec<String>,
}

/// The shards of one model in one folder, by number.
type Split = BTreeMap<u32, PathBuf>;

impl Walk {
    /// Goes through a folder and those inside it.
    pub(super) fn root(&mut self, root: &Path) {
        let real_root = match root.canonicalize() {
            Ok(real_root) => real_root,
            Err(error) => {
                self.folders.push((root.to_owned(), changed_at(root)));
                return self.skip(root, format!("cannot be looked into: {error}"));
            }
        };
        let name = real_root.file_name().map(OsStr::to_string_lossy);
        let place = Place {
            root,
            real_root: &real_root,
            below: vec![name.unwrap_or_default().into_owned()],
        };
        self.folder(&real_root, &place);
    }

    fn skip(&mut self, path: &Path, reason: impl Into<String>) {
        self.skipped.push(Skipped {
            path: path.to_owned(),
            reason: reason.into(),
        });
    }

    fn folder(&mut self, folder: &Path, place: &Place<'_>) {
        // Before it is read: what changes meanwhile makes the time another.
        self.folders.push((folder.to_owned(), changed_at(folder)));
        let entries: io::Result<Vec<DirEntry>> = fs::read_dir(folder).and_then(Iterator::collect);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.skip(folder, format!("cannot be looked into: {error}")),
        };
        entries.sort_by_key(DirEntry::file_name);
        let mut splits: BTreeMap<(String, u32), Split> = BTreeMap::new();
        for entry in entries {
            self.n_entries += 1;
            if self.n_entries > ENTRIES_MOST {
                let reason = format!("more than {ENTRIES_MOST} files: the rest is not looked at");
                return self.skip(folder, reason);
            }
            let (path, name) = (entry.path(), entry.file_name());
            // Programs hide what they are still writing, and systems what is theirs.
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder {
                self.inner(&path, &name, place);
                continue;
            }
            match file(&entry, place) {
                None => {}
                Some(Err(reason)) => self.skip(&path, reason),
                Some(Ok((stem, path))) => match shard(&stem) {
                    None => self.add(&stem, vec![path], place),
                    Some((name, ShardNumber { number, count })) => {
                        let split = splits.entry((name.to_owned(), count)).or_default();
                        split.insert(number, path);
                    }
                },
            }
        }
        for ((name, count), split) in splits {
            self.split(&name, count, split, place);
        }
    }

    fn inner(&mut self, path: &Path, name: &OsStr, place: &Place<'_>) {
        if place.below.len() > DEPTH_MOST {
            let reason = format!("lies {DEPTH_MOST} folders deep: name it with --model-folder");
            return self.skip(path, reason);
        }
        let mut below = place.below.clone();
        below.push(name.to_string_lossy().into_owned());
        let inner = Place { below, ..*place };
        self.folder(path, &inner);
    }

    fn split(&mut self, name: &str, count: u32, split: Split, place: &Place<'_>) {
        let Some(first) = split.values().next().cloned() else {
            return;
        };
        match (1..=count).find(|number| !split.contains_key(number)) {
            Some(missing) => {
                let reason = format!("is one of {count} files, and number {missing} is not here");
                self.skip(&first, reason);
            }
            None => self.add(name, split.into_values().collect(), place),
        }
    }

    fn add(&mut self, name: &str, files: Vec<PathBuf>, place: &Place<'_>) {
        self.found.push(Found {
            name: name.to_owned(),
            below: place.below.clone(),
            files,
            folder: place.root.to_owned(),
        });
    }
}

/// The stem and the place of a GGUF file; `None` for what is none, a reason for what is not offered.
fn file(entry: &DirEntry, place: &Place<'_>) -> Option<Result<(String, PathBuf), String>> {
    let path = entry.path();
    let kind = match entry.file_type() {
        Ok(kind) => kind,
        Err(error) => return Some(Err(error.to_string())),
    };
    let extension = path.extension();
    if !extension.is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
        let is_folder = kind.is_symlink() && path.is_dir();
        return is_folder.then(|| {
            let reason = "is a link to a folder: name that folder with --model-folder";
            Err(reason.to_owned())
        });
    }
    Some(gguf(&path, kind.is_symlink(), place))
}

fn gguf(path: &Path, is_link: bool, place: &Place<'_>) -> Result<(String, PathBuf), String> {
    let stem = path.file_stem().and_then(OsStr::to_str).ok_or(
        "its name is not valid UTF-8, and a model is served under its file's name: rename it",
    )?;
    if stem.chars().any(char::is_control) {
        return Err("its name holds control characters: rename it".to_owned());
    }
    if is_link {
        let target = path
            .canonicalize()
            .map_err(|error| format!("is a link that leads nowhere: {error}"))?;
        if !target.starts_with(place.real_root) {
            return Err(format!(
                "is a link that leads out of the folder, to {}: name that file's folder with \
                 --model-folder",
                disk::shown(&target)
            ));
        }
    }
    // Follows the link: of what it leads to nothing is opened unless it is a file.
    let meta = fs::metadata(path).map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("is no file".to_owned());
    }
    Ok((stem.to_owned(), path.to_owned()))
}
