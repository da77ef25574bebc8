//! When a model would answer that is here, on its way, or not yet: what the pool foresees.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bytes::Bytes;
use super::status::{LoadStage, ModelId};
use crate::engine::predict::{Outlook, OutputLengths, Prediction, Quantiles, StepCost, predict};

/// Loads after which a load counts half.
const HALF_LIFE: f64 = 4.0;
/// How far a load is off before enough of them are known: a third more or less.
const DEVIATION_AT_FIRST: f64 = 0.3;
/// Mean deviations that nine of ten stay within.
const NINE_OF_TEN: f64 = 1.6;
/// A download that has brought less than this share says nothing of when it ends.
const SHARE_LEAST: f64 = 0.02;

/// Where a model stands for whoever would ask it something now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is in memory.
    Ready,
    /// It is fetched or loaded, or waits for memory.
    Coming,
    /// Nobody asked for it.
    Absent,
    /// It failed a moment ago, leaves, or does not write.
    Unable,
}

/// What the pool foresees of a model.
#[derive(Clone, Debug)]
pub struct ModelOutlook {
    /// Where it stands.
    pub standing: Standing,
    /// Until it is in memory. Units: seconds; absent where nobody can know: its file is not here, or others
    /// hold the memory it needs.
    pub load: Option<Quantiles>,
    /// What its engine has before it, or will have; absent where nothing is known of its speed.
    pub engine: Option<Outlook>,
}

impl ModelOutlook {
    /// When a request would be served that came now.
    pub fn predict(&self, n_prompt_tokens: u32, max_new_tokens: u32) -> Option<Prediction> {
        let prediction = predict(self.engine.as_ref()?, n_prompt_tokens, max_new_tokens)?;
        Some(prediction.after(self.load?))
    }
}

/// A time that changes: its mean and how far it is off, older ones fading.
#[derive(Clone, Copy, Debug, Default)]
struct Fading {
    n: f64,
    mean: f64,
    deviation: f64,
}

impl Fading {
    fn add(&mut self, value: f64) {
        let kept = self.n * (-1.0 / HALF_LIFE).exp2();
        self.n = kept + 1.0;
        let off = if kept > 0.0 {
            (value / self.mean - 1.0).abs().min(1.0)
        } else {
            DEVIATION_AT_FIRST
        };
        self.deviation += (off - self.deviation) / self.n;
        self.mean += (value - self.mean) / self.n;
    }

    fn quantiles(&self, times: f64) -> Option<Quantiles> {
        let p50 = self.mean * times;
        let off = (NINE_OF_TEN * self.deviation).min(0.9);
        (self.n > 0.0).then_some(Quantiles {
            p05: p50 * (1.0 - off),
            p50,
            p90: p50 * (1.0 + off),
        })
    }
}

/// A model that was loaded before.
#[derive(Clone, Debug)]
struct Past {
    seconds: Fading,
    weight_bytes: u64,
    held: Bytes,
    speed: Option<(StepCost, OutputLengths)>,
}

/// The loads there were, and how fast the models were.
#[derive(Debug, Default)]
pub(super) struct LoadHistory {
    models: BTreeMap<ModelId, Past>,
    /// Seconds a byte of weights.
    per_byte: Fading,
}

impl LoadHistory {
    /// A model was loaded.
    pub(super) fn loaded(&mut self, model: &ModelId, weights: u64, held: Bytes, took: Duration) {
        let seconds = took.as_secs_f64();
        self.per_byte.add(seconds / (weights.max(1) as f64));
        let past = self.models.entry(model.clone()).or_insert_with(|| Past {
            seconds: Fading::default(),
            weight_bytes: weights,
            held,
            speed: None,
        });
        past.seconds.add(seconds);
        past.weight_bytes = weights;
        past.held = held;
    }

    /// How fast a model was, and how long its answers.
    pub(super) fn measured(&mut self, model: &ModelId, speed: (StepCost, OutputLengths)) {
        if let Some(past) = self.models.get_mut(model) {
            past.speed = Some(speed);
        }
    }

    /// What a model will hold; of one that was never loaded, what is likely for its file.
    pub(super) fn held(&self, model: &ModelId, file_bytes: Option<u64>) -> Option<Bytes> {
        let past = self.models.get(model).map(|past| past.held);
        past.or_else(|| Some(Bytes::on_host(file_bytes?.saturating_mul(5) / 4)))
    }

    /// What a load takes from its begin: as it took before, or as others took for their bytes. Units: seconds.
    pub(super) fn predict_load(
        &self,
        model: &ModelId,
        file_bytes: Option<u64>,
    ) -> Option<Quantiles> {
        let past = self.models.get(model);
        let own = past.and_then(|past| past.seconds.quantiles(1.0));
        own.or_else(|| self.per_byte.quantiles(file_bytes? as f64))
    }

    /// How fast a model will be: as it was, or as another was for its bytes.
    pub(super) fn speed(
        &self,
        model: &ModelId,
        file_bytes: Option<u64>,
    ) -> Option<(StepCost, OutputLengths)> {
        let own = self.models.get(model).and_then(|past| past.speed.clone());
        own.or_else(|| {
            let bytes = file_bytes?;
            let known = self.models.values().filter(|past| past.speed.is_some());
            let nearest = known.min_by_key(|past| past.weight_bytes.abs_diff(bytes))?;
            let (cost, _) = nearest.speed.as_ref()?;
            let times = bytes as f64 / nearest.weight_bytes.max(1) as f64;
            Some((cost.times(times), OutputLengths::default()))
        })
    }
}

/// What is left of a load that stands at `stage`, of which a load takes `whole` and which is at that stage for
/// `since`. Units: seconds; absent where nobody can know.
pub(super) fn remaining(
    stage: &LoadStage,
    since: Duration,
    whole: Option<Quantiles>,
) -> Option<Quantiles> {
    let since = since.as_secs_f64();
    let share = stage.fraction().filter(|share| *share >= SHARE_LEAST);
    let by_share = share.map(|share| {
        let p50 = since * (1.0 - share) / share;
        Quantiles {
            p05: p50 * 0.7,
            p50,
            p90: p50 * 1.5,
        }
    });
    match stage {
        LoadStage::Fetching { .. } => Some(by_share?.after(whole?)),
        LoadStage::Weights { .. } => by_share.or_else(|| Some(less(whole?, since))),
        LoadStage::Verifying | LoadStage::Opening | LoadStage::WarmingUp => {
            let whole = whole?;
            // These take a small part of it.
            let share = if matches!(stage, LoadStage::WarmingUp) {
                0.1
            } else {
                1.0
            };
            let part = Quantiles {
                p05: whole.p05 * share,
                p50: whole.p50 * share,
                p90: whole.p90 * share,
            };
            Some(less(part, since))
        }
        LoadStage::Ready => Some(Quantiles::default()),
        LoadStage::SourceFailed { .. } | LoadStage::WaitingForMemory | LoadStage::Failed { .. } => {
            None
        }
    }
}

/// What is left after `gone`: never nothing, since it is not over.
fn less(whole: Quantiles, gone: f64) -> Quantiles {
    let left = |seconds: f64| (seconds - gone).max(seconds * 0.05);
    Quantiles {
        p05: left(whole.p05),
        p50: left(whole.p50),
        p90: left(whole.p90),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelId {
        ModelId::new(name)
    }

    #[test]
    fn a_load_takes_as_long_as_before_and_another_model_as_its_bytes_say() {
        let mut history = LoadHistory::default();
        assert_eq!(history.predict_load(&model("a"), Some(100)), None);
        for seconds in [9, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2] {
            let held = Bytes::on_host(120);
            history.loaded(&model("a"), 100, held, Duration::from_secs(seconds));
        }
        let own = history.predict_load(&model("a"), None).unwrap();
        assert!(
            (1.9..2.8).contains(&own.p50),
            "the first one fades: {own:?}"
        );
        assert!(own.p05 < own.p50 && own.p50 < own.p90);
        let other = history.predict_load(&model("b"), Some(1000)).unwrap();
        assert!((other.p50 / own.p50 - 10.0).abs() < 0.1, "{other:?}");
        assert_eq!(history.predict_load(&model("b"), None), None);
        assert_eq!(history.held(&model("a"), None), Some(Bytes::on_host(120)));
        assert_eq!(
            history.held(&model("b"), Some(80)),
            Some(Bytes::on_host(100))
        );
    }

    #[test]
    fn what_is_left_shrinks_and_what_waits_for_others_is_not_known() {
        let whole = Some(Quantiles {
            p05: 8.0,
            p50: 10.0,
            p90: 12.0,
        });
        let weights = |done_bytes| LoadStage::Weights {
            done_bytes,
            total_bytes: 100,
        };
        let left = |stage, since| remaining(&stage, Duration::from_secs(since), whole);
        assert_eq!(left(weights(0), 4).unwrap().p50, 6.0);
        assert_eq!(left(weights(75), 6).unwrap().p50, 2.0);
        assert_eq!(
            left(LoadStage::Opening, 100).unwrap().p50,
            0.5,
            "late is not never"
        );
        let fetching = LoadStage::Fetching {
            source: "hub".to_owned(),
            done_bytes: 50,
            total_bytes: Some(100),
        };
        assert_eq!(
            left(fetching, 30).unwrap().p50,
            40.0,
            "and then it is loaded"
        );
        assert_eq!(left(LoadStage::WaitingForMemory, 1), None);
        assert_eq!(remaining(&LoadStage::Opening, Duration::ZERO, None), None);
    }
}
