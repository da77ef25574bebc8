//! GGUF files that people put into a folder: each is a model under its name, as soon as it is there.
//!
//! Nothing watches the folders: whoever asks looks. A folder that has not changed since is not read
//! again, and one that changed just before it was read is, because two changes may carry one time.

mod shards;
mod walk;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::disk;
use super::local::{LocalModel, Origin};

pub(super) use shards::siblings;
pub use shards::without_shard;
use walk::Walk;

/// Times of change are this coarse on some file systems.
const TIMES_APART: Duration = Duration::from_secs(2);
/// So long something that was wrong may stand after it was put right.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the folders hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// The models, by name.
    pub(super) models: BTreeMap<String, LocalModel>,
    /// Names that several files have, with what each of them is called instead.
    pub(super) ambiguous: BTreeMap<String, Vec<String>>,
    /// Files that are no model that could be offered, and why.
    pub(super) skipped: Vec<Skipped>,
}

/// A file that was put into a folder and is not offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Which one.
    pub path: PathBuf,
    /// Why, in one clause that says what to do.
    pub reason: String,
}

/// One line.
impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", disk::shown(&self.path), self.reason)
    }
}

/// Folders that are looked into whenever somebody asks.
#[derive(Debug)]
pub(super) struct Folders {
    /// The store's own, which need not be there.
    own: PathBuf,
    /// Those that were named.
    named: Vec<PathBuf>,
    seen: Mutex<Option<Seen>>,
}

/// What was found, and by which it is known to be still so.
#[derive(Debug)]
struct Seen {
    scan: Arc<Scan>,
    at: SystemTime,
    /// Every folder that was read, and when it had changed last; `None` where there was none.
    folders: Vec<(PathBuf, Option<SystemTime>)>,
}

impl Folders {
    pub(super) fn new(own: PathBuf, named: Vec<PathBuf>) -> Self {
        Self {
            own,
            named,
            seen: Mutex::default(),
        }
    }

    /// What they hold now. Reads the disk.
    pub(super) fn scan(&self) -> Arc<Scan> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen.as_ref()
            && seen.is_current()
        {
            return Arc::clone(&seen.scan);
        }
        let at = SystemTime::now();
        let mut walk = Walk::default();
        let own = Some(&self.own).filter(|own| own.exists());
        if own.is_none() {
            walk.folders.push((self.own.clone(), None));
        }
        for root in own.into_iter().chain(&self.named) {
            walk.root(root);
        }
        let Walk { folders, found, .. } = walk;
        let scan = Arc::new(named(found, walk.skipped));
        if !scan.skipped.is_empty() {
            tell_once(seen.as_ref().map(|seen| &*seen.scan), &scan);
        }
        *seen = Some(Seen {
            scan: Arc::clone(&scan),
            at,
            folders,
        });
        scan
    }
}

impl Seen {
    fn is_current(&self) -> bool {
        // What is wrong with a file can pass without a change of its folder.
        let is_all_well = self.scan.skipped.is_empty();
        let is_new = self.at.elapsed().is_ok_and(|since| since < LOOK_AGAIN);
        (is_all_well || is_new)
            && self.folders.iter().all(|(folder, changed)| {
                let is_sure = changed.is_none_or(|changed| {
                    let since = self.at.duration_since(changed);
                    since.is_ok_and(|since| since > TIMES_APART)
                });
                is_sure && changed_at(folder) == *changed
            })
    }
}

/// When a folder's entries changed last; `None` where there is none.
fn changed_at(folder: &Path) -> Option<SystemTime> {
    fs::metadata(folder).and_then(|meta| meta.modified()).ok()
}

/// Logs what is skipped now and was not before.
fn tell_once(before: Option<&Scan>, now: &Scan) {
    for skipped in &now.skipped {
        let is_known = before.is_some_and(|before| before.skipped.contains(skipped));
        if !is_known {
            let (path, reason) = (&skipped.path, &skipped.reason);
            tracing::warn!(?path, reason, "a file in a folder of models is not offered");
        }
    }
}

/// A model's file as it was found.
#[derive(Debug)]
struct Found {
    /// Its file's stem, or what its shards have in common.
    name: String,
    /// The folders above it, from the root's own name on.
    below: Vec<String>,
    /// Its files, in order.
    files: Vec<PathBuf>,
    folder: PathBuf,
}

/// Gives each file its name: its stem, or with the folders above it where others have the same.
fn named(mut found: Vec<Found>, mut skipped: Vec<Skipped>) -> Scan {
    found.sort_by(|left, right| left.files.cmp(&right.files));
    // One of the folders may lie in another.
    found.dedup_by(|left, right| left.files == right.files);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for file in &found {
        *counts.entry(file.name.clone()).or_default() += 1;
    }
    let mut scan = Scan::default();
    for file in found {
        let is_alone = counts.get(&file.name) == Some(&1);
        let name = if is_alone {
            file.name.clone()
        } else {
            let longer = format!("{}/{}", file.below.join("/"), file.name);
            let others = scan.ambiguous.entry(file.name.clone()).or_default();
            others.push(longer.clone());
            longer
        };
        let Some(path) = file.files.first().cloned() else {
            continue;
        };
        if let Some(other) = scan.models.get(&name) {
            let reason = format!(
                "{} has the name {name:?} already: rename one of them",
                disk::shown(&other.path)
            );
            skipped.push(Skipped { path, reason });
            continue;
        }
        let origin = Origin::Folder(file.folder);
        scan.models.insert(
            name.clone(),
            LocalModel {
                name,
                path,
                files: file.files,
                origin,
            },
        );
    }
    scan.skipped = skipped;
    scan
}

impl Scan {
    /// The models, by name.
    pub(super) fn models(&self) -> impl Iterator<Item = &LocalModel> {
        self.models.values()
    }

    /// The model of this name; where none has it letter by letter, upper and lower case are the same.
    pub(super) fn find(&self, name: &str) -> Option<&LocalModel> {
        let same = |known: &&LocalModel| known.name.eq_ignore_ascii_case(name);
        let exact = self.models.get(name);
        exact.or_else(|| self.models.values().find(same))
    }
}

#[cfg(test)]
mod tests;
