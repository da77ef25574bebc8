//! Vectors: by the model that was named and no other, wherever it is, under the rules that hold for answers.

use super::asker::Asker;
use super::attempt::Attempt;
use super::chase::{Asked, Candidates, Look, chase};
use super::core::Core;
use super::decision::End;
use super::money::Account;
use super::names::Name;
use super::policy::{Candidate, LocalState, Needs, Plan, Question, Reason};
use super::race::{Race, Why};
use super::{Meta, Router, Unheard, is_for_here, not_in_circles, refused};
use crate::backend::{BackendError, BackendErrorKind};
use crate::chat::{ChatRequest, FinishReason, Usage};
use crate::embedding::{EmbedRequest, Embeddings};

/// Vectors, and who made them.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// The vectors.
    pub embeddings: Embeddings,
    /// Who made them.
    pub target: String,
    /// Why that one was asked.
    pub why: &'static str,
    /// By which the decision is asked about.
    pub id: String,
}

impl Router {
    /// Makes vectors. Dropping it cancels everything.
    ///
    /// # Errors
    /// Nobody may make them, or nobody could.
    pub async fn embed(&self, request: EmbedRequest, meta: Meta) -> Result<Embedded, BackendError> {
        not_in_circles(&meta)?;
        let rules = self.core.rules();
        let is_auto = rules.names.read(&request.model) == Name::Auto;
        if is_auto || request.model.contains('*') {
            let message = format!(
                "model is {:?}: vectors of several models cannot be compared, so name one",
                request.model
            );
            let kind = BackendErrorKind::InvalidRequest { param: "model" };
            return Err(BackendError::new(kind, message));
        }
        let asked = self.question_of_vectors(&request, &meta)?;
        let named = ChatRequest::new(&*request.model, Vec::new());
        let (plan, mut asker) = self.decide(rules, asked, named, &meta).await;
        if asker.candidates.is_empty() {
            let error = no_vectors(&self.core, &plan, request).await;
            asker.ended(&End::Failed(error.clone()), Usage::default());
            return Err(error);
        }
        stay_here(&mut asker.candidates);
        Wanting { asker, request }.made().await
    }

    fn question_of_vectors(
        &self,
        request: &EmbedRequest,
        meta: &Meta,
    ) -> Result<(Question, Account), BackendError> {
        let (question, account) = self.asked_by(meta)?;
        let question = Question {
            only_this_model: true,
            model: self.as_known_here(&request.model),
            prompt: request.size(),
            max_tokens: Some(0),
            expected_tokens: Some(0),
            needs: Needs {
                vectors: true,
                ..Needs::default()
            },
            ..question
        };
        Ok((question, account))
    }
}

/// Where the model that was named lies on this machine, nobody else is asked for it.
fn stay_here(candidates: &mut Vec<Candidate>) {
    let is_here = |candidate: &Candidate| {
        let absent = Reason::NotReady {
            state: LocalState::Absent,
        };
        candidate.target.is_local() && !candidate.why.contains(&absent)
    };
    if candidates.iter().any(is_here) {
        candidates.retain(is_here);
    }
}

/// Why nobody may make them. Of a model that only this machine could have, it can say more than that nobody knows it.
async fn no_vectors(core: &Core, plan: &Plan, request: EmbedRequest) -> BackendError {
    if is_for_here(plan)
        && let Err(error) = core.local.embed(request, None).await
    {
        return error;
    }
    refused(plan)
}

/// Somebody who wants vectors, and whoever may make them.
struct Wanting {
    asker: Asker,
    request: EmbedRequest,
}

impl Wanting {
    async fn made(self) -> Result<Embedded, BackendError> {
        let asker = &self.asker;
        let mut unheard = Unheard(Some(asker));
        let race = Race::new(asker.lanes(), asker.until);
        let made = chase(&self, race).await;
        unheard.0 = None;
        drop(unheard);
        let (_, mut embeddings, attempt) = match made {
            Ok(made) => made,
            Err(lost) => {
                let error = asker.told(lost);
                asker.ended(&End::Failed(error.clone()), Usage::default());
                return Err(error);
            }
        };
        let (target, why) = (attempt.target().clone(), attempt.why());
        asker.record.committed(&target.to_string());
        let usage = usage(&embeddings, asker.question.prompt.about);
        let cost = attempt.finished(&usage);
        if !target.is_local() {
            embeddings.cost = Some(cost);
        }
        asker.ended(&End::Finished(FinishReason::Stop), usage);
        Ok(Embedded {
            embeddings,
            target: target.to_string(),
            why,
            id: asker.record.id().to_string(),
        })
    }

    async fn make(
        &self,
        candidate: &Candidate,
        why: Why,
        attempt: &mut Attempt,
    ) -> Result<Embeddings, BackendError> {
        let target = &candidate.target;
        if target.is_local() {
            attempt.sent();
            let request = EmbedRequest {
                model: target.model.clone(),
                ..self.request.clone()
            };
            return self.asker.core.local.embed(request, None).await;
        }
        let (provider, permit, call) = self.asker.way_out(candidate, why, attempt.parent())?;
        attempt.sent();
        provider
            .embed(&target.model, &self.request, permit, &call)
            .await
    }
}

/// What they took; whoever counts nothing did not count.
fn usage(made: &Embeddings, about: u32) -> Usage {
    let counted = u32::try_from(made.n_tokens).unwrap_or(u32::MAX);
    Usage {
        prompt_tokens: if counted == 0 { about } else { counted },
        cost: made.cost,
        is_estimated: counted == 0,
        ..Usage::default()
    }
}

impl Candidates for Wanting {
    type Begun = Embeddings;
    type Kept = Attempt;

    fn ask(&self, lane: usize, why: Why) -> Asked<'_, Embeddings, Attempt> {
        Box::pin(async move {
            let candidate = self.asker.candidate(lane)?;
            let mut attempt = self.asker.hold(candidate, why).await?;
            match self.make(candidate, why, &mut attempt).await {
                Ok(made) => {
                    attempt.answers(None);
                    Ok((made, attempt))
                }
                Err(error) => {
                    attempt.failed(&error);
                    Err(error)
                }
            }
        })
    }

    fn may_hedge(&self) -> bool {
        self.asker.core.take_hedge()
    }

    async fn look(&self, _: usize) -> Look {
        Look::Nothing
    }

    fn can_be_foreseen(&self, _: usize) -> bool {
        false
    }

    fn out_of_patience(&self, lane: usize) {
        self.asker.out_of_patience(lane);
    }
}
