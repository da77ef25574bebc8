//! Whether a request may stay where it is.

use super::prediction::{Prediction, Quantiles};

/// A request looks again no oftener, and no more seldom. Units: seconds.
const AGAIN: (f64, f64) = (0.02, 1.0);

/// Before the last moment whoever will not even make this many times its deadline leaves. Less would be right
/// for the queue as it stands; but who waits before it may leave too, and then it would have been served.
const HOPELESS: f64 = 2.5;

/// Until when an answer may still be somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Until its first token: it is shown as it comes.
    AsItComes,
    /// Until its end: it is shown whole.
    Whole,
}

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
    /// How its answer is shown.
    pub shown: Shown,
}

/// What to do with a request that waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// It has no deadline to miss.
    Stay,
    /// Ask again so much later: it may still go either way. Units: seconds.
    AskAgain(f64),
    /// It will miss one: elsewhere it can still be kept.
    Leave,
}

/// Judges a request that came `waited` seconds ago and of whose answer nobody has seen anything yet, by what is
/// predicted for it now.
///
/// Waiting costs nothing as long as there is time to leave, and whoever waits knows more later: how long the
/// answers before it are, and which of those who wait before it leave. So before the last moment only the hopeless
/// leave. The last moment is the deadline less what it takes elsewhere, or for an answer shown as it comes the first
/// token, if that is sooner. There a first token is judged by a percentile between the median and the ninetieth: steps
/// are late oftener than early, and so near the two hardly differ. The whole time is judged by the median:
/// where nobody knows how long an answer will be, any higher percentile would send most of them away.
pub fn judge(prediction: &Prediction, waited: f64, deadlines: &Deadlines) -> Verdict {
    let (first_elsewhere, end_elsewhere) = deadlines.elsewhere;
    let by_ttft = deadlines.ttft.map(|by| {
        let (time, left) = (&prediction.ttft, by - waited);
        let late = time.p50.midpoint(time.p90);
        let to_last = left - first_elsewhere;
        judge_one(time, late, (left, first_elsewhere), to_last)
    });
    let by_total = deadlines.total.map(|by| {
        let (time, left) = (&prediction.total, by - waited);
        let to_last = match deadlines.shown {
            Shown::AsItComes => (left - end_elsewhere).min(prediction.ttft.p05),
            Shown::Whole => left - end_elsewhere,
        };
        judge_one(time, time.p50, (left, end_elsewhere), to_last)
    });
    let verdicts = [by_ttft, by_total].into_iter().flatten();
    verdicts.fold(Verdict::Stay, |one, other| match (one, other) {
        (Verdict::Leave, _) | (_, Verdict::Leave) => Verdict::Leave,
        (Verdict::AskAgain(one), Verdict::AskAgain(other)) => Verdict::AskAgain(one.min(other)),
        (Verdict::Stay, verdict) | (verdict, Verdict::Stay) => verdict,
    })
}

/// `late` is the time that decides at the last moment, which is so far away.
fn judge_one(time: &Quantiles, late: f64, (left, elsewhere): (f64, f64), to_last: f64) -> Verdict {
    let (soonest, latest) = AGAIN;
    let is_late = if to_last > soonest / 2.0 {
        time.p05 > left * HOPELESS
    } else {
        // Whoever is past it leaves only if it is served sooner elsewhere.
        late > left.max(elsewhere)
    };
    if is_late {
        return Verdict::Leave;
    }
    // Things may yet go wrong, until it is served. The nearer the last moment, the oftener.
    Verdict::AskAgain((to_last / 2.0).clamp(soonest, latest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foretold(ttft: f64, total: f64) -> Prediction {
        let about = |seconds: f64| Quantiles {
            p05: seconds * 0.9,
            p50: seconds,
            p90: seconds * 1.2,
        };
        Prediction {
            ttft: about(ttft),
            total: about(total),
        }
    }

    const BOTH: Deadlines = Deadlines {
        ttft: Some(4.0),
        total: Some(20.0),
        elsewhere: (1.0, 5.0),
        shown: Shown::Whole,
    };

    #[test]
    fn the_hopeless_leave_at_once_the_doubtful_at_the_last_moment_and_the_others_never() {
        assert_eq!(judge(&foretold(20.0, 21.0), 0.0, &BOTH), Verdict::Leave);
        let doubtful = foretold(5.0, 9.0);
        assert_eq!(judge(&doubtful, 0.0, &BOTH), Verdict::AskAgain(1.0));
        assert_eq!(
            judge(&foretold(2.5, 6.0), 2.5, &BOTH),
            Verdict::AskAgain(0.25)
        );
        assert_eq!(judge(&foretold(2.0, 6.0), 3.0, &BOTH), Verdict::Leave);
        assert!(matches!(
            judge(&foretold(0.5, 6.0), 3.0, &BOTH),
            Verdict::AskAgain(_)
        ));
        let none = Deadlines {
            ttft: None,
            total: None,
            ..BOTH
        };
        assert_eq!(judge(&foretold(1e9, 1e9), 0.0, &none), Verdict::Stay);
    }

    #[test]
    fn who_is_shown_as_it_comes_decides_on_its_end_before_its_first_token() {
        let shown = Deadlines {
            ttft: None,
            shown: Shown::AsItComes,
            ..BOTH
        };
        let late = foretold(0.01, 22.0);
        assert_eq!(judge(&late, 0.0, &shown), Verdict::Leave);
        let whole = Deadlines {
            shown: Shown::Whole,
            ..shown
        };
        assert_eq!(judge(&late, 0.0, &whole), Verdict::AskAgain(1.0));
    }

    #[test]
    fn past_the_last_moment_only_those_leave_who_gain_by_it() {
        let soon = Deadlines {
            total: None,
            ..BOTH
        };
        assert!(matches!(
            judge(&foretold(0.6, 1.0), 3.7, &soon),
            Verdict::AskAgain(_)
        ));
        assert_eq!(judge(&foretold(1.4, 2.0), 3.7, &soon), Verdict::Leave);
    }
}
