//! How a load tells others where it stands.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use crate::catalog::{FetchEvent, Progress};

use super::status::{LoadEvent, LoadStage, ModelId};

/// Byte counts are passed on no oftener than this.
const BYTES_EVERY: Duration = Duration::from_millis(100);

/// The voice of one model's load: keeps its latest stage and tells everybody who listens.
pub(super) struct Reporter {
    model: ModelId,
    events: broadcast::Sender<LoadEvent>,
    latest: Mutex<Latest>,
}

struct Latest {
    stage: LoadStage,
    /// When it came to this stage.
    since: Instant,
    told: Instant,
}

impl Reporter {
    /// A load that is about to begin.
    pub(super) fn new(model: ModelId, events: broadcast::Sender<LoadEvent>) -> Self {
        let now = Instant::now();
        let latest = Latest {
            stage: LoadStage::Opening,
            since: now,
            told: now,
        };
        Self {
            model,
            events,
            latest: Mutex::new(latest),
        }
    }

    /// The stage it came to last.
    pub(super) fn latest(&self) -> LoadStage {
        self.latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stage
            .clone()
    }

    /// The stage it came to last, and for how long it has been there.
    pub(super) fn standing(&self) -> (LoadStage, Duration) {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        (latest.stage.clone(), latest.since.elapsed())
    }

    /// Tells that the load came to `stage`. Byte counts of one stage are thinned out, its first and
    /// last one never.
    pub(super) fn tell(&self, stage: LoadStage) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_new = !is_same_stage(&latest.stage, &stage);
        if is_new {
            latest.since = now;
        }
        let is_step = is_new || stage.fraction() == Some(1.0);
        latest.stage = stage.clone();
        if !is_step && now.saturating_duration_since(latest.told) < BYTES_EVERY {
            return;
        }
        latest.told = now;
        drop(latest);
        // Nobody listening is no error.
        let _ = self.events.send(LoadEvent {
            model: self.model.clone(),
            stage,
        });
    }
}

fn is_same_stage(a: &LoadStage, b: &LoadStage) -> bool {
    match (a, b) {
        (LoadStage::Fetching { source: a, .. }, LoadStage::Fetching { source: b, .. }) => a == b,
        (LoadStage::Weights { .. }, LoadStage::Weights { .. }) => true,
        _ => false,
    }
}

/// Passes the catalogue's events on as stages of a load.
pub(super) struct FetchProgress<F> {
    tell: F,
    /// The source that is tried.
    source: Mutex<String>,
}

impl<F: Fn(LoadStage) + Send + Sync> FetchProgress<F> {
    /// `tell` hears the stages.
    pub(super) fn new(tell: F) -> Self {
        Self {
            tell,
            source: Mutex::default(),
        }
    }
}

impl<F: Fn(LoadStage) + Send + Sync> Progress for FetchProgress<F> {
    fn event(&self, event: FetchEvent) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let stage = match event {
            FetchEvent::Waiting => LoadStage::Fetching {
                source: "another download of it".to_owned(),
                done_bytes: 0,
                total_bytes: None,
            },
            FetchEvent::Retrying { reason } => LoadStage::SourceFailed {
                source: source.clone(),
                reason,
                next: Some(source.clone()),
            },
            FetchEvent::Started {
                source: name,
                total,
            } => {
                source.clone_from(&name);
                LoadStage::Fetching {
                    source: name,
                    done_bytes: 0,
                    total_bytes: total,
                }
            }
            FetchEvent::Bytes { done, total } => LoadStage::Fetching {
                source: source.clone(),
                done_bytes: done,
                total_bytes: total,
            },
            FetchEvent::Failed {
                source,
                reason,
                next,
            } => LoadStage::SourceFailed {
                source,
                reason,
                next,
            },
            FetchEvent::Verifying => LoadStage::Verifying,
            FetchEvent::Done => LoadStage::Opening,
            // Bytes are those of all files.
            FetchEvent::File { .. } => return,
        };
        (self.tell)(stage);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_are_thinned_but_steps_are_told() {
        let (events, mut heard) = broadcast::channel(64);
        let reporter = Reporter::new(ModelId::new("a"), events);
        for done_bytes in 0..=50 {
            reporter.tell(LoadStage::Weights {
                done_bytes,
                total_bytes: 50,
            });
        }
        reporter.tell(LoadStage::Ready);
        let mut stages = Vec::new();
        while let Ok(event) = heard.try_recv() {
            stages.push(event.stage);
        }
        assert_eq!(
            stages.first(),
            Some(&LoadStage::Weights {
                done_bytes: 0,
                total_bytes: 50
            })
        );
        assert!(stages.contains(&LoadStage::Weights {
            done_bytes: 50,
            total_bytes: 50
        }));
        assert!(
            stages.len() < 10,
            "{} events for a load of an instant",
            stages.len()
        );
        assert_eq!(stages.last(), Some(&LoadStage::Ready));
        assert_eq!(reporter.latest(), LoadStage::Ready);
    }
}
