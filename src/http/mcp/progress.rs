//! Tells a client how far slow work is, where it asked to be told.

use std::time::Duration;

use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::{Peer, RoleServer};

use crate::pool::LoadStage;

/// Progress is told again when so much more is done.
const STEP: f64 = 0.01;
/// What a step counts whose size nobody knows: the protocol wants every number above the last.
const LEAST: f64 = 1e-6;
/// A client that does not take a line for so long is told no more.
const TELL_MOST: Duration = Duration::from_secs(2);

/// Who is told, and what was told last.
pub(super) struct Teller {
    listener: Option<(Peer<RoleServer>, ProgressToken)>,
    course: Course,
}

impl Teller {
    pub(super) fn new(peer: &Peer<RoleServer>, token: Option<ProgressToken>) -> Self {
        Self {
            listener: token.map(|token| (peer.clone(), token)),
            course: Course::default(),
        }
    }

    /// Tells a step, where it is news.
    pub(super) async fn tell(&mut self, stage: &LoadStage) {
        if let Some((progress, message)) = self.course.next(stage) {
            self.send(progress, message).await;
        }
    }

    /// Tells that all is done.
    pub(super) async fn done(&mut self, message: String) {
        self.send(1.0, message).await;
    }

    async fn send(&mut self, progress: f64, message: String) {
        let Some((peer, token)) = &self.listener else {
            return;
        };
        let step = ProgressNotificationParam::new(token.clone(), progress)
            .with_total(1.0)
            .with_message(message);
        let told = tokio::time::timeout(TELL_MOST, peer.notify_progress(step)).await;
        if !matches!(told, Ok(Ok(()))) {
            self.listener = None;
        }
    }
}

/// What was told last.
#[derive(Default)]
struct Course {
    progress: f64,
    message: String,
}

impl Course {
    /// The next number and sentence; `None` where they are no news.
    fn next(&mut self, stage: &LoadStage) -> Option<(f64, String)> {
        let (share, message) = (share(stage)?, message(stage));
        if message == self.message && share < self.progress + STEP {
            return None;
        }
        self.progress = share.max(self.progress + LEAST);
        self.message.clone_from(&message);
        Some((self.progress, message))
    }
}

/// The share of a whole load that is done at this stage; `None` at its end, which is an answer of its own.
fn share(stage: &LoadStage) -> Option<f64> {
    let part = stage.fraction().unwrap_or(0.0);
    match stage {
        LoadStage::Fetching { .. } => Some(0.45 * part),
        LoadStage::SourceFailed { .. } => Some(0.0),
        LoadStage::Verifying => Some(0.45),
        LoadStage::Opening => Some(0.5),
        LoadStage::WaitingForMemory => Some(0.51),
        LoadStage::Weights { .. } => Some(0.52 + 0.43 * part),
        LoadStage::WarmingUp => Some(0.96),
        LoadStage::Ready | LoadStage::Failed { .. } => None,
    }
}

fn message(stage: &LoadStage) -> String {
    match stage {
        LoadStage::Fetching { source, .. } => format!("fetching from {source}"),
        LoadStage::SourceFailed {
            source,
            reason,
            next: Some(next),
        } => format!("{source} failed ({reason}), trying {next}"),
        LoadStage::SourceFailed { source, reason, .. } => format!("{source} failed ({reason})"),
        LoadStage::Verifying => "verifying the file".to_owned(),
        LoadStage::Opening => "opening the file".to_owned(),
        LoadStage::WaitingForMemory => "waiting for memory".to_owned(),
        LoadStage::Weights { .. } => "loading weights".to_owned(),
        LoadStage::WarmingUp => "warming up".to_owned(),
        LoadStage::Ready => "ready".to_owned(),
        LoadStage::Failed { reason } => reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetching(source: &str, done_bytes: u64) -> LoadStage {
        LoadStage::Fetching {
            source: source.to_owned(),
            done_bytes,
            total_bytes: Some(1000),
        }
    }

    #[test]
    fn every_number_is_above_the_last_also_where_a_source_fails() {
        let failed = LoadStage::SourceFailed {
            source: "one".to_owned(),
            reason: "broken".to_owned(),
            next: Some("two".to_owned()),
        };
        let weights = |done_bytes| LoadStage::Weights {
            done_bytes,
            total_bytes: 100,
        };
        let stages = [
            fetching("one", 0),
            fetching("one", 900),
            failed,
            fetching("two", 0),
            fetching("two", 1000),
            LoadStage::Verifying,
            LoadStage::Opening,
            LoadStage::WaitingForMemory,
            weights(0),
            weights(100),
            LoadStage::WarmingUp,
        ];
        let mut course = Course::default();
        let told: Vec<_> = stages.iter().map(|stage| course.next(stage)).collect();
        let told: Vec<f64> = told.into_iter().map(|told| told.unwrap().0).collect();
        assert!(told.windows(2).all(|pair| pair[0] < pair[1]), "{told:?}");
        assert!(told[told.len() - 1] < 1.0);
    }

    #[test]
    fn crumbs_are_no_news() {
        let mut course = Course::default();
        let told = (0..1000).filter(|done| course.next(&fetching("one", *done)).is_some());
        assert!((20..=60).contains(&told.count()));
    }
}
