//! The file of keys: read by servers, changed by one program at a time, whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{KEYS_MOST, KeysError};
use crate::caller::{Caller, KeyId, TeamId};
use crate::egress::Privacy;
use crate::limit::{Limit, Measure, Per, Scope, Whom};
use crate::money::MicroUsd;

/// What the file begins with.
const HEAD: &str = "# The keys of this server, as `ingle key` writes them: hashes only, the keys themselves are nowhere.\n\n";
/// A file of keys is no longer.
const BYTES_MOST: u64 = 16 << 20;

/// Why the file cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FileError {
    /// The system does not let it be read or written.
    #[error("the file of keys {path}: {source}")]
    System {
        /// Where it is.
        path: String,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// It is not what `ingle key` writes.
    #[error("the file of keys {path}: {problem}")]
    Form {
        /// Where it is.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A key: all but itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What it is called.
    pub name: String,
    /// Of the key.
    pub(super) hash: [u8; 32],
    /// The team it is for.
    pub team: Option<TeamId>,
    /// How far what is said with it may go.
    pub privacy: Privacy,
    /// Whether it may ask in another team's name.
    pub any_team: bool,
    /// Whether it may change what the server holds.
    pub is_admin: bool,
    /// What may be used with it.
    pub limits: Vec<Limit>,
    /// When it was made.
    pub added: String,
    /// When it was revoked.
    pub revoked: Option<String>,
}

impl Key {
    /// A key for nobody in particular, added on the day `today`.
    pub fn new(name: &str, today: &str) -> Self {
        Self {
            name: name.to_owned(),
            hash: [0; 32],
            team: None,
            privacy: Privacy::Any,
            any_team: false,
            is_admin: false,
            limits: Vec::new(),
            added: today.to_owned(),
            revoked: None,
        }
    }

    /// The limit of so much for this key.
    pub fn limit(&self, per: Per, measure: Measure, most: u64) -> Limit {
        Limit {
            whom: Whom::One(Scope::Key(KeyId::new(&self.name))),
            per,
            measure,
            most,
        }
    }

    pub(super) fn caller(&self) -> Caller {
        Caller {
            key: Some(KeyId::new(&self.name)),
            team: self.team.clone(),
            privacy: self.privacy,
            may_name_any_team: self.any_team,
            is_admin: self.is_admin,
        }
    }
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    key: Vec<WrittenKey>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    name: String,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    privacy: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    any_team: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    admin: bool,
    added: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    limits: Vec<WrittenLimit>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenLimit {
    per: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    usd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
}

impl WrittenKey {
    fn of(key: &Key) -> Self {
        let limit = |limit: &Limit| {
            let of = |measure| (limit.measure == measure).then_some(limit.most);
            WrittenLimit {
                per: limit.per.name().to_owned(),
                usd: of(Measure::Money).map(|usd| MicroUsd(usd).to_string()),
                requests: of(Measure::Requests),
                tokens: of(Measure::Tokens),
            }
        };
        Self {
            name: key.name.clone(),
            sha256: hex::encode(key.hash),
            team: key.team.as_ref().map(ToString::to_string),
            privacy: (key.privacy != Privacy::Any).then(|| key.privacy.to_string()),
            any_team: key.any_team,
            admin: key.is_admin,
            added: key.added.clone(),
            revoked: key.revoked.clone(),
            limits: key.limits.iter().map(limit).collect(),
        }
    }

    fn read(self) -> Result<Key, String> {
        let mut hash = [0; 32];
        hex::decode_to_slice(&self.sha256, &mut hash)
            .map_err(|_| format!("sha256 of {:?} must be 64 hexadecimal digits", self.name))?;
        let about = |error: &dyn std::fmt::Display| format!("{:?}: {error}", self.name);
        let mut key = Key {
            hash,
            team: self.team.as_deref().map(TeamId::new),
            privacy: match &self.privacy {
                Some(privacy) => privacy.parse().map_err(|error| about(&error))?,
                None => Privacy::Any,
            },
            any_team: self.any_team,
            is_admin: self.admin,
            revoked: self.revoked,
            ..Key::new(&self.name, &self.added)
        };
        for limit in &self.limits {
            let per: Per = limit.per.parse().map_err(|error| about(&error))?;
            let usd = limit.usd.as_deref().map(str::parse::<MicroUsd>);
            let usd = usd.transpose().map_err(|error| about(&error))?;
            let amounts = [
                (Measure::Money, usd.map(|usd| usd.0)),
                (Measure::Requests, limit.requests),
                (Measure::Tokens, limit.tokens),
            ];
            for (measure, most) in amounts {
                key.limits
                    .extend(most.map(|most| key.limit(per, measure, most)));
            }
        }
        Ok(key)
    }
}

/// Reads the keys at `path`; none where there is no file.
///
/// Errors: [`FileError`].
pub(super) fn read(path: &Path) -> Result<Vec<Key>, FileError> {
    let shown = path.display().to_string();
    let form = |problem: String| FileError::Form {
        path: shown.clone(),
        problem,
    };
    let text = match fs::metadata(path) {
        Ok(about) if about.len() > BYTES_MOST => {
            return Err(form(format!("it is longer than {BYTES_MOST} bytes")));
        }
        Ok(_) => fs::read_to_string(path).map_err(|source| system(path, source))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(system(path, source)),
    };
    let written: Written = toml::from_str(&text).map_err(|error| {
        let place = error.to_string();
        let place = place.lines().next().unwrap_or_default().to_owned();
        form(format!("{place}: {}", error.message().replace('\n', ", ")))
    })?;
    if written.key.len() > KEYS_MOST {
        return Err(form(format!("it holds more than {KEYS_MOST} keys")));
    }
    let keys = written.key.into_iter().map(WrittenKey::read);
    keys.collect::<Result<_, _>>().map_err(form)
}

fn system(path: &Path, source: io::Error) -> FileError {
    FileError::System {
        path: path.display().to_string(),
        source: Arc::new(source),
    }
}

/// Changes the keys at `path`; nobody else does meanwhile, and nobody reads half of it.
///
/// Errors: [`KeysError`]; nothing is changed.
pub(super) fn change(
    path: &Path,
    change: impl FnOnce(&mut Vec<Key>) -> Result<(), KeysError>,
) -> Result<(), KeysError> {
    let wrong = |source| KeysError::from(system(path, source));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(wrong)?;
    }
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.with_extension("lock"))
        .map_err(wrong)?;
    lock.lock().map_err(wrong)?;
    let mut keys = read(path)?;
    change(&mut keys)?;
    let written = Written {
        key: keys.iter().map(WrittenKey::of).collect(),
    };
    let text = toml::to_string(&written).map_err(|error| FileError::Form {
        path: path.display().to_string(),
        problem: error.to_string(),
    })?;
    let new = path.with_extension("new");
    let write = || {
        let mut options = File::options();
        options.create(true).truncate(true).write(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let mut file = options.open(&new)?;
        file.write_all(HEAD.as_bytes())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(wrong)
}
