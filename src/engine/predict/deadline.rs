//! Whether a request may stay where it is.

use super::prediction::{Prediction, Quantiles};

/// A request looks again no oftener, and no more seldom. Units: seconds.
const AGAIN: (f64, f64) = (0.05, 1.0);

/// What a request must keep, counted from when it came. Units: seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deadlines {
    /// Until its first token.
    pub ttft: Option<f64>,
    /// Until its end.
    pub total: Option<f64>,
    /// What somebody else needs to the first token, and to the end: later than that before the deadline there is
    /// no sense in leaving.
    pub elsewhere: (f64, f64),
}

/// What to do with a request that waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// It will keep its deadlines, or could not keep them elsewhere either.
    Stay,
    /// Ask again so much later: it may still go either way. Units: seconds.
    AskAgain(f64),
    /// It will miss one: elsewhere it can still be kept.
    Leave,
}

/// Judges a request that came `waited` seconds ago and has no first token yet, by what is predicted for it now.
///
/// Waiting costs nothing as long as there is time to leave, and whoever waits knows more later. So before the
/// last moment only those leave who miss the deadline even if things go well (the tenth percentile is late). At the last
/// moment (the deadline less what it takes elsewhere) it is decided by what is likelier: the median. Any other
/// percentile there would miss more deadlines than it saves needless moves, or the other way round.
pub fn judge(prediction: &Prediction, waited: f64, deadlines: &Deadlines) -> Verdict {
    let (first_elsewhere, end_elsewhere) = deadlines.elsewhere;
    let by_ttft = deadlines
        .ttft
        .map(|by| judge_one(&prediction.ttft, by - waited, first_elsewhere));
    let by_total = deadlines
        .total
        .map(|by| judge_one(&prediction.total, by - waited, end_elsewhere));
    match (by_ttft.unwrap_or(Verdict::Stay), by_total.unwrap_or(Verdict::Stay)) {
        (Verdict::Leave, _) | (_, Verdict::Leave) => Verdict::Leave,
        (Verdict::AskAgain(a), Verdict::AskAgain(b)) => Verdict::AskAgain(a.min(b)),
        (Verdict::AskAgain(again), _) | (_, Verdict::AskAgain(again)) => Verdict::AskAgain(again),
        _ => Verdict::Stay,
    }
}

fn judge_one(time: &Quantiles, left: f64, elsewhere: f64) -> Verdict {
    let (soonest, latest) = AGAIN;
    let to_last_moment = left - elsewhere;
    let is_late = if to_last_moment > soonest / 2.0 {
        time.p10 > left
    } else {
        // Whoever is past it leaves only if it is served sooner elsewhere.
        time.p50 > left.max(elsewhere)
    };
    if is_late {
        return Verdict::Leave;
    }
    // Things may yet go wrong, until it is served. The nearer the last moment, the oftener.
    Verdict::AskAgain((to_last_moment / 2.0).clamp(soonest, latest))
}
