//! When a request will be answered: the engine's own queue, replayed ahead of time.
//!
//! A prediction is a few replays of the scheduler's law ([`replay`]) over what runs and waits, with what
//! steps cost ([`cost`], learned from the steps there were) and with answers as long as answers are
//! ([`lengths`], drawn anew in each replay: nobody knows how long one will be, and when the first of sixteen
//! ends is not when one ends on the average). How right predictions were corrects the next ones
//! ([`calibration`]). [`deadline`] says what follows from it.
//!
//! Pure: no clock, no channel; the state is an argument.

mod calibration;
mod cost;
mod deadline;
mod lengths;
mod outlook;
mod prediction;
mod replay;
#[cfg(test)]
mod tests;
mod traffic;

pub use calibration::{Calibration, RatioBucket, Ratios, Record};
pub use cost::{CostFit, StepCost, StepShape};
pub use deadline::{Deadlines, Shown, Verdict, judge};
pub use lengths::OutputLengths;
pub use outlook::{Outlook, SequenceLoad};
pub use prediction::{Prediction, Quantiles};
pub use traffic::{Traffic, TrafficMeter};

use self::replay::{Draw, Replay};

/// Replays of a prediction at most, and at least.
const REPLAYS: (usize, usize) = (2, 25);
/// Sequences that all replays of one prediction go through together, about.
const SEQUENCES: usize = 600;

/// When a request of so many prompt tokens that came now would be served; absent while nothing is known of the
/// engine's speed.
pub fn predict(outlook: &Outlook, n_prompt_tokens: u32, max_new_tokens: u32) -> Option<Prediction> {
    let raw = predict_raw(outlook, n_prompt_tokens, max_new_tokens)?;
    Some(outlook.calibration.correct(&raw))
}

/// [`predict`] without what earlier errors taught: what the calibration compares.
pub fn predict_raw(
    outlook: &Outlook,
    n_prompt_tokens: u32,
    max_new_tokens: u32,
) -> Option<Prediction> {
    let last = outlook.incoming.last().or(outlook.waiting.last());
    let last = last.into_iter().chain(outlook.running.last());
    let ticket = last
        .map(|load| load.ticket.saturating_add(1))
        .max()
        .unwrap_or(0);
    let room = outlook.n_ctx.saturating_sub(n_prompt_tokens);
    let newcomer = SequenceLoad::new(ticket, n_prompt_tokens.max(1), max_new_tokens.min(room));
    replays(outlook, Some(newcomer), ticket)
}

/// How much longer the request with this ticket will take; absent when it is not there. Once it has its first
/// token, that takes no time any more.
pub fn predict_queued(outlook: &Outlook, ticket: u64) -> Option<Prediction> {
    let mut all = outlook
        .running
        .iter()
        .chain(&outlook.waiting)
        .chain(&outlook.incoming);
    all.find(|load| load.ticket == ticket)?;
    let raw = replays(outlook, None, ticket)?;
    Some(outlook.calibration.correct(&raw))
}

fn replays(outlook: &Outlook, newcomer: Option<SequenceLoad>, target: u64) -> Option<Prediction> {
    let (least, most) = REPLAYS;
    let n_replays = (SEQUENCES / (outlook.n_live() + 8)).clamp(least, most);
    let mut replay = Replay::default();
    let mut first = Vec::with_capacity(n_replays);
    let mut total = Vec::with_capacity(n_replays);
    for number in 0..n_replays {
        let mut chance = Chance { outlook, number };
        let served = replay.serve(outlook, (newcomer, target), &mut chance)?;
        first.push(served.first_token);
        total.push(served.end);
    }
    Some(Prediction {
        ttft: Quantiles::of(&mut first),
        total: Quantiles::of(&mut total),
    })
}

/// What one replay takes to be so.
struct Chance<'a> {
    outlook: &'a Outlook,
    number: usize,
}

impl Draw for Chance<'_> {
    fn n_left(&mut self, load: &SequenceLoad) -> u32 {
        if load.n_new_most == 0 {
            return 0;
        }
        let most = load.n_generated.saturating_add(load.n_new_most);
        let share = share(load.ticket, self.number);
        let lengths = &self.outlook.lengths;
        lengths.quantile(load.n_generated, share, most) - load.n_generated
    }

    fn gap(&mut self, ticket: u64) -> f64 {
        // Of requests that come independently of each other.
        let share = f64::from(share(!ticket, self.number));
        -share.ln() / self.outlook.traffic.per_second.max(1e-9)
    }
}

/// A number in `0.0..1.0` for a sequence in a replay. Every second replay has the other end of the one before,
/// so that few of them are balanced already.
fn share(ticket: u64, replay: usize) -> f32 {
    let mut z = ticket
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(replay as u64 / 2 + 1);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    let [.., low, high] = (z ^ z >> 31).to_le_bytes();
    let share = (f32::from(u16::from_le_bytes([low, high])) + 0.5) / 65536.0;
    if replay.is_multiple_of(2) {
        share
    } else {
        1.0 - share
    }
}
