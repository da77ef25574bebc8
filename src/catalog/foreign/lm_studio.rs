//! LM Studio's store: `<publisher>/<repository>/` with GGUF files, or any folder of them.

use std::fs;
use std::path::{Path, PathBuf};

use super::Contents;
use crate::catalog::folders::Folders;

/// What is in the store.
pub(super) fn contents(root: &Path) -> Contents {
    let scan = Folders::new(PathBuf::new(), vec![root.to_owned()]).scan();
    let mut contents = Contents::default();
    for model in scan.models() {
        contents.take(model);
    }
    for skipped in &scan.skipped {
        contents.refuse(shown(root, &skipped.path), skipped.reason.clone());
    }
    for repository in folders(root)
        .iter()
        .flat_map(|publisher| folders(publisher))
    {
        if has(&repository, "safetensors") && !has(&repository, "gguf") {
            let reason = "holds safetensors, and only GGUF files are imported";
            contents.refuse(shown(root, &repository), reason);
        }
    }
    contents
}

fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// The folders in a folder; those that cannot be read were told by the scan.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries
        .filter(is_folder)
        .map(|entry| entry.path())
        .collect()
}

fn has(folder: &Path, extension: &str) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .any(|path| path.extension().is_some_and(|found| found == extension))
}
