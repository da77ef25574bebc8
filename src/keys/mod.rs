//! F1: API keys with names: whose they are and what they may. A file in the home folder has their hashes, and is read again
//! when it changes: a key that is revoked opens nothing within a second, on a running server.
//!
//! A key is 32 random bytes, so that SHA-256 is as good as a slow hash: nobody can go through 2²⁵⁶ of them, and whoever
//! reads the file learns none. A slow hash is for what people think up.

mod file;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

pub use file::{FileError, Key};

use crate::caller::Caller;
use crate::limit::Limit;

/// The file in the home folder.
pub const FILE_NAME: &str = "keys.toml";
/// What every key begins with: whoever finds one knows what it is.
const PREFIX: &str = "sk-ingle-";
/// Keys of a file at most: each request is compared with all.
const KEYS_MOST: usize = 10_000;

/// Why a key is not added or revoked.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A name that is no name.
    #[error("{name:?} is no name of a key: use 1 to 64 letters, digits, '-', '_' and '.'")]
    Name {
        /// What was said.
        name: String,
    },
    /// A name that is taken, also by a revoked key: what the ledger says of it must stay true.
    #[error("there has been a key {name:?} already: give this one another name")]
    Taken {
        /// Which.
        name: String,
    },
    /// No such key.
    #[error("there is no key {name:?}: `ingle key list` has them")]
    Unknown {
        /// What was said.
        name: String,
    },
    /// It is revoked already.
    #[error("the key {name:?} was revoked on {on}")]
    Revoked {
        /// Which.
        name: String,
        /// When.
        on: String,
    },
    /// As many as there may be.
    #[error("there are {KEYS_MOST} keys already: no more are kept")]
    TooMany,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

/// What the file looked like.
type Stamp = Option<(SystemTime, u64)>;

/// The keys of a home folder. Clones share them.
#[derive(Clone, Debug)]
pub struct Keys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    known: RwLock<Arc<Vec<Key>>>,
    seen: Mutex<Stamp>,
}

/// What came of looking at the file again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// Nothing changed, or what changed cannot be read.
    Same,
    /// Keys came, went or changed.
    Changed,
}

impl Keys {
    /// Reads the keys of the folder `home`; none where there is no file.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open(home: &Path) -> Result<Self, FileError> {
        let path = home.join(FILE_NAME);
        let seen = stamp(&path);
        let known = file::read(&path)?;
        Ok(Self(Arc::new(Inner {
            path,
            known: RwLock::new(Arc::new(known)),
            seen: Mutex::new(seen),
        })))
    }

    /// Whether there has never been any: only then may a server do without.
    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// All, revoked ones too.
    pub fn all(&self) -> Arc<Vec<Key>> {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&known)
    }

    /// Who has this key. All hashes are compared whole, in a time that says nothing of how alike they are.
    pub fn find(&self, key: &str) -> Option<Caller> {
        let hash: [u8; 32] = Sha256::digest(key).into();
        let known = self.all();
        let (mut found, mut which) = (Choice::from(0), 0_u32);
        for (number, key) in (0_u32..).zip(known.iter()) {
            let is_it = key.hash.ct_eq(&hash);
            which.conditional_assign(&number, is_it);
            found |= is_it;
        }
        if !bool::from(found) {
            return None;
        }
        let key = known.get(usize::try_from(which).ok()?)?;
        key.revoked.is_none().then(|| key.caller())
    }

    /// The limits of all keys that open.
    pub fn limits(&self) -> Vec<Limit> {
        let known = self.all();
        let open = known.iter().filter(|key| key.revoked.is_none());
        open.flat_map(|key| key.limits.clone()).collect()
    }

    /// Looks at the file, and reads it again if it changed. What cannot be read changes nothing, and is told once.
    pub fn refresh(&self) -> Refreshed {
        let now = stamp(&self.0.path);
        {
            let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now {
                return Refreshed::Same;
            }
            *seen = now;
        }
        match file::read(&self.0.path) {
            // A file that is gone opens no door: the keys stay what they were.
            Ok(keys) if keys.is_empty() && !self.is_empty() => {
                tracing::error!("the file of keys is empty or gone: the keys stay what they were");
                Refreshed::Same
            }
            Ok(keys) => {
                let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
                *known = Arc::new(keys);
                Refreshed::Changed
            }
            Err(error) => {
                tracing::error!(%error, "the keys stay what they were");
                Refreshed::Same
            }
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

/// Adds a key to the folder `home` and returns it: it is kept nowhere. Of `key` the hash is made here.
///
/// # Errors
/// [`KeysError`].
pub fn add(home: &Path, mut key: Key) -> Result<String, KeysError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let name = key.name.clone();
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
        return Err(KeysError::Name { name });
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| KeysError::Random(error.to_string()))?;
    let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    key.hash = Sha256::digest(&secret).into();
    file::change(&home.join(FILE_NAME), |keys| {
        if keys.iter().any(|known| known.name == name) {
            return Err(KeysError::Taken { name });
        }
        if keys.len() >= KEYS_MOST {
            return Err(KeysError::TooMany);
        }
        keys.push(key);
        Ok(())
    })?;
    Ok(secret)
}

/// Revokes the key called `name`, on the day `today`.
///
/// # Errors
/// [`KeysError`].
pub fn revoke(home: &Path, name: &str, today: &str) -> Result<(), KeysError> {
    let name = name.to_owned();
    file::change(&home.join(FILE_NAME), |keys| {
        let Some(key) = keys.iter_mut().find(|key| key.name == name) else {
            return Err(KeysError::Unknown { name });
        };
        if let Some(on) = &key.revoked {
            let on = on.clone();
            return Err(KeysError::Revoked { name, on });
        }
        key.revoked = Some(today.to_owned());
        Ok(())
    })
}

#[cfg(test)]
mod tests;
