//! How things stand when a request comes.

use std::time::Duration;

use serde::Serialize;

use crate::config::router::RouterSettings;
use crate::money::MicroUsd;
use crate::router::calibration::Calibration;
use crate::router::names::{Names, Target};
use crate::router::prices::Price;
use crate::router::quality::Quality;

/// How things stand.
#[derive(Clone, Copy)]
pub struct Snapshot<'a> {
    /// What is configured.
    pub settings: &'a RouterSettings,
    /// What models are called.
    pub names: &'a Names,
    /// How good they are.
    pub quality: &'a Quality,
    /// The models of the engine in this process.
    pub locals: &'a [LocalModel],
    /// What is known of each target.
    pub facts: &'a dyn FactsOf,
    /// What the caller may still spend; absent: any amount.
    pub budget_left: Option<MicroUsd>,
    /// Nothing leaves this machine.
    pub offline: bool,
}

/// A model of the engine in this process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocalModel {
    /// Its names, the one it is asked by first.
    pub names: Vec<String>,
    /// Where it is.
    pub state: LocalState,
    /// Why it cannot take the request now: its queue is full, its memory is in use.
    pub full: Option<String>,
    /// Predicted time to the first content of this request, with loading and waiting.
    pub first: Option<Duration>,
    /// Predicted time to its end.
    pub total: Option<Duration>,
    /// Whether it is foreseen to miss the deadline, so that there is no sense in waiting to see; absent: as `first` says.
    pub is_late: Option<bool>,
}

/// Where a model of the engine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalState {
    /// In memory.
    #[default]
    Ready,
    /// On its way into memory.
    Loading,
    /// On the disk.
    Stored,
    /// Known, and not here.
    Absent,
    /// It could not be loaded, and is not tried again yet.
    Failed,
}

/// What is known of a target. What is absent is not known, and excludes nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Facts {
    /// What it costs.
    pub price: Option<Price>,
    /// Tokens of prompt and answer together at most.
    pub context: Option<u32>,
    /// Tokens of an answer at most.
    pub max_output: Option<u32>,
    /// Whether it can call tools.
    pub tools: Option<bool>,
    /// Whether it can see.
    pub images: Option<bool>,
    /// Whether it can answer in JSON of a schema.
    pub json: Option<bool>,
    /// Whether it can go on with a text that an assistant began.
    pub prefix: Option<bool>,
    /// Whether it can make vectors.
    pub vectors: Option<bool>,
    /// Whether it may be asked after what happened before.
    pub breaker: Breaker,
    /// Measured time to its first content.
    pub first: Option<Duration>,
    /// Measured time from one token to the next.
    pub per_token: Option<Duration>,
    /// How right predictions for it were.
    pub calibration: Option<Calibration>,
}

/// Whether a target may be asked after what happened before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Breaker {
    /// It may.
    #[default]
    Closed,
    /// It may, to see whether it works again.
    HalfOpen,
    /// It may not, for so long.
    Open {
        /// Time until it is tried again.
        retry_after: Duration,
    },
}

/// Who knows about targets.
pub trait FactsOf {
    /// What is known of `target` now.
    fn facts(&self, target: &Target) -> Facts;
}

impl<F: Fn(&Target) -> Facts> FactsOf for F {
    fn facts(&self, target: &Target) -> Facts {
        self(target)
    }
}
