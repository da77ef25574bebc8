//! What a request says about who shall answer it, and for which team it speaks.

use std::time::Duration;

use crate::caller::{Caller, TeamId};
use crate::config::document::Table;
use crate::config::router::Preferences;
use crate::egress::Privacy;

/// A day: no request waits longer.
const MOST_MS: u64 = 86_400_000;
/// A team's or a task's name is no longer. Units: characters.
const MOST_CHARS: usize = 128;

/// What a request says about who shall answer it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wishes {
    /// For which team it speaks.
    pub team: Option<String>,
    /// What it is about.
    pub task: Option<String>,
    /// Time to the first content.
    pub deadline: Option<Duration>,
    /// How far the prompt may go.
    pub privacy: Option<Privacy>,
    /// What it prefers.
    pub preferences: Preferences,
    /// Whether another may answer than the one it names.
    pub enable_fallback: Option<bool>,
}

impl Wishes {
    /// The keys of all.
    pub const KEYS: [&'static str; 7] = [
        "team",
        "task",
        "deadline_ms",
        "privacy",
        "strategy",
        "preferences",
        "enable_fallback",
    ];

    /// Reads those of a table.
    pub fn read(table: &Table<'_>) -> Self {
        table.only(&Self::KEYS);
        let name = |key| {
            let text = table.text(key)?.trim();
            if !is_name(text) {
                table.refuse(key, NO_NAME);
                return None;
            }
            Some(text.to_owned())
        };
        let preferences = table.table("preferences");
        let mut preferences = preferences
            .map(|table| Preferences::read(&table))
            .unwrap_or_default();
        if let Some(strategy) = table.parsed("strategy") {
            preferences.strategy = Some(strategy);
        }
        let millis = table.whole("deadline_ms", 1..=MOST_MS);
        Self {
            team: name("team"),
            task: name("task"),
            deadline: millis.map(Duration::from_millis),
            privacy: table.parsed("privacy"),
            preferences,
            enable_fallback: table.bool("enable_fallback"),
        }
    }

    /// These, and where they say nothing the ones of `below`. The stricter privacy holds.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        let privacy = match (self.privacy, below.privacy) {
            (Some(a), Some(b)) => Some(a.tightened(b)),
            (a, b) => a.or(b),
        };
        Self {
            privacy,
            team: self.team.or(below.team),
            task: self.task.or(below.task),
            deadline: self.deadline.or(below.deadline),
            preferences: self.preferences.over(&below.preferences),
            enable_fallback: self.enable_fallback.or(below.enable_fallback),
        }
    }
}

/// What a text that is no name of a team or task should have been.
const NO_NAME: &str = "it must be a name of 1 to 128 characters, none of them a control character";

/// Whether a text can be the name of a team or a task.
fn is_name(text: &str) -> bool {
    let n_chars = text.chars().count();
    (1..=MOST_CHARS).contains(&n_chars) && !text.chars().any(char::is_control)
}

/// For which team a request speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaks {
    /// The team.
    pub team: Option<TeamId>,
    /// The team that the request names and that its key may not speak for.
    pub overruled: Option<TeamId>,
}

/// The team of a request of `caller` that names the team `named`: the key's own, unless the key may speak for any.
pub fn speaks_for(named: Option<&str>, caller: &Caller) -> Speaks {
    let own = caller.team.clone();
    let named = named.map(TeamId::new);
    let may_speak = caller.may_name_any_team || named == own;
    match named {
        Some(named) if may_speak => Speaks {
            team: Some(named),
            overruled: None,
        },
        overruled => Speaks {
            team: own,
            overruled,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keys_team_wins_unless_it_may_speak_for_any() {
        let speaks = |named, own: Option<&str>, may_name_any_team| {
            let caller = Caller {
                team: own.map(TeamId::new),
                may_name_any_team,
                ..Caller::unnamed()
            };
            let speaks = speaks_for(named, &caller);
            (speaks.team, speaks.overruled)
        };
        let some = |name: &str| Some(TeamId::new(name));
        assert_eq!(speaks(Some("a-team"), Some("a"), false), (some("a"), None));
        assert_eq!(speaks(Some("b"), Some("a"), false), (some("a"), some("b")));
        assert_eq!(speaks(Some("b"), Some("a"), true), (some("b"), None));
        assert_eq!(speaks(None, Some("a-team"), true), (some("a"), None));
        assert_eq!(speaks(Some("b"), None, false), (None, some("b")));
        assert_eq!(speaks(Some("b"), None, true), (some("b"), None));
        assert_eq!(speaks(None, None, false), (None, None));
    }
}
