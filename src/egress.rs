//! Leaving the machine is a permit: who has none cannot do it, and `--offline` issues none.

mod log;
mod proof;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use log::{EgressLog, Entry, EntryKind, LogError};
pub use proof::{Counted, Proof, Query, Records};

/// The log's file in the home folder.
pub const LOG_NAME: &str = "egress.jsonl";

/// Why no permit was issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The program was told to stay on this machine.
    #[error("nothing is fetched in offline mode: leave --offline (INGLE_OFFLINE) out to allow it")]
    Offline,
    /// The program was told to stay on this machine, and this would have left it with a prompt.
    #[error("no provider is asked in offline mode")]
    ProviderOffline,
    /// The program was told to stay on this machine, and spans would have left it.
    #[error(
        "in offline mode spans go to this machine or to a private address, and {host} is neither by its name: leave \
         OTEL_EXPORTER_OTLP_ENDPOINT (telemetry.endpoint) out, or name an address such as 127.0.0.1 or 10.0.0.5"
    )]
    TelemetryOffline {
        /// Where they would have gone.
        host: String,
    },
    /// The request may not go there.
    #[error("a {privacy} request may not go to {provider}")]
    Private {
        /// What the request is.
        privacy: Privacy,
        /// Where it would have gone.
        provider: String,
    },
}

/// How far a prompt may go; later ones are stricter, and only that way may a request's class be moved.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Privacy {
    /// To any provider.
    #[default]
    Any,
    /// To those that keep nothing (zero data retention).
    ZdrOnly,
    /// To no machine that is not ours.
    LocalOnly,
}

impl Privacy {
    /// The names, from the widest on.
    pub const NAMES: [&'static str; 3] = ["any", "zdr_only", "local_only"];

    /// The stricter of both.
    #[must_use]
    pub fn tightened(self, by: Self) -> Self {
        self.max(by)
    }

    /// Whether a prompt of this class may go to who does so with it.
    pub fn allows(self, keeping: Keeping) -> bool {
        match self {
            Self::Any => true,
            Self::ZdrOnly => keeping != Keeping::Maybe,
            Self::LocalOnly => keeping == Keeping::Ours,
        }
    }

    /// Its name in configurations, requests and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ZdrOnly => "zdr_only",
            Self::LocalOnly => "local_only",
        }
    }
}

impl fmt::Display for Privacy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no privacy class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no privacy class: there are any, zdr_only and local_only")]
pub struct NoPrivacy {
    /// What was read.
    pub text: String,
}

impl FromStr for Privacy {
    type Err = NoPrivacy;

    fn from_str(text: &str) -> Result<Self, NoPrivacy> {
        match text {
            "any" => Ok(Self::Any),
            "zdr_only" => Ok(Self::ZdrOnly),
            "local_only" => Ok(Self::LocalOnly),
            _ => Err(NoPrivacy {
                text: text.to_owned(),
            }),
        }
    }
}

/// What a provider does with what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeping {
    /// It is ours: the configuration lists its host among `local_hosts`.
    Ours,
    /// It keeps nothing, or is asked with every request not to and refuses where it would.
    Nothing,
    /// It may keep what it is told.
    Maybe,
}

impl Keeping {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Nothing => "nothing",
            Self::Maybe => "maybe",
        }
    }
}

/// What may leave this machine. There is one, made from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Egress {
    offline: bool,
}

impl Egress {
    /// The rule for this process.
    pub fn new(offline: bool) -> Self {
        Self { offline }
    }

    /// The permit to fetch model files.
    ///
    /// # Errors
    /// [`Error::Offline`].
    pub fn model_fetch(self) -> Result<ModelFetch, Error> {
        if self.offline {
            return Err(Error::Offline);
        }
        Ok(ModelFetch(()))
    }

    /// The permit to have a client that reaches providers at all.
    ///
    /// # Errors
    /// [`Error::ProviderOffline`].
    pub fn providers(self) -> Result<ProvidersReached, Error> {
        if self.offline {
            return Err(Error::ProviderOffline);
        }
        Ok(ProvidersReached(()))
    }

    /// The permit to send spans to `host`, which is a name or an address. They say who answered and when, and nothing of
    /// what was asked; offline they go no farther than to this machine and to private addresses.
    ///
    /// # Errors
    /// [`Error::TelemetryOffline`].
    pub fn telemetry(self, host: &str) -> Result<Telemetry, Error> {
        if self.offline && !is_near(host) {
            return Err(Error::TelemetryOffline {
                host: host.to_owned(),
            });
        }
        Ok(Telemetry(()))
    }

    /// The permit to send one request of class `privacy`, once, to `provider`. Every attempt asks anew.
    ///
    /// # Errors
    /// [`Error::ProviderOffline`], [`Error::Private`].
    pub fn provider(
        self,
        privacy: Privacy,
        provider: &str,
        keeping: Keeping,
        purpose: Purpose,
    ) -> Result<ProviderPermit, Error> {
        if self.offline {
            return Err(Error::ProviderOffline);
        }
        if !privacy.allows(keeping) {
            return Err(Error::Private {
                privacy,
                provider: provider.to_owned(),
            });
        }
        Ok(ProviderPermit {
            privacy,
            keeping,
            provider: provider.to_owned(),
            purpose,
        })
    }
}

/// Whether a host is this machine or has a private address, as far as can be known without asking anybody.
fn is_near(host: &str) -> bool {
    let number = host.trim_start_matches('[').trim_end_matches(']');
    match number.parse() {
        Ok(IpAddr::V4(v4)) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        Ok(IpAddr::V6(v6)) => {
            v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local()
        }
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// What a request leaves this machine for: what the log says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purpose {
    /// The request, as answers and decisions name it.
    pub request_id: String,
    /// Whose it is.
    pub team: Option<String>,
    /// Why it goes there and is not answered here.
    pub why: String,
}

/// The permit to have a client that reaches providers. Only [`Egress`] makes one.
#[derive(Clone, Debug)]
pub struct ProvidersReached(());

/// The permit to send spans. Only [`Egress`] makes one.
#[derive(Clone, Debug)]
pub struct Telemetry(());

/// The permit to fetch model files from where the catalogue says. Only [`Egress`] makes one.
#[derive(Clone, Debug)]
pub struct ModelFetch(());

/// The permit to send one request to one provider, once: it cannot be copied. Only [`Egress`] makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct ProviderPermit {
    privacy: Privacy,
    keeping: Keeping,
    provider: String,
    purpose: Purpose,
}

impl ProviderPermit {
    /// How far the request may go.
    pub fn privacy(&self) -> Privacy {
        self.privacy
    }

    /// What becomes of it there.
    pub fn keeping(&self) -> Keeping {
        self.keeping
    }

    /// To whom.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// What for.
    pub fn purpose(&self) -> &Purpose {
        &self.purpose
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offline_issues_no_permit() {
        let offline = Egress::new(true);
        assert_eq!(offline.model_fetch().err(), Some(Error::Offline));
        assert!(offline.providers().is_err());
        assert!(Egress::new(false).model_fetch().is_ok());
        let refused = offline.provider(Privacy::Any, "openai", Keeping::Ours, Purpose::default());
        assert_eq!(refused, Err(Error::ProviderOffline));
    }

    #[test]
    fn offline_spans_go_no_farther_than_to_private_addresses() {
        for near in [
            "127.0.0.1",
            "localhost",
            "[::1]",
            "10.1.2.3",
            "192.168.0.9",
            "fd00::1",
        ] {
            assert!(Egress::new(true).telemetry(near).is_ok(), "{near}");
        }
        for far in [
            "collector.example",
            "8.8.8.8",
            "172.32.0.1",
            "[2001:db8::1]",
        ] {
            let error = Egress::new(true).telemetry(far).unwrap_err();
            assert!(
                error.to_string().contains(far.trim_matches(['[', ']'])),
                "{error}"
            );
            assert!(Egress::new(false).telemetry(far).is_ok());
        }
    }

    #[test]
    fn a_stricter_class_goes_to_fewer() {
        let egress = Egress::new(false);
        let allowed = |privacy| {
            [Keeping::Ours, Keeping::Nothing, Keeping::Maybe].map(|keeping| {
                let permit = egress.provider(privacy, "p", keeping, Purpose::default());
                permit.is_ok()
            })
        };
        assert_eq!(allowed(Privacy::Any), [true, true, true]);
        assert_eq!(allowed(Privacy::ZdrOnly), [true, true, false]);
        assert_eq!(allowed(Privacy::LocalOnly), [true, false, false]);
    }

    #[test]
    fn a_class_only_tightens() {
        let classes = [Privacy::Any, Privacy::ZdrOnly, Privacy::LocalOnly];
        for a in classes {
            for b in classes {
                let both = a.tightened(b);
                assert!(both >= a && both >= b);
                assert_eq!(a.name().parse(), Ok(a));
            }
        }
    }
}
