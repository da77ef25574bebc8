//! Whether a file that somebody put into a folder, or imported, is a model that can be loaded: looked at
//! once, and again when the file has changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::catalog::{Fact, LocalModel};
use crate::gguf::Gguf;
use crate::model::ModelConfig;

/// So many files are remembered.
const REMEMBERED_MOST: usize = 4096;

/// What a model file is, as far as its header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileCheck {
    /// Bytes of all its files.
    pub size_bytes: u64,
    /// Whether it says how a conversation is written down.
    pub has_chat_template: bool,
}

/// Checks that the file at `path` (of a sharded model: the first) is whole, as its header tells, and of a
/// kind that can be loaded. Reads the header only.
///
/// # Errors
/// One sentence.
pub fn check_file(path: &Path) -> Result<FileCheck, String> {
    let gguf = Gguf::open(path).map_err(|error| error.to_string())?;
    ModelConfig::from_gguf(&gguf).map_err(|error| format!("{}: {error}", path.display()))?;
    let template = gguf.metadata().opt_str("tokenizer.chat_template");
    Ok(FileCheck {
        size_bytes: gguf.file_bytes(),
        has_chat_template: matches!(template, Ok(Some(_))),
    })
}

/// What was found of each file, and by what that is known to be still so.
#[derive(Default)]
pub(super) struct Offered(Mutex<BTreeMap<PathBuf, Verdict>>);

struct Verdict {
    facts: Vec<Fact>,
    found: Result<(), String>,
}

impl Offered {
    /// Whether the model can be loaded now. Reads the disk.
    ///
    /// Errors: one sentence.
    pub(super) fn check(&self, model: &LocalModel) -> Result<(), String> {
        let facts = model.facts().map_err(|error| error.to_string())?;
        let known = |verdicts: &BTreeMap<PathBuf, Verdict>| {
            let verdict = verdicts
                .get(&model.path)
                .filter(|verdict| verdict.facts == facts);
            verdict.map(|verdict| verdict.found.clone())
        };
        if let Some(found) = known(&self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            return found;
        }
        let found = check_file(&model.path).map(drop);
        let verdict = Verdict {
            facts,
            found: found.clone(),
        };
        let mut verdicts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if verdicts.len() >= REMEMBERED_MOST {
            verdicts.clear();
        }
        verdicts.insert(model.path.clone(), verdict);
        found
    }
}
