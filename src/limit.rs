//! F0: limits: how much of what, for whom, in which window of time.

use std::fmt;
use std::str::FromStr;

use crate::caller::{KeyId, TeamId};
use crate::money::MicroUsd;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Requests.
    Requests,
    /// Tokens of prompts and answers.
    Tokens,
    /// Micro-dollars.
    Money,
}

impl Measure {
    /// All.
    pub const ALL: [Self; 3] = [Self::Requests, Self::Tokens, Self::Money];

    /// So many of it, as people say it.
    pub fn shown(self, amount: u64) -> String {
        match self {
            Self::Requests if amount == 1 => "1 request".to_owned(),
            Self::Requests => format!("{amount} requests"),
            Self::Tokens => format!("{amount} tokens"),
            Self::Money => MicroUsd(amount).to_string(),
        }
    }
}

/// How long a limit holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Per {
    /// From one full minute to the next.
    Minute,
    /// From midnight to midnight, in UTC.
    Day,
    /// From the first of a month to the first of the next, in UTC.
    Month,
}

impl Per {
    /// All, from the shortest on.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Day, Self::Month];

    /// Its name in configurations and sentences.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no window of time: there are minute, day and month")]
pub struct NoWindow {
    /// What was read.
    pub text: String,
}

impl FromStr for Per {
    type Err = NoWindow;

    fn from_str(text: &str) -> Result<Self, NoWindow> {
        let found = Self::ALL.into_iter().find(|per| per.name() == text);
        found.ok_or_else(|| NoWindow {
            text: text.to_owned(),
        })
    }
}

/// One that uses something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All together.
    Everybody,
    /// All keys of a team together.
    Team(TeamId),
    /// One key.
    Key(KeyId),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("this server"),
            Self::Team(team) => write!(f, "team {team}"),
            Self::Key(key) => write!(f, "key {key}"),
        }
    }
}

/// For whom a limit is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Whom {
    /// One.
    One(Scope),
    /// Each team for itself that has no limit of its own for the same measure and window.
    EachTeam,
    /// Each key for itself that has no limit of its own for the same measure and window.
    EachKey,
}

/// So much and no more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// For whom.
    pub whom: Whom,
    /// In which window.
    pub per: Per,
    /// Of what.
    pub measure: Measure,
    /// How much.
    pub most: u64,
}
