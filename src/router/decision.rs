//! What was decided about a request, and what came of it: one record a request, kept for a while and logged when it
//! ends.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::trace::{Operation, Trace};
use crate::backend::{BackendError, BackendErrorKind};
use crate::chat::{FinishReason, Usage};
use crate::money::MicroUsd;
use crate::router::policy::Plan;
use crate::telemetry::spans::{Parent, Spans};

/// Decisions that can be asked about afterwards.
const N_KEPT: usize = 2048;

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct Decision {
    /// By which it is asked about.
    pub id: String,
    /// Seconds since 1970.
    pub time: u64,
    /// The model as the request named it.
    pub model: String,
    /// For whom it was asked.
    pub team: Option<String>,
    /// The key it came with.
    pub key: Option<String>,
    /// What it was for, in the request's words.
    pub task: Option<String>,
    /// How far it might go.
    pub privacy: String,
    /// Every candidate with its reasons, as it was planned.
    #[serde(serialize_with = "shared")]
    pub plan: Arc<Plan>,
    /// Who was asked, in order.
    pub attempts: Vec<Attempt>,
    /// Why somebody else answers what this machine might have: it is foreseen to be late, or why it was left.
    pub escalated: Option<&'static str>,
    /// Who answered, the last that did.
    pub served_by: Option<String>,
    /// How it ended; absent while it is under way.
    pub outcome: Option<&'static str>,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// Time to the first content. Units: milliseconds.
    pub first_content_ms: Option<u64>,
    /// Time to the end. Units: milliseconds.
    pub total_ms: Option<u64>,
    /// What it took in all.
    #[serde(serialize_with = "as_object")]
    pub usage: Usage,
    /// What it cost in all. Units: micro-dollars.
    pub cost_micro_usd: u64,
}

/// One candidate that was asked.
#[derive(Clone, Debug, Serialize)]
pub struct Attempt {
    /// Who.
    pub target: String,
    /// Why it was asked.
    pub why: &'static str,
    /// When, since the request came. Units: milliseconds, so for the others.
    pub asked_ms: u64,
    /// When its first content came.
    pub first_content_ms: Option<u64>,
    /// The time from being asked to that, over what was predicted; of models of this machine.
    pub prediction_ratio: Option<f64>,
    /// When it was over.
    pub ended_ms: Option<u64>,
    /// How it ended: `answered`, `failed`, `dropped` for another that was faster, `cancelled` with the request.
    pub outcome: Option<&'static str>,
    /// In which way it failed.
    pub fault: Option<&'static str>,
    /// What it said then.
    pub error: Option<String>,
    /// The model that really answered, where the provider says so.
    pub answered_by: Option<String>,
    /// Fields of the request that it was not told, because it has no words for them.
    pub dropped: Vec<&'static str>,
    /// What it cost. Units: micro-dollars.
    pub cost_micro_usd: Option<u64>,
    /// Whether that is what was billed, and not the most that may be.
    pub is_cost_confirmed: bool,
}

fn as_object<S: serde::Serializer>(usage: &Usage, to: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = to.serialize_map(Some(5))?;
    map.serialize_entry("prompt_tokens", &usage.prompt_tokens)?;
    map.serialize_entry("completion_tokens", &usage.completion_tokens)?;
    map.serialize_entry("cached_tokens", &usage.cached_tokens)?;
    map.serialize_entry("reasoning_tokens", &usage.reasoning_tokens)?;
    map.serialize_entry("is_estimated", &usage.is_estimated)?;
    map.end()
}

/// A plan is kept as it is until somebody asks: few do.
fn shared<S: serde::Serializer>(plan: &Arc<Plan>, to: S) -> Result<S::Ok, S::Error> {
    plan.serialize(to)
}

/// In which way a backend failed, as one word.
pub(super) fn fault(error: &BackendError) -> &'static str {
    match &error.kind {
        BackendErrorKind::Provider(fault) => fault.name(),
        BackendErrorKind::UnknownModel => "unknown_model",
        BackendErrorKind::NotLoaded => "not_loaded",
        BackendErrorKind::InvalidRequest { .. } => "invalid_request",
        BackendErrorKind::Unsupported { .. } => "unsupported",
        BackendErrorKind::PromptTooLong { .. } => "prompt_too_long",
        BackendErrorKind::Busy { .. } => "busy",
        BackendErrorKind::OutOfMemory => "out_of_memory",
        BackendErrorKind::Timeout => "timeout",
        BackendErrorKind::LoadFailed { .. } => "load_failed",
        BackendErrorKind::ShuttingDown => "shutting_down",
        BackendErrorKind::OverLimit { .. } => "over_limit",
        BackendErrorKind::NotAllowed => "not_allowed",
        BackendErrorKind::Loop => "loop",
        BackendErrorKind::Failed => "failed",
    }
}

/// The decisions of late.
#[derive(Clone, Debug, Default)]
pub struct Decisions(Arc<Mutex<VecDeque<Record>>>);

impl Decisions {
    /// One by its id; of a request under way as far as it came.
    pub fn find(&self, id: &str) -> Option<Decision> {
        let all = lock(&self.0);
        let one = all.iter().rev().find(|one| &*one.id == id)?;
        Some(one.now())
    }

    /// Keeps one; the oldest is forgotten for it.
    pub(super) fn keep(&self, record: &Record) {
        let mut all = lock(&self.0);
        if all.len() >= N_KEPT {
            all.pop_front();
        }
        all.push_back(record.clone());
    }
}

/// The record of a request under way, shared by all who work at it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    id: Arc<str>,
    began: Instant,
    decision: Arc<Mutex<Decision>>,
    trace: Trace,
}

/// What is known of a request before anybody is asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Asking {
    pub(super) model: String,
    pub(super) team: Option<String>,
    pub(super) key: Option<String>,
    pub(super) task: Option<String>,
    pub(super) privacy: String,
}

impl Record {
    pub(super) fn new(asking: Asking, plan: Arc<Plan>) -> Self {
        let id = format!("rt_{}", uuid::Uuid::new_v4().simple());
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            id: id.as_str().into(),
            began: Instant::now(),
            decision: Arc::new(Mutex::new(Decision {
                id,
                time: now.unwrap_or_default().as_secs(),
                model: asking.model,
                team: asking.team,
                key: asking.key,
                task: asking.task,
                privacy: asking.privacy,
                escalated: plan.escalation,
                plan,
                attempts: Vec::new(),
                served_by: None,
                outcome: None,
                error: None,
                first_content_ms: None,
                total_ms: None,
                usage: Usage::default(),
                cost_micro_usd: 0,
            })),
            trace: Trace::default(),
        }
    }

    /// From now on spans say the same.
    pub(super) fn traced(self, spans: &Spans, parent: Option<Parent>, what: Operation) -> Self {
        let trace = Trace::begin(spans, parent, (&lock(&self.decision), what));
        Self { trace, ..self }
    }

    pub(super) fn trace(&self) -> &Trace {
        &self.trace
    }

    pub(super) fn id(&self) -> &Arc<str> {
        &self.id
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// As far as it came.
    pub(super) fn now(&self) -> Decision {
        lock(&self.decision).clone()
    }

    fn ms(&self) -> u64 {
        millis(self.began.elapsed())
    }

    /// Somebody is asked; the number by which the attempt is told about.
    pub(super) fn asked(&self, target: &str, why: &'static str) -> usize {
        let asked_ms = self.ms();
        let mut decision = lock(&self.decision);
        self.trace.asked(target, why);
        decision.attempts.push(Attempt {
            target: target.to_owned(),
            why,
            asked_ms,
            first_content_ms: None,
            prediction_ratio: None,
            ended_ms: None,
            outcome: None,
            fault: None,
            error: None,
            answered_by: None,
            dropped: Vec::new(),
            cost_micro_usd: None,
            is_cost_confirmed: false,
        });
        decision.attempts.len() - 1
    }

    /// Its first content is here, after so many times what was predicted.
    pub(super) fn began_to_answer(&self, attempt: usize, ratio: Option<f64>) {
        let ms = self.ms();
        self.trace.began_to_answer(attempt);
        self.change(attempt, |one| {
            one.first_content_ms = Some(ms);
            one.prediction_ratio = ratio;
        });
    }

    /// It is over.
    pub(super) fn attempt_ended(
        &self,
        attempt: usize,
        outcome: &'static str,
        error: Option<&BackendError>,
    ) {
        let ms = self.ms();
        self.change(attempt, |one| {
            one.ended_ms = Some(ms);
            one.outcome = Some(outcome);
            one.fault = error.map(fault);
            one.error = error.map(ToString::to_string);
            self.trace.attempt_ended(attempt, one);
        });
    }

    /// The model that really answered.
    pub(super) fn answered_by(&self, attempt: usize, model: &str) {
        self.change(attempt, |one| one.answered_by = Some(model.to_owned()));
    }

    /// Fields of the request that it is not told.
    pub(super) fn drops(&self, attempt: usize, fields: Vec<&'static str>) {
        self.change(attempt, |one| one.dropped = fields);
    }

    /// What it cost, for all that is known.
    pub(super) fn cost(&self, attempt: usize, cost: MicroUsd, is_confirmed: bool) {
        let mut decision = lock(&self.decision);
        if let Some(one) = decision.attempts.get_mut(attempt) {
            one.cost_micro_usd = Some(cost.0);
            one.is_cost_confirmed = is_confirmed;
        }
        let costs = decision
            .attempts
            .iter()
            .filter_map(|one| one.cost_micro_usd);
        decision.cost_micro_usd = costs.fold(0, u64::saturating_add);
    }

    /// The request's own first content is on its way, from `target`.
    pub(super) fn committed(&self, target: &str) {
        let ms = self.ms();
        let mut decision = lock(&self.decision);
        decision.served_by = Some(target.to_owned());
        decision.first_content_ms.get_or_insert(ms);
    }

    /// The request is over.
    pub(super) fn finished(&self, end: &End, usage: Usage) {
        let ms = self.ms();
        let mut decision = lock(&self.decision);
        decision.total_ms = Some(ms);
        decision.usage = usage;
        decision.escalated = escalated(&decision);
        decision.outcome = Some(match end {
            End::Finished(FinishReason::Stop) => "stop",
            End::Finished(FinishReason::Length) => "length",
            End::Finished(FinishReason::ToolCalls) => "tool_calls",
            End::Finished(FinishReason::ContentFilter) => "content_filter",
            End::Failed(_) => "failed",
            End::Cancelled => "cancelled",
        });
        let mut in_which_way = None;
        if let End::Failed(error) = end {
            decision.error = Some(error.to_string());
            in_which_way = Some(fault(error));
        }
        self.trace.finished(&decision, in_which_way);
    }

    fn change(&self, attempt: usize, change: impl FnOnce(&mut Attempt)) {
        if let Some(one) = lock(&self.decision).attempts.get_mut(attempt) {
            change(one);
        }
    }
}

/// Why somebody else answered what this machine might have.
fn escalated(decision: &Decision) -> Option<&'static str> {
    let is_here = |target: &str| target.starts_with("local:");
    let by = decision.served_by.as_deref().filter(|by| !is_here(by))?;
    let attempts = decision.attempts.iter();
    let after_us = attempts.skip_while(|one| !is_here(&one.target));
    let answered = after_us.filter(|one| one.target == by).last();
    answered.map(|one| one.why).or(decision.escalated)
}

/// How a request ends.
#[derive(Clone, Debug)]
pub(super) enum End {
    Finished(FinishReason),
    Failed(BackendError),
    /// Whoever asked has left.
    Cancelled,
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A record is whole after every change, so one that a panic left is as good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ProviderFault;

    fn record() -> Record {
        let asking = Asking {
            model: "auto".to_owned(),
            privacy: "any".to_owned(),
            ..Asking::default()
        };
        Record::new(asking, Arc::default())
    }

    #[test]
    fn a_record_tells_who_was_asked_and_what_came_of_it() {
        let record = record();
        let first = record.asked("local:m", "first");
        let error = BackendError::new(BackendErrorKind::Timeout, "too slow");
        record.attempt_ended(first, "failed", Some(&error));
        let second = record.asked("openai:gpt-4", "failed");
        record.began_to_answer(second, None);
        record.committed("openai:gpt-4");
        record.cost(second, MicroUsd(7), true);
        record.cost(first, MicroUsd(2), false);
        record.attempt_ended(second, "answered", None);
        record.finished(&End::Finished(FinishReason::Stop), Usage::default());
        let told = serde_json::to_value(record.now()).unwrap();
        assert_eq!(told["outcome"], "stop");
        assert_eq!(told["served_by"], "openai:gpt-4");
        assert_eq!(told["cost_micro_usd"], 9);
        assert_eq!(told["attempts"][0]["fault"], "timeout");
        assert_eq!(told["attempts"][0]["error"], "too slow");
        assert_eq!(told["attempts"][1]["is_cost_confirmed"], true);
        assert_eq!(told["escalated"], "failed");
    }

    #[test]
    fn an_escalation_is_an_answer_of_somebody_else_where_this_machine_was_asked_or_would_have_been()
    {
        let over = |foreseen, targets: &[&str], by: Option<&str>| {
            let plan = Plan {
                escalation: foreseen,
                ..Plan::default()
            };
            let record = Record::new(Asking::default(), Arc::new(plan));
            for target in targets {
                record.asked(target, "late");
            }
            if let Some(by) = by {
                record.committed(by);
            }
            record.finished(&End::Finished(FinishReason::Stop), Usage::default());
            record.now().escalated
        };
        let (here, there) = ("local:m", "openai:m");
        let foreseen = Some("foreseen_miss");
        assert_eq!(over(foreseen, &[there], Some(there)), foreseen);
        assert_eq!(over(None, &[there], Some(there)), None);
        assert_eq!(over(None, &[here, there], Some(there)), Some("late"));
        // What was foreseen did not come to pass.
        assert_eq!(over(foreseen, &[there, here], Some(here)), None);
        assert_eq!(over(foreseen, &[there], None), None);
    }

    #[test]
    fn the_latest_are_kept_and_no_more() {
        let decisions = Decisions::default();
        let first = record();
        decisions.keep(&first);
        assert!(decisions.find(first.id()).is_some());
        for _ in 0..N_KEPT {
            decisions.keep(&record());
        }
        assert!(decisions.find(first.id()).is_none());
        assert_eq!(lock(&decisions.0).len(), N_KEPT);
    }

    #[test]
    fn faults_have_names_of_their_own() {
        let provider = |fault| BackendError::new(BackendErrorKind::Provider(fault), "x");
        assert_eq!(fault(&provider(ProviderFault::BrokeOff)), "broke_off");
        let local = BackendError::new(BackendErrorKind::OutOfMemory, "x");
        assert_eq!(fault(&local), "out_of_memory");
    }
}
