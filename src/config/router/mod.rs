//! Who answers: the `[router]` and `[providers.NAME]` tables of `ingle.toml`, and the variables that the fallback chains
//! before Ingle were set with. A variable wins over the file.

pub(super) mod address;
mod chain;
mod preferences;
mod providers;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::egress::Privacy;

pub use chain::ChainLink;
pub use preferences::Preferences;
pub use providers::{Dialect, LOCAL, LOCAL_REMOTE, ProviderSettings, ProviderTimeouts};
pub use read::{KEYS, Variables, read};

/// Which of the variables mean something here.
pub const VARIABLES: [&str; 13] = [
    "OPENROUTER_API_KEY",
    "OPENROUTER_BASE_URL",
    "OPENROUTER_DEFAULT_MODEL",
    "OPENROUTER_PREFERENCES",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "LOCAL_MODEL_URL",
    "LOCAL_MODEL_PREFERENCE",
    "LOCAL_MODEL_TIMEOUT",
    "LLM_ROUTING_STRATEGY",
    "LLM_FALLBACK_ENABLED",
];

/// How requests find who answers them.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterSettings {
    /// What is best where several could answer.
    pub strategy: Strategy,
    /// Whether another may answer where the first choice does not.
    pub fallback: bool,
    /// How far a prompt may go where nobody says less.
    pub privacy: Privacy,
    /// Time to the first content, where a request says nothing.
    pub deadline: Option<Duration>,
    /// Time to the first content of a model of this machine.
    pub local_timeout: Option<Duration>,
    /// Models of this machine, the best first.
    pub local_preference: Vec<String>,
    /// What `auto` means at OpenRouter.
    pub openrouter_default_model: String,
    /// What holds for every request that does not say otherwise.
    pub preferences: Preferences,
    /// Who is asked, one after the other.
    pub fallback_chain: Vec<ChainLink>,
    /// Names that stand for others.
    pub aliases: BTreeMap<String, String>,
    /// Hosts that are ours, so that what is private may go there: names, or names and ports.
    pub local_hosts: Vec<String>,
    /// The folder of teams.
    pub teams_folder: Option<PathBuf>,
    /// Teams that are known without a file.
    pub teams: Vec<String>,
    /// Share of requests that may be sent to a second candidate while the first is still silent.
    pub hedge_budget: f64,
    /// Tokens of an answer at most where a provider is asked and the request says nothing.
    pub max_tokens: u32,
    /// A file of quality scores that extends and replaces the built-in one.
    pub quality: Option<PathBuf>,
    /// A file of model names that extends and replaces the built-in one.
    pub names: Option<PathBuf>,
    /// Who can be asked, by name. The engine of this process is not among them.
    pub providers: BTreeMap<String, ProviderSettings>,
}

impl Default for RouterSettings {
    fn default() -> Self {
        Self {
            strategy: Strategy::LocalFirst,
            fallback: true,
            privacy: Privacy::Any,
            deadline: None,
            local_timeout: None,
            local_preference: Vec::new(),
            openrouter_default_model: "auto".to_owned(),
            preferences: Preferences::default(),
            fallback_chain: chain::shipped(),
            aliases: BTreeMap::new(),
            local_hosts: Vec::new(),
            teams_folder: None,
            teams: Vec::new(),
            hedge_budget: 0.05,
            max_tokens: 4096,
            quality: None,
            names: None,
            providers: BTreeMap::new(),
        }
    }
}

/// What is best where several could answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The cheapest.
    CostOptimized,
    /// The one with the best score.
    QualityFirst,
    /// The one that is expected to be done first.
    SpeedFirst,
    /// This machine.
    #[default]
    LocalFirst,
}

impl Strategy {
    /// The names of all.
    pub const NAMES: [&'static str; 4] = [
        "cost_optimized",
        "quality_first",
        "speed_first",
        "local_first",
    ];

    /// Its name in configurations, requests and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::CostOptimized => "cost_optimized",
            Self::QualityFirst => "quality_first",
            Self::SpeedFirst => "speed_first",
            Self::LocalFirst => "local_first",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no strategy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no strategy{}",
    super::document::nearest(text, Strategy::NAMES)
)]
pub struct NoStrategy {
    /// What was read.
    pub text: String,
}

impl FromStr for Strategy {
    type Err = NoStrategy;

    /// Also as routing hints have it: `prefer_local`, `prefer_quality`, `prefer_fast`, `prefer_cheap`.
    fn from_str(text: &str) -> Result<Self, NoStrategy> {
        match text.trim() {
            "cost_optimized" | "prefer_cheap" | "prefer_cost" => Ok(Self::CostOptimized),
            "quality_first" | "prefer_quality" => Ok(Self::QualityFirst),
            "speed_first" | "prefer_fast" | "prefer_faster" | "prefer_speed" => {
                Ok(Self::SpeedFirst)
            }
            "local_first" | "prefer_local" => Ok(Self::LocalFirst),
            other => Err(NoStrategy {
                text: other.to_owned(),
            }),
        }
    }
}
