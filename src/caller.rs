//! F0: who asks: the key that opened the door, and what it may.

use std::fmt;
use std::sync::Arc;

use crate::egress::Privacy;

/// A key, by the name it was given. The key itself is nowhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Arc<str>);

impl KeyId {
    /// The key of this name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A team, by its name: `engineering-team` and `engineering` are the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TeamId(Arc<str>);

impl TeamId {
    /// The team of this name; a trailing `-team` is no part of it.
    pub fn new(name: &str) -> Self {
        let name = name.trim();
        let short = name.strip_suffix("-team").filter(|name| !name.is_empty());
        Self(short.unwrap_or(name).into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TeamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who sent a request, and what they may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The key they sent; none on a server without keys, and for keys of the plain file.
    pub key: Option<KeyId>,
    /// The team the key belongs to.
    pub team: Option<TeamId>,
    /// How far what they say may go; a request can only tighten it.
    pub privacy: Privacy,
    /// Whether they may ask in another team's name.
    pub may_name_any_team: bool,
    /// Whether they may change what the server holds, and see what others use.
    pub is_admin: bool,
}

impl Caller {
    /// Whoever reaches a server without keys, or has a key of the plain file: they may everything.
    pub fn unnamed() -> Self {
        Self {
            key: None,
            team: None,
            privacy: Privacy::Any,
            may_name_any_team: true,
            is_admin: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_team_is_the_same_with_and_without_its_last_word() {
        assert_eq!(TeamId::new("engineering-team"), TeamId::new("engineering"));
        assert_eq!(TeamId::new("engineering-team").to_string(), "engineering");
        assert_eq!(TeamId::new("-team").as_str(), "-team");
        assert_ne!(TeamId::new("team"), TeamId::new("engineering"));
    }
}
