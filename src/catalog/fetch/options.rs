//! How sources are reached.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;

const HUB: &str = "https://huggingface.co";
const MIB: u64 = 1 << 20;

/// Which hub, and as whom.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// The hub's address, without a slash at the end.
    pub endpoint: String,
    /// Sent to the hub itself and to no other host.
    pub token: Option<Secret>,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            endpoint: HUB.to_owned(),
            token: None,
        }
    }
}

impl HubOptions {
    /// The defaults, changed by the variables the hub's own tools go by: `HF_ENDPOINT`, `HF_TOKEN`.
    /// An empty variable counts as not set.
    ///
    /// - `variable` — reads a variable of the environment
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        Self {
            endpoint: set(&variable, "HF_ENDPOINT").unwrap_or_else(|| HUB.to_owned()),
            token: set(&variable, "HF_TOKEN").map(Secret::new),
        }
    }
}

/// How files come over HTTP.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// A host that does not take the connection in this time is unreachable.
    pub connect_timeout: Duration,
    /// An answer that brings nothing for so long is broken off.
    pub stall_timeout: Duration,
    /// So many tries in a row may bring no byte before the source is given up.
    pub tries_most: u32,
    /// The wait before the second try; it doubles with each.
    pub retry_delay: Duration,
    /// Connections that share a large file, where the server gives parts of files.
    pub connections: NonZeroUsize,
    /// What one connection asks for at a time; a file of less than two comes over one connection.
    pub segment_bytes: u64,
    /// Through which proxies.
    pub proxies: ProxyOptions,
    /// A file of certificates, in PEM, that are trusted besides those of the system.
    pub ca_file: Option<CaFile>,
}

/// A file of certificates, and who named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaFile {
    /// The setting it stands in.
    pub named_by: String,
    /// Where it lies.
    pub path: PathBuf,
}

/// Through which proxies hosts are reached: each an address, perhaps with a name and a password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyOptions {
    /// For `https` addresses.
    pub https: Option<Secret>,
    /// For `http` addresses.
    pub http: Option<Secret>,
    /// For both, where they have none of their own.
    pub all: Option<Secret>,
    /// Hosts, domains and networks reached without one, separated by commas.
    pub none_for: Option<String>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(30),
            tries_most: 4,
            retry_delay: Duration::from_millis(500),
            connections: NonZeroUsize::MIN.saturating_add(3),
            segment_bytes: 32 * MIB,
            proxies: ProxyOptions::default(),
            ca_file: None,
        }
    }
}

impl HttpOptions {
    /// The defaults, changed by the variables that programs share: `HTTPS_PROXY`, `HTTP_PROXY`,
    /// `ALL_PROXY` and `NO_PROXY`, also in small letters, and `SSL_CERT_FILE`. An empty variable
    /// counts as not set.
    ///
    /// - `variable` — reads a variable of the environment
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let either =
            |name: &str| set(&variable, name).or_else(|| set(&variable, &name.to_lowercase()));
        let proxies = ProxyOptions {
            https: either("HTTPS_PROXY").map(Secret::new),
            http: either("HTTP_PROXY").map(Secret::new),
            all: either("ALL_PROXY").map(Secret::new),
            none_for: either("NO_PROXY"),
        };
        let ca_file = set(&variable, "SSL_CERT_FILE").map(|path| CaFile {
            named_by: "SSL_CERT_FILE".to_owned(),
            path: path.into(),
        });
        Self {
            proxies,
            ca_file,
            ..Self::default()
        }
    }
}

/// A variable that says something.
fn set(variable: impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    variable(name)
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
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

    #[test]
    fn proxies_are_those_of_the_environment_and_their_passwords_stay_secret() {
        let options = HttpOptions::from_variables(|name| match name {
            "HTTPS_PROXY" => Some("http://me:word@proxy:3128".to_owned()),
            "no_proxy" => Some("localhost,.example".to_owned()),
            _ => None,
        });
        let proxies = &options.proxies;
        assert_eq!(
            proxies.https,
            Some(Secret::new("http://me:word@proxy:3128"))
        );
        assert_eq!((&proxies.http, &proxies.all), (&None, &None));
        assert_eq!(proxies.none_for.as_deref(), Some("localhost,.example"));
        assert!(!format!("{options:?}").contains("word"));
    }
}
