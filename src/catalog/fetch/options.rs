//! How sources are reached.

use std::fmt;
use std::time::Duration;

const HUB: &str = "https://huggingface.co";

/// A text that no log and no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How the hub is reached. Proxies are those of the environment (`HTTPS_PROXY`, `NO_PROXY`, …).
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// The hub's address, without a slash at the end.
    pub endpoint: String,
    /// Sent to the hub itself and to no other host.
    pub token: Option<Secret>,
    /// A host that does not take the connection in this time is unreachable.
    pub connect_timeout: Duration,
    /// An answer that brings nothing for so long is broken off.
    pub stall_timeout: Duration,
    /// So many tries in a row may bring no byte before the source is given up.
    pub tries_most: u32,
    /// The wait before the second try; it doubles with each.
    pub retry_delay: Duration,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            endpoint: HUB.to_owned(),
            token: None,
            connect_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(30),
            tries_most: 4,
            retry_delay: Duration::from_millis(500),
        }
    }
}

impl HubOptions {
    /// The defaults, changed by the variables the hub's own tools go by: `HF_ENDPOINT`, `HF_TOKEN`.
    /// An empty variable counts as not set.
    ///
    /// - `variable` — reads a variable of the environment
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| {
            variable(name)
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
        };
        Self {
            endpoint: set("HF_ENDPOINT").unwrap_or_else(|| HUB.to_owned()),
            token: set("HF_TOKEN").map(Secret::new),
            ..Self::default()
        }
    }
}

/// How packages are fetched: with the machine's own pip, so that indexes, mirrors and proxies
/// configured for it just work.
#[derive(Clone, Debug)]
pub struct PipOptions {
    /// The commands to try, the first that runs is used.
    pub commands: Vec<Vec<String>>,
    /// Variables of the environment it gets besides those of this process.
    pub variables: Vec<(String, String)>,
}

impl Default for PipOptions {
    fn default() -> Self {
        let commands: [&[&str]; 4] = [
            &["python3", "-m", "pip"],
            &["pip3"],
            &["pip"],
            &["python", "-m", "pip"],
        ];
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self {
            commands: commands.into_iter().map(owned).collect(),
            variables: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_change_the_defaults_and_tokens_stay_secret() {
        let options = HubOptions::from_variables(|name| match name {
            "HF_ENDPOINT" => Some(String::new()),
            "HF_TOKEN" => Some(" hf_very_secret\n".to_owned()),
            _ => None,
        });
        assert_eq!(options.endpoint, HUB);
        assert_eq!(options.token, Some(Secret::new("hf_very_secret")));
        assert!(!format!("{options:?}").contains("very_secret"));
        let options = HubOptions::from_variables(|name| {
            (name == "HF_ENDPOINT").then(|| "https://mirror.example/hub".to_owned())
        });
        assert_eq!(options.endpoint, "https://mirror.example/hub");
        assert_eq!(options.token, None);
    }
}
