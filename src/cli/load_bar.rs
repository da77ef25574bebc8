//! How a load is shown on stderr while somebody waits for an answer.

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::fetch_bar::FetchBar;
use crate::catalog::{FetchEvent, Progress};
use crate::pool::{LoadEvent, LoadStage, ModelId};

/// Shows the steps of `model`'s load until it is ready or failed. Fetching is shown as `ingle pull`
/// shows it; the rest takes seconds and is not worth a line.
pub(super) async fn show(mut events: Receiver<LoadEvent>, model: ModelId) {
    let bar = FetchBar::stderr();
    let mut shown = Shown::default();
    loop {
        let stage = match events.recv().await {
            Ok(event) if event.model == model => event.stage,
            // Of another model, or so many that some were lost: the next ones say it again.
            Ok(_) | Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let is_last = stage.is_last();
        for event in shown.events(stage) {
            bar.event(event);
        }
        if is_last {
            return;
        }
    }
}

/// What was told so far.
#[derive(Default)]
struct Shown {
    source: Option<String>,
}

impl Shown {
    /// What a stage means to the bar.
    fn events(&mut self, stage: LoadStage) -> Vec<FetchEvent> {
        match stage {
            LoadStage::Fetching {
                source,
                done_bytes: done,
                total_bytes: total,
            } => {
                let bytes = FetchEvent::Bytes { done, total };
                if self.source.as_deref() == Some(source.as_str()) {
                    return vec![bytes];
                }
                self.source = Some(source.clone());
                vec![FetchEvent::Started { source, total }, bytes]
            }
            LoadStage::SourceFailed {
                source,
                reason,
                next,
            } => {
                self.source = None;
                vec![FetchEvent::Failed {
                    source,
                    reason,
                    next,
                }]
            }
            LoadStage::Verifying => vec![FetchEvent::Verifying],
            LoadStage::Opening if self.source.take().is_some() => vec![FetchEvent::Done],
            _ => Vec::new(),
        }
    }
}
