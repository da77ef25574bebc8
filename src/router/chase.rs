//! Carries out a race: asks, waits, drops, until the first content of an answer is here.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::race::{Failure, Race, Step, Why};
use crate::backend::{BackendError, BackendErrorKind, ChatStream};
use crate::chat::ChatDelta;

/// When it is first looked whether who is being asked will be in time.
const LOOK_FIRST: Duration = Duration::from_millis(50);
/// And how often where nobody says when there will be more to see.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a look at a candidate that is being asked says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It will be too late.
    Late,
    /// It may be in time: more is known so much later.
    Again(Duration),
    /// Nobody can say.
    Nothing,
}

/// An answer that has begun.
pub(super) struct Begun {
    /// Its first content, or its end where it has none.
    pub(super) first: ChatDelta,
    /// What follows.
    pub(super) rest: ChatStream,
}

/// Work of one candidate; dropping it gives it up.
pub(super) type Asked<'a, B, T> =
    Pin<Box<dyn Future<Output = Result<(B, T), BackendError>> + Send + 'a>>;

/// Candidates that are being asked, by their lanes.
type Running<'a, B, T> = Vec<(usize, Asked<'a, B, T>)>;

/// Who can be asked.
pub(super) trait Candidates: Sync {
    /// What ends the race: an answer, or its beginning.
    type Begun: Send;
    /// What is kept of a candidate that began to answer.
    type Kept: Send;

    /// Asks the candidate of a lane.
    fn ask(&self, lane: usize, why: Why) -> Asked<'_, Self::Begun, Self::Kept>;

    /// Takes one from the hedge budget, if there is one.
    fn may_hedge(&self) -> bool;

    /// Whether a candidate that is being asked will be in time. Only a candidate that `can_be_foreseen`.
    fn look(&self, lane: usize) -> impl Future<Output = Look> + Send;

    /// Whether `look` knows anything of this candidate.
    fn can_be_foreseen(&self, lane: usize) -> bool;

    /// A candidate used up its patience and is about to be dropped.
    fn out_of_patience(&self, lane: usize);
}

/// Nobody began to answer.
#[derive(Debug)]
pub(super) struct Lost {
    /// How each failed, in order.
    pub(super) errors: Vec<(usize, BackendError)>,
    /// The whole deadline passed first.
    pub(super) is_too_late: bool,
}

/// Asks until somebody answers: the lane, its answer, and what is kept of it.
pub(super) async fn chase<C: Candidates>(
    candidates: &C,
    mut race: Race,
) -> Result<(usize, C::Begun, C::Kept), Lost> {
    let mut running: Running<'_, C::Begun, C::Kept> = Vec::new();
    let mut errors = Vec::new();
    let mut look_at = Instant::now() + LOOK_FIRST;
    loop {
        match race.step(Instant::now(), || candidates.may_hedge()) {
            Step::Open { lane, why } => running.push((lane, candidates.ask(lane, why))),
            Step::Drop { lane } => {
                candidates.out_of_patience(lane);
                running.retain(|(one, _)| *one != lane);
                errors.push((lane, silent()));
            }
            Step::Wait { until } => {
                let Some((lane, outcome)) =
                    happens(candidates, &mut running, &mut race, (until, &mut look_at)).await
                else {
                    continue;
                };
                match outcome {
                    Ok((begun, kept)) => return Ok((lane, begun, kept)),
                    Err(error) => {
                        race.failed(lane, failure(&error), jitter(), Instant::now());
                        errors.push((lane, error));
                    }
                }
            }
            Step::Lost => {
                return Err(Lost {
                    errors,
                    is_too_late: false,
                });
            }
            Step::TooLate => {
                return Err(Lost {
                    errors,
                    is_too_late: true,
                });
            }
        }
    }
}

/// Waits for the first of those that are being asked, for the moment, or for a look at who may be late.
async fn happens<C: Candidates>(
    candidates: &C,
    running: &mut Running<'_, C::Begun, C::Kept>,
    race: &mut Race,
    (until, look_at): (Option<Instant>, &mut Instant),
) -> Option<(usize, Result<(C::Begun, C::Kept), BackendError>)> {
    let foreseeable: Vec<usize> = running
        .iter()
        .map(|(lane, _)| *lane)
        .filter(|lane| candidates.can_be_foreseen(*lane))
        .collect();
    let look = (!foreseeable.is_empty()).then_some(*look_at);
    let wake = until.into_iter().chain(look).min();
    let sleep = async {
        match wake {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        outcome = first_of(running) => return Some(outcome),
        () = sleep => {}
    }
    if Instant::now() < *look_at {
        return None;
    }
    let mut again = LOOK_EVERY;
    for lane in foreseeable {
        match candidates.look(lane).await {
            Look::Late => race.foreseen(lane),
            Look::Again(after) => again = again.min(after),
            Look::Nothing => {}
        }
    }
    *look_at = Instant::now() + again;
    None
}

/// The first that comes to something; it is taken out.
async fn first_of<B, T>(running: &mut Running<'_, B, T>) -> (usize, Result<(B, T), BackendError>) {
    poll_fn(|context| {
        let polled = running.iter_mut().enumerate().find_map(|(i, (_, work))| {
            match work.as_mut().poll(context) {
                Poll::Ready(outcome) => Some((i, outcome)),
                Poll::Pending => None,
            }
        });
        match polled {
            Some((i, outcome)) => Poll::Ready((running.swap_remove(i).0, outcome)),
            None => Poll::Pending,
        }
    })
    .await
}

fn failure(error: &BackendError) -> Failure {
    let (may_retry, retry_after) = match error.kind {
        BackendErrorKind::Provider(fault) => (fault.may_retry(), fault.retry_after()),
        BackendErrorKind::Busy { retry_after } => (true, Some(retry_after)),
        _ => (false, None),
    };
    Failure {
        may_escalate: error.may_escalate(),
        may_retry,
        retry_after,
    }
}

fn silent() -> BackendError {
    let text = "nothing came within the time it had";
    BackendError::new(BackendErrorKind::Timeout, text)
}

/// A number in `0.0..1.0` that others do not have at the same moment.
fn jitter() -> f64 {
    let (bits, _) = uuid::Uuid::new_v4().as_u64_pair();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::stream;

    use super::*;
    use crate::backend::ProviderFault;
    use crate::router::race::Lane;

    const MS: Duration = Duration::from_millis(1);

    /// What a scripted candidate does when it is asked.
    #[derive(Clone, Copy)]
    enum Does {
        Answers(u32),
        Fails(u32, bool),
        Hangs,
    }

    struct Scripted {
        does: Vec<Does>,
        asked: Mutex<Vec<(usize, Why)>>,
        dropped: Mutex<Vec<usize>>,
        is_late: AtomicBool,
        foreseeable: Option<usize>,
    }

    fn scripted(does: &[Does]) -> Scripted {
        Scripted {
            does: does.to_vec(),
            asked: Mutex::default(),
            dropped: Mutex::default(),
            is_late: AtomicBool::new(false),
            foreseeable: None,
        }
    }

    impl Scripted {
        fn asked(&self) -> Vec<(usize, Why)> {
            self.asked.lock().unwrap().clone()
        }
    }

    struct Dropped<'a>(&'a Scripted, usize, bool);

    impl Drop for Dropped<'_> {
        fn drop(&mut self) {
            if !self.2 {
                self.0.dropped.lock().unwrap().push(self.1);
            }
        }
    }

    impl Candidates for Scripted {
        type Begun = Begun;
        type Kept = usize;

        fn ask(&self, lane: usize, why: Why) -> Asked<'_, Begun, usize> {
            self.asked.lock().unwrap().push((lane, why));
            let does = self.does[lane];
            Box::pin(async move {
                let mut dropped = Dropped(self, lane, false);
                let outcome = match does {
                    Does::Answers(after) => {
                        tokio::time::sleep(MS * after).await;
                        let begun = Begun {
                            first: ChatDelta::Text(lane.to_string()),
                            rest: Box::pin(stream::empty()),
                        };
                        Ok((begun, lane))
                    }
                    Does::Fails(after, may_escalate) => {
                        tokio::time::sleep(MS * after).await;
                        let kind = if may_escalate {
                            BackendErrorKind::Provider(ProviderFault::NoCredit)
                        } else {
                            BackendErrorKind::UnknownModel
                        };
                        Err(BackendError::new(kind, format!("{lane} failed")))
                    }
                    Does::Hangs => std::future::pending().await,
                };
                dropped.2 = true;
                outcome
            })
        }

        fn may_hedge(&self) -> bool {
            true
        }

        async fn look(&self, _: usize) -> Look {
            if self.is_late.load(Ordering::Relaxed) {
                Look::Late
            } else {
                Look::Nothing
            }
        }

        fn can_be_foreseen(&self, lane: usize) -> bool {
            self.foreseeable == Some(lane)
        }

        fn out_of_patience(&self, _: usize) {}
    }

    fn lane(patience: Option<Duration>, hedge_after: Option<Duration>) -> Lane {
        Lane {
            patience,
            hedge_after,
            n_retries: 0,
        }
    }

    async fn winner(scripted: &Scripted, lanes: Vec<Lane>) -> Result<usize, Lost> {
        let (won, begun, kept) = chase(scripted, Race::new(lanes, None)).await?;
        assert_eq!(begun.first, ChatDelta::Text(won.to_string()));
        assert_eq!(won, kept);
        Ok(won)
    }

    #[tokio::test]
    async fn the_next_answers_for_who_fails() {
        let scripted = scripted(&[Does::Fails(1, true), Does::Answers(1), Does::Answers(1)]);
        let lanes = vec![lane(None, None); 3];
        assert_eq!(winner(&scripted, lanes).await.unwrap(), 1);
        assert_eq!(scripted.asked(), [(0, Why::First), (1, Why::Failed)]);
    }

    #[tokio::test]
    async fn who_hangs_is_dropped_once_its_patience_is_used_up() {
        let scripted = scripted(&[Does::Hangs, Does::Answers(1)]);
        let lanes = vec![lane(Some(MS * 20), None), lane(None, None)];
        assert_eq!(winner(&scripted, lanes).await.unwrap(), 1);
        assert_eq!(*scripted.dropped.lock().unwrap(), [0]);
    }

    #[tokio::test]
    async fn of_two_the_first_content_wins_and_the_other_is_dropped() {
        for (first, second, wins) in [(60, 1, 1), (25, 1000, 0)] {
            let scripted = scripted(&[Does::Answers(first), Does::Answers(second)]);
            let lanes = vec![lane(None, Some(MS * 10)), lane(None, None)];
            assert_eq!(winner(&scripted, lanes).await.unwrap(), wins);
            assert_eq!(scripted.asked(), [(0, Why::First), (1, Why::Hedge)]);
            assert_eq!(*scripted.dropped.lock().unwrap(), [1 - wins]);
        }
    }

    #[tokio::test]
    async fn who_will_be_late_is_escalated_while_it_waits() {
        let mut scripted = scripted(&[Does::Hangs, Does::Answers(1)]);
        scripted.foreseeable = Some(0);
        scripted.is_late.store(true, Ordering::Relaxed);
        let lanes = vec![lane(None, None); 2];
        assert_eq!(winner(&scripted, lanes).await.unwrap(), 1);
        assert_eq!(scripted.asked(), [(0, Why::First), (1, Why::Foreseen)]);
    }

    #[tokio::test]
    async fn all_failures_are_told_when_nobody_answers() {
        let scripted = scripted(&[Does::Fails(1, true), Does::Fails(1, false), Does::Hangs]);
        let lanes = vec![lane(None, None); 3];
        let lost = winner(&scripted, lanes).await.unwrap_err();
        let told: Vec<_> = lost.errors.iter().map(|(_, e)| e.to_string()).collect();
        assert_eq!(told, ["0 failed", "1 failed"]);
        assert!(!lost.is_too_late);
        let hanging = self::scripted(&[Does::Hangs]);
        let until = Some(Instant::now() + MS * 20);
        let race = Race::new(vec![lane(None, None)], until);
        assert!(chase(&hanging, race).await.err().unwrap().is_too_late);
        assert_eq!(*hanging.dropped.lock().unwrap(), [0]);
    }
}
