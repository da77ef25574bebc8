//! Names with `*` in them, and families of names.

use std::collections::BTreeSet;

use super::is_called_local;

/// Which targets an entry of a list means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Those of this provider alone.
    provider: Option<String>,
    /// Models by any of these globs.
    globs: BTreeSet<String>,
}

impl Pattern {
    pub(super) fn of(provider: Option<String>, globs: BTreeSet<String>) -> Self {
        Self { provider, globs }
    }

    /// Whether a model of `provider` that is known by `names` is meant. A name may begin with its author and a slash.
    pub fn matches<'a>(&self, provider: &str, names: impl IntoIterator<Item = &'a str>) -> bool {
        let is_provider = match self.provider.as_deref() {
            None => true,
            // Both are called so.
            Some("local") => is_called_local(provider),
            Some(named) => named == provider,
        };
        is_provider
            && names.into_iter().any(|name| {
                let short = name.rsplit('/').next().unwrap_or(name);
                self.globs
                    .iter()
                    .any(|glob| matches_glob(glob, name) || matches_glob(glob, short))
            })
    }

    /// The one provider it speaks of.
    pub fn provider(&self) -> Option<&str> {
        self.provider.as_deref()
    }

    /// Its globs.
    pub fn globs(&self) -> impl Iterator<Item = &str> {
        self.globs.iter().map(String::as_str)
    }

    /// Whether it means one model and no more.
    pub fn is_single(&self) -> bool {
        self.globs.iter().all(|glob| !glob.contains('*'))
    }
}

/// Whether `text` is what `glob` says, where `*` is any text. Capitals do not matter.
pub fn matches_glob(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut at_glob, mut at_text) = (0, 0);
    // Where the last `*` stands, and how far it has reached.
    let mut star: Option<(usize, usize)> = None;
    while at_text < text.len() {
        match glob.get(at_glob) {
            Some(b'*') => {
                star = Some((at_glob, at_text));
                at_glob += 1;
            }
            Some(byte) if byte.eq_ignore_ascii_case(&text[at_text]) => {
                at_glob += 1;
                at_text += 1;
            }
            _ => match star {
                Some((glob_idx, reached)) => {
                    star = Some((glob_idx, reached + 1));
                    at_glob = glob_idx + 1;
                    at_text = reached + 1;
                }
                None => return false,
            },
        }
    }
    glob[at_glob..].iter().all(|byte| *byte == b'*')
}
