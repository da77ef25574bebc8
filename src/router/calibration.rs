//! How right predictions were, as whoever asked saw it: the time to the first content over the time that was foretold,
//! by model.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::latest::Latest;

/// The latest so many answers of a model are what its calibration is taken from.
const N_ANSWERS: usize = 256;
/// Models that are told apart; there are no more on a machine.
const MOST_MODELS: usize = 1000;
/// Shorter times are not told apart.
const LEAST: Duration = Duration::from_millis(1);

/// What came of the latest predictions for a model: actual over predicted times to the first content. Where all is well,
/// half of them are below 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// Answers it is taken from.
    pub n_answers: usize,
    /// One of ten was no greater.
    pub ratio_p10: f64,
    /// Half of them were no greater.
    pub ratio_p50: f64,
    /// Nine of ten were no greater.
    pub ratio_p90: f64,
}

type Ratios = Latest<f64, N_ANSWERS>;

/// The calibrations of all models.
#[derive(Debug, Default)]
pub(super) struct Calibrations(BTreeMap<String, Ratios>);

impl Calibrations {
    /// The first content of `model` came after `actual` where `predicted` was foretold; returns how they compare.
    pub(super) fn came(&mut self, model: &str, predicted: Duration, actual: Duration) -> f64 {
        let ratio = actual.div_duration_f64(predicted.max(LEAST));
        if self.0.len() < MOST_MODELS || self.0.contains_key(model) {
            self.0.entry(model.to_owned()).or_default().push(ratio);
        }
        ratio
    }

    /// That of a model, once anything is known.
    pub(super) fn of(&self, model: &str) -> Option<Calibration> {
        self.0.get(model).and_then(calibration)
    }

    /// Those of all.
    pub(super) fn all(&self) -> BTreeMap<String, Calibration> {
        let known = self.0.iter();
        known
            .filter_map(|(model, ratios)| Some((model.clone(), calibration(ratios)?)))
            .collect()
    }
}

fn calibration(ratios: &Ratios) -> Option<Calibration> {
    let sorted = ratios.sorted();
    Some(Calibration {
        n_answers: sorted.len(),
        ratio_p10: sorted.at(10)?,
        ratio_p50: sorted.at(50)?,
        ratio_p90: sorted.at(90)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_calibration_is_of_the_latest_answers_of_its_model() {
        let mut calibrations = Calibrations::default();
        assert_eq!(calibrations.of("m"), None);
        // Forgotten in the end.
        calibrations.came("m", MS, MS * 1000);
        for percent in 1..=100 {
            for _ in 0..3 {
                calibrations.came("m", MS * 100, MS * percent);
            }
        }
        let known = calibrations.of("m").unwrap();
        assert_eq!(known.n_answers, N_ANSWERS);
        // The latest 256 of 300 are those from 15 % on.
        assert_eq!(
            (known.ratio_p10, known.ratio_p50, known.ratio_p90),
            (0.24, 0.58, 0.92)
        );
        assert_eq!(
            calibrations.all().into_iter().collect::<Vec<_>>(),
            [("m".to_owned(), known)]
        );
    }

    #[test]
    fn what_was_foretold_to_take_no_time_at_all_is_no_infinite_error() {
        let mut calibrations = Calibrations::default();
        assert_eq!(calibrations.came("m", Duration::ZERO, MS * 3), 3.0);
    }
}
