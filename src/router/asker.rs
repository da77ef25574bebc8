//! Asks the candidates of one request: what each is sent, how long each is waited for, and who goes on where one breaks
//! off.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use super::attempt::{Attempt, Bounds};
use super::chase::{Asked, Begun, Candidates, Look, Lost, chase};
use super::core::{Core, Rules};
use super::decision::{End, Record};
use super::money::Account;
use super::names::Target;
use super::policy::{Candidate, Question};
use super::race::{Lane, Race, Why};
use super::relay::too_late;
use crate::backend::provider::{CallOptions, Provider};
use crate::backend::{BackendError, BackendErrorKind, ChatStream, ProviderFault};
use crate::chat::{ChatRequest, Usage};
use crate::egress::{Privacy, ProviderPermit, Purpose};
use crate::engine::Place;
use crate::engine::predict::{Deadlines, Shown, Verdict, judge};
use crate::telemetry::spans::Parent;

/// How often a provider is asked again, once everybody else was asked too.
const RETRIES: u32 = 2;
/// Our own engine is not: whoever asked knows better how long to wait for a full queue.
const RETRIES_HERE: u32 = 0;
/// A second opinion is asked no earlier than this.
const HEDGE_LEAST: Duration = Duration::from_millis(200);

/// How long it takes to the first content of somebody nobody has asked yet.
const STRANGER_TAKES: Duration = Duration::from_millis(500);

/// One request and those who may answer it.
pub(super) struct Asker {
    pub(super) core: Arc<Core>,
    /// Those it came under.
    pub(super) rules: Arc<Rules>,
    pub(super) request: Arc<ChatRequest>,
    pub(super) question: Question,
    pub(super) privacy: Privacy,
    pub(super) account: Account,
    pub(super) candidates: Vec<Candidate>,
    pub(super) record: Record,
    /// Within which time the first content is wanted, and the whole.
    pub(super) first_within: Option<Duration>,
    pub(super) whole_within: Option<Duration>,
    /// Where the request stands in the queue of an engine of this process.
    pub(super) place: Mutex<Option<Place>>,
    /// By when all must be over.
    pub(super) until: Option<Instant>,
    /// How often the request was passed on before it came here.
    pub(super) n_hops: u32,
}

impl Asker {
    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long an answer that has begun may fall silent.
    pub(super) fn idle_time(&self, target: &Target) -> Option<Duration> {
        let provider = self.rules.settings.providers.get(&target.provider)?;
        Some(provider.timeouts.idle)
    }

    /// The request is over.
    pub(super) fn ended(&self, end: &End, usage: Usage) {
        self.record.finished(end, usage);
        self.core.ended(&self.record);
    }

    /// Asks until somebody answers.
    pub(super) async fn begin(&self) -> Result<(Begun, Attempt), BackendError> {
        let race = Race::new(self.lanes(), self.until);
        match chase(self, race).await {
            Ok((_, begun, attempt)) => Ok((begun, attempt)),
            Err(lost) => Err(self.told(lost)),
        }
    }

    pub(super) fn lanes(&self) -> Vec<Lane> {
        let one = |(i, candidate): (usize, &Candidate)| {
            let target = &candidate.target;
            if target.is_local() {
                let elapsed = self.record.began().elapsed();
                let deadline = self.first_within.map(|time| time.saturating_sub(elapsed));
                let is_foreseen = candidate.predicted_ttft.is_some();
                return Lane {
                    patience: self.rules.settings.local_timeout,
                    // What is foreseen decides by itself when it is time to leave.
                    hedge_after: deadline
                        .filter(|_| !is_foreseen && i + 1 < self.candidates.len())
                        .map(|deadline| deadline.saturating_sub(self.elsewhere_after(i))),
                    n_retries: RETRIES_HERE,
                };
            }
            let provider = self.rules.settings.providers.get(&target.provider);
            Lane {
                patience: provider.map(|provider| provider.timeouts.first_content),
                hedge_after: self
                    .core
                    .latency(target)
                    .ttft_p90
                    .map(|p90| p90.max(HEDGE_LEAST)),
                n_retries: RETRIES,
            }
        };
        self.candidates.iter().enumerate().map(one).collect()
    }

    /// Time to the first content of whoever would be asked after `lane`.
    fn elsewhere_after(&self, lane: usize) -> Duration {
        let next = self.candidates.get(lane + 1);
        let latency = next.map(|next| self.core.latency(&next.target));
        let known = latency.and_then(|latency| latency.ttft_p50);
        known.unwrap_or(STRANGER_TAKES)
    }

    /// The candidate of a lane.
    ///
    /// # Errors
    /// There is none, which is a bug.
    pub(super) fn candidate(&self, lane: usize) -> Result<&Candidate, BackendError> {
        self.candidates.get(lane).ok_or_else(|| {
            let text = "there is no such candidate";
            BackendError::new(BackendErrorKind::Failed, text)
        })
    }

    /// Holds what asking `candidate` may cost.
    ///
    /// # Errors
    /// There is not that much left, or it could not be written down.
    pub(super) async fn hold(
        &self,
        candidate: &Candidate,
        why: Why,
    ) -> Result<Attempt, BackendError> {
        let max_tokens = candidate.max_tokens.or(self.request.max_new_tokens);
        let bounds = Bounds {
            account: &self.account,
            prompt: self.question.prompt,
            max_tokens: max_tokens.unwrap_or(self.rules.settings.max_tokens),
            price: candidate.price,
            predicted: candidate.predicted_ttft,
        };
        let asked = (&candidate.target, why.name());
        Attempt::hold(&self.core, &self.record, asked, bounds).await
    }

    async fn attempt(
        &self,
        candidate: &Candidate,
        why: Why,
    ) -> Result<(Begun, Attempt), BackendError> {
        let mut attempt = self.hold(candidate, why).await?;
        match self.open(candidate, why, &mut attempt).await {
            Ok(begun) => {
                attempt.answers(Some(&begun.first));
                Ok((begun, attempt))
            }
            Err(error) => {
                attempt.failed(&error);
                Err(error)
            }
        }
    }

    /// Sends the request and waits for the first content.
    async fn open(
        &self,
        candidate: &Candidate,
        why: Why,
        attempt: &mut Attempt,
    ) -> Result<Begun, BackendError> {
        let request = self.request_for(candidate);
        let mut rest = if candidate.target.is_local() {
            attempt.sent();
            let (stream, place) = self.core.local.chat_in_line(&request, None).await?;
            *self.place() = Some(place);
            stream
        } else {
            self.send(candidate, why, &request, attempt).await?
        };
        let first = rest.next().await.unwrap_or_else(|| {
            let kind = if candidate.target.is_local() {
                BackendErrorKind::Failed
            } else {
                BackendErrorKind::Provider(ProviderFault::Garbled)
            };
            Err(BackendError::new(kind, "the answer is empty"))
        })?;
        Ok(Begun { first, rest })
    }

    /// The request in the words of one candidate.
    fn request_for(&self, candidate: &Candidate) -> Cow<'_, ChatRequest> {
        let target = &candidate.target;
        let mut request = Cow::Borrowed(&*self.request);
        if request.model != target.model {
            request.to_mut().model.clone_from(&target.model);
        }
        if request.sampling.temperature.is_none() && candidate.temperature.is_some() {
            request.to_mut().sampling.temperature = candidate.temperature;
        }
        if candidate.max_tokens.is_some() && request.max_new_tokens != candidate.max_tokens {
            request.to_mut().max_new_tokens = candidate.max_tokens;
        }
        request
    }

    /// Lets the request leave this machine, if it may.
    async fn send(
        &self,
        candidate: &Candidate,
        why: Why,
        request: &ChatRequest,
        attempt: &mut Attempt,
    ) -> Result<ChatStream, BackendError> {
        let (provider, permit, call) = self.way_out(candidate, why, attempt.parent())?;
        attempt.drops(provider.dropped(request));
        attempt.sent();
        let model = &candidate.target.model;
        let answer = provider.chat_with(model, request, permit, &call).await?;
        attempt.about(answer.about);
        Ok(answer.stream)
    }

    /// The provider of a candidate, the permit to send it this request, and what it is told besides.
    ///
    /// # Errors
    /// There is no such provider, or the request may not go there.
    pub(super) fn way_out(
        &self,
        candidate: &Candidate,
        why: Why,
        parent: Option<Parent>,
    ) -> Result<(&Provider, ProviderPermit, CallOptions), BackendError> {
        let target = &candidate.target;
        let core = &self.core;
        let provider = core.provider(&target.provider)?;
        let reasons = candidate.why.iter().map(ToString::to_string);
        let reasons: Vec<String> = reasons.collect();
        let purpose = Purpose {
            request_id: self.record.id().to_string(),
            team: self.account.team.as_ref().map(ToString::to_string),
            why: format!("{}: {}", why.name(), reasons.join("; ")),
        };
        let permit = core.permit(&self.rules, &target.provider, self.privacy, purpose)?;
        let call = CallOptions {
            preferences: candidate.openrouter.clone().unwrap_or_default(),
            fallback_models: Vec::new(),
            n_hops: self.n_hops,
            parent,
        };
        Ok((provider, permit, call))
    }

    /// Somebody who goes on with the answer that `from` broke off: our own engine first, which always can.
    pub(super) async fn go_on(&self, rest: ChatRequest, from: &Target) -> Option<(Begun, Attempt)> {
        let mut question = self.question.clone();
        question.needs.prefix = true;
        question.prompt = rest.prompt_size();
        question.max_tokens = rest.max_new_tokens;
        let plan = self
            .core
            .plan(&self.rules, &question, Some(&rest), &self.account, true)
            .await;
        if !plan.fallback {
            return None;
        }
        let others = plan.allowed().filter(|one| one.target != *from);
        let mut candidates: Vec<Candidate> = others.cloned().collect();
        candidates.sort_by_key(|candidate| !candidate.target.is_local());
        let asker = Self {
            core: Arc::clone(&self.core),
            rules: Arc::clone(&self.rules),
            request: Arc::new(rest),
            question,
            privacy: self.privacy,
            account: self.account.clone(),
            candidates,
            record: self.record.clone(),
            first_within: None,
            whole_within: None,
            place: Mutex::default(),
            until: self.until,
            n_hops: self.n_hops,
        };
        asker.begin().await.ok()
    }

    /// What is said when nobody answered.
    pub(super) fn told(&self, lost: Lost) -> BackendError {
        let Lost {
            mut errors,
            is_too_late,
        } = lost;
        if is_too_late && errors.is_empty() {
            return too_late();
        }
        if errors.len() == 1 && !is_too_late {
            return errors.remove(0).1;
        }
        let each = errors.iter().map(|(lane, error)| {
            let target = self
                .candidates
                .get(*lane)
                .map(|candidate| &candidate.target);
            target.map_or_else(|| error.to_string(), |target| format!("{target}: {error}"))
        });
        let message = format!("nobody answered: {}", each_once(each));
        if is_too_late {
            return BackendError::new(BackendErrorKind::Timeout, message);
        }
        // What ended it, or else what tells when to come back.
        let last = errors.last().map(|(_, error)| error.kind.clone());
        let waits = errors.iter().map(|(_, error)| &error.kind).find(|kind| {
            matches!(kind, BackendErrorKind::Provider(fault) if fault.retry_after().is_some())
        });
        let kind = match (last, waits) {
            (Some(last), Some(waits)) if last.may_escalate() => waits.clone(),
            (Some(last), _) => last,
            (None, _) => BackendErrorKind::Failed,
        };
        BackendError::new(kind, message)
    }
}

/// All that is said, and how often what is said again.
fn each_once(said: impl Iterator<Item = String>) -> String {
    let mut counted: Vec<(String, usize)> = Vec::new();
    for text in said {
        match counted.iter_mut().find(|(known, _)| *known == text) {
            Some((_, n)) => *n += 1,
            None => counted.push((text, 1)),
        }
    }
    let told = counted.into_iter().map(|(text, n)| match n {
        1 => text,
        n => format!("{text} ({n} times)"),
    });
    told.collect::<Vec<_>>().join("; ")
}

impl Candidates for Asker {
    type Begun = Begun;
    type Kept = Attempt;

    fn ask(&self, lane: usize, why: Why) -> Asked<'_, Begun, Attempt> {
        Box::pin(async move { self.attempt(self.candidate(lane)?, why).await })
    }

    fn may_hedge(&self) -> bool {
        self.core.take_hedge()
    }

    async fn look(&self, lane: usize) -> Look {
        let Some(candidate) = self.candidates.get(lane) else {
            return Look::Nothing;
        };
        let waited = self.record.began().elapsed().as_secs_f64();
        let next = self.elsewhere_after(lane).as_secs_f64();
        let deadlines = Deadlines {
            ttft: self.first_within.map(|time| time.as_secs_f64()),
            total: self.whole_within.map(|time| time.as_secs_f64()),
            elsewhere: (next, next),
            shown: if self.whole_within.is_some() {
                Shown::Whole
            } else {
                Shown::AsItComes
            },
        };
        let in_line = self.place().as_ref().map(Place::predict);
        let prediction = match in_line {
            // It is not in the engine's queue yet: its model is on its way.
            None => {
                let (local, name) = (&self.core.local, &candidate.target.model);
                let foresight = local.predict_by(name, &self.request).await;
                foresight.ok().and_then(|foresight| foresight.prediction)
            }
            Some(prediction) => prediction,
        };
        let Some(prediction) = prediction else {
            return Look::Nothing;
        };
        match judge(&prediction, waited, &deadlines) {
            Verdict::Leave => Look::Late,
            Verdict::AskAgain(after) => Look::Again(Duration::from_secs_f64(after)),
            Verdict::Stay => Look::Nothing,
        }
    }

    fn can_be_foreseen(&self, lane: usize) -> bool {
        let candidate = self.candidates.get(lane);
        let has_deadline = self.first_within.is_some() || self.whole_within.is_some();
        has_deadline && candidate.is_some_and(|one| one.target.is_local())
    }

    fn out_of_patience(&self, lane: usize) {
        if let Some(candidate) = self.candidates.get(lane) {
            self.core.stalled(&candidate.target);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_said_again_is_counted() {
        let said = ["a: no", "b: no", "a: no", "a: no"].map(str::to_owned);
        assert_eq!(super::each_once(said.into_iter()), "a: no (3 times); b: no");
    }
}
