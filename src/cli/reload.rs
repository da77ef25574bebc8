//! Reads `ingle.toml` again while a server runs: for requests that come from then on, what it says of the router and of
//! budgets holds. What is spent stays spent.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::router::limits;
use crate::config::Config;
use crate::config::document::Problem;
use crate::keys::Keys;
use crate::router::Router;
use crate::telemetry::names;

/// How often it is looked whether a file changed.
const EVERY: Duration = Duration::from_secs(2);

/// The configuration of a running server. Clones share it.
#[derive(Clone)]
pub(super) struct Live {
    config: Arc<Mutex<Config>>,
    keys: Keys,
    router: Router,
}

impl Live {
    pub(super) fn new(config: Config, keys: Keys, router: Router) -> Self {
        Self {
            config: Arc::new(Mutex::new(config)),
            keys,
            router,
        }
    }

    fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on what the configuration and the keys limit holds, as both are now.
    pub(super) fn set_limits(&self) {
        let limits = limits(&self.config(), &self.keys);
        self.router.money().set_limits(limits);
    }

    /// Looks at the files every so often, for ever.
    pub(super) async fn keep_fresh(self) {
        let mut watch = Watch::new(self.stamp());
        loop {
            tokio::time::sleep(EVERY).await;
            let live = self.clone();
            let look = tokio::task::spawn_blocking(move || {
                if watch.has_settled(live.stamp()) {
                    live.reload();
                }
                watch
            });
            match look.await {
                Ok(looked) => watch = looked,
                Err(_) => return,
            }
        }
    }

    /// What the files look like that settings are read from.
    fn stamp(&self) -> Stamp {
        let config = self.config();
        let files = [
            &config.source.file,
            &config.router.quality,
            &config.router.names,
        ];
        let files = files.into_iter().flatten();
        let about = files.map(|file| {
            let about = fs::metadata(file).ok();
            let stamp = about.and_then(|about| Some((about.modified().ok()?, about.len())));
            (file.clone(), stamp)
        });
        Stamp(about.collect())
    }

    fn reload(&self) {
        let outcome = match self.take_over() {
            Ok(later) => {
                tracing::info!("the configuration was read again");
                if !later.is_empty() {
                    let settings = later.join(", ");
                    tracing::warn!(settings, "changed too, and hold from the next start on");
                }
                "changed"
            }
            Err(problems) => {
                for problem in problems {
                    tracing::error!(%problem, "the configuration stays as it was");
                }
                "kept"
            }
        };
        metrics::counter!(names::RELOADS, "outcome" => outcome).increment(1);
    }

    /// Takes over what changed; what has to wait for the next start.
    ///
    /// Errors: all that is wrong, and nothing changed.
    fn take_over(&self) -> Result<Vec<String>, Vec<Problem>> {
        let (next, later) = {
            let config = self.config().clone();
            config.reread()?
        };
        self.router.set_settings(next.router.clone())?;
        *self.config() = next;
        self.set_limits();
        Ok(later)
    }
}

/// Files with their times and lengths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stamp(Vec<(PathBuf, Option<(SystemTime, u64)>)>);

/// Waits until files have stopped changing: one that is half written may be a whole document all the same.
#[derive(Debug)]
struct Watch {
    read: Stamp,
    seen: Stamp,
}

impl Watch {
    fn new(now: Stamp) -> Self {
        Self {
            read: now.clone(),
            seen: now,
        }
    }

    /// Whether they are other files than were read last, and the same as at the last look.
    fn has_settled(&mut self, now: Stamp) -> bool {
        let is_still = now == self.seen;
        self.seen = now;
        if !is_still || self.seen == self.read {
            return false;
        }
        self.read = self.seen.clone();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(len: u64) -> Stamp {
        Stamp(vec![(
            PathBuf::from("ingle.toml"),
            Some((SystemTime::UNIX_EPOCH, len)),
        )])
    }

    #[test]
    fn a_file_is_read_once_it_has_stopped_changing_and_only_once() {
        let mut watch = Watch::new(stamp(1));
        let looks = [1, 2, 3, 3, 3, 3, 1, 1, 1];
        let read = looks.map(|len| watch.has_settled(stamp(len)));
        let expected = [false, false, false, true, false, false, false, true, false];
        assert_eq!(read, expected);
        // One that changes back before it was read is no other one.
        assert!(!watch.has_settled(stamp(5)));
        assert!(!watch.has_settled(stamp(1)));
        assert!(!watch.has_settled(stamp(1)));
        // Nor is one that is gone for good read twice.
        assert!(!watch.has_settled(Stamp::default()));
        assert!(watch.has_settled(Stamp::default()));
        assert!(!watch.has_settled(Stamp::default()));
    }
}
