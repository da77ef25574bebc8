//! F7: who answers: policy, prediction, health, money, decisions.

mod asker;
mod attempt;
mod bills;
mod calibration;
mod chase;
mod continuation;
mod core;
pub mod decision;
mod embed;
pub mod health;
mod latest;
mod locals;
mod measure;
pub mod money;
pub mod names;
pub mod policy;
pub mod prices;
pub mod quality;
mod race;
mod refused;
mod relay;
pub mod request;
pub mod teams;
mod trace;
mod upkeep;

pub use calibration::Calibration;
pub use embed::Embedded;
pub use measure::{KnownBreaker, Measured};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use crate::backend::local::LocalBackend;
use crate::backend::provider::Provider;
use crate::backend::{BackendError, BackendErrorKind, ChatStream};
use crate::caller::{Caller, TeamId};
use crate::chat::{ChatRequest, ResponseFormat, Usage};
use crate::config::document::Problem;
use crate::config::router::RouterSettings;
use crate::egress::{Egress, Records};
use crate::telemetry::spans::{Parent, Spans};
use asker::Asker;
use core::{Core, Rules};
use decision::{Asking, Decision, Decisions, End, Record};
use measure::Measures;
use money::{Account, Money};
use names::{Name, Names};
use policy::{Needs, Plan, Question};
use prices::Prices;
use quality::Quality;
use refused::{is_for_here, refused};
use relay::Relay;
use request::{Wishes, speaks_for};
use teams::{Team, Teams};
use trace::Operation;

/// How often a request may be passed on: one that comes back goes round in circles.
const HOPS_MOST: u32 = 4;
/// Time for an answer of which nobody says when it must be complete.
const WHOLE_TIME: Duration = Duration::from_hours(1);

/// What a router is made of.
pub struct RouterOptions {
    /// The engine of this process.
    pub local: LocalBackend,
    /// What is configured.
    pub settings: RouterSettings,
    /// What models are called.
    pub names: Names,
    /// Who asks in whose name.
    pub teams: Teams,
    /// How good models are.
    pub quality: Quality,
    /// What they cost.
    pub prices: Prices,
    /// What may be spent.
    pub money: Money,
    /// What may leave this machine.
    pub egress: Egress,
    /// Where it is written down.
    pub records: Records,
    /// Nothing may.
    pub offline: bool,
    /// Who can be asked besides the engine.
    pub providers: Vec<Provider>,
    /// Where requests are told as spans.
    pub spans: Spans,
}

/// Answers requests by whoever is best for them. Clones share everything.
#[derive(Clone)]
pub struct Router {
    core: Arc<Core>,
    teams: Arc<Teams>,
    spans: Spans,
}

/// What a request says about who may answer it.
#[derive(Clone, Debug)]
pub struct Meta {
    /// Who asks.
    pub caller: Caller,
    /// What it says about who shall answer. A deadline says who is asked; an answer that is late nevertheless is not
    /// thrown away.
    pub wishes: Wishes,
    /// Whether it is read as it comes.
    pub is_streamed: bool,
    /// How often it was passed on before.
    pub n_hops: u32,
    /// The span it belongs under.
    pub parent: Option<Parent>,
}

impl Meta {
    /// Nothing said, by `caller`.
    pub fn of(caller: Caller) -> Self {
        Self {
            caller,
            wishes: Wishes::default(),
            is_streamed: true,
            n_hops: 0,
            parent: None,
        }
    }
}

/// A request that somebody may answer.
pub struct Routed {
    asker: Asker,
}

/// An answer, and who gives it.
pub struct Answer {
    /// What is said.
    pub stream: ChatStream,
    /// Who says it.
    pub target: String,
    /// Why that one was asked.
    pub why: &'static str,
    /// Fields of the request that it was not told, because it has no words for them.
    pub dropped: Vec<&'static str>,
}

impl Routed {
    /// By which the decision is asked about.
    pub fn id(&self) -> &str {
        self.asker.record.id()
    }

    /// Asks; `Ok` once somebody has said something. Dropping it, or the stream, cancels everything.
    ///
    /// # Errors
    /// Nobody answered.
    pub async fn answer(self) -> Result<Answer, BackendError> {
        let asker = self.asker;
        let mut unheard = Unheard(Some(&asker));
        let began = asker.begin().await;
        unheard.0 = None;
        drop(unheard);
        match began {
            Ok((begun, attempt)) => {
                let (target, why) = (attempt.target().to_string(), attempt.why());
                let dropped = attempt.dropped().to_vec();
                let stream = Relay::stream(asker, begun, attempt);
                Ok(Answer {
                    stream,
                    target,
                    why,
                    dropped,
                })
            }
            Err(error) => {
                asker.ended(&End::Failed(error.clone()), Usage::default());
                Err(error)
            }
        }
    }
}

/// A request that nobody has answered yet: if whoever asked leaves, the record says so.
struct Unheard<'a>(Option<&'a Asker>);

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if let Some(asker) = self.0 {
            asker.ended(&End::Cancelled, Usage::default());
        }
    }
}

impl Router {
    /// A router of these parts.
    pub fn new(options: RouterOptions) -> Self {
        let providers = options.providers.into_iter();
        let providers: BTreeMap<String, Provider> = providers
            .map(|provider| (provider.name().to_owned(), provider))
            .collect();
        let core = Core {
            local: options.local,
            rules: RwLock::new(Arc::new(Rules {
                settings: options.settings,
                names: options.names,
                quality: options.quality,
            })),
            prices: options.prices,
            money: options.money,
            egress: options.egress,
            records: options.records,
            offline: options.offline,
            providers,
            decisions: Decisions::default(),
            measures: Measures::default(),
            locals: locals::Locals::default(),
            health: Mutex::default(),
            hedges: Mutex::new(1.0),
        };
        Self {
            core: Arc::new(core),
            teams: Arc::new(options.teams),
            spans: options.spans,
        }
    }

    /// Where requests are told as spans.
    pub fn spans(&self) -> &Spans {
        &self.spans
    }

    /// Other settings for all requests that come from now on; who can be asked stays the same.
    ///
    /// # Errors
    /// All that is wrong with the files they name; then nothing changes.
    pub fn set_settings(&self, settings: RouterSettings) -> Result<(), Vec<Problem>> {
        let held = self.core.rules();
        let settings = RouterSettings {
            providers: held.settings.providers.clone(),
            ..settings
        };
        self.core.set_rules(Rules {
            names: Names::new(&settings)?,
            quality: Quality::new(settings.quality.as_deref())?,
            settings,
        });
        Ok(())
    }

    /// The engine of this process.
    pub fn local(&self) -> &LocalBackend {
        &self.core.local
    }

    /// What was and may be spent.
    pub fn money(&self) -> &Money {
        &self.core.money
    }

    /// Where what left this machine is written down.
    pub fn egress_records(&self) -> &Records {
        &self.core.records
    }

    /// What is measured of all requests.
    pub fn measured(&self) -> Measured {
        self.core.measures.now(self.breakers())
    }

    /// The breakers of all providers there are, as they stand now.
    pub fn breakers(&self) -> Vec<KnownBreaker> {
        self.core.breakers()
    }

    /// Somebody says how good an answer was, from 0 to 1.
    pub fn scored(&self, decision: &Decision, score: f64) {
        let by = decision.served_by.as_deref().unwrap_or(&decision.model);
        self.core.measures.scored(by, score);
    }

    /// One decision of late.
    pub fn decision(&self, id: &str) -> Option<Decision> {
        self.core.decisions.find(id)
    }

    /// Decides who may answer, and asks nobody.
    ///
    /// # Errors
    /// The team is not known, or not the caller's.
    pub async fn plan(&self, request: &ChatRequest, meta: &Meta) -> Result<Plan, BackendError> {
        let core = &self.core;
        let rules = core.rules();
        let (question, account) = self.question(&rules, request, meta)?;
        Ok(core
            .plan(&rules, &question, Some(request), &account, meta.is_streamed)
            .await)
    }

    /// Decides who may answer.
    ///
    /// # Errors
    /// Nobody may, the team is not known, or the request goes round in circles.
    pub async fn route(&self, request: ChatRequest, meta: Meta) -> Result<Routed, BackendError> {
        not_in_circles(&meta)?;
        let rules = self.core.rules();
        let asked = self.question(&rules, &request, &meta)?;
        let (plan, asker) = self.decide(rules, asked, request, &meta).await;
        if asker.candidates.is_empty() {
            let error = self.refused(&plan, &asker.question, &asker.request).await;
            asker.ended(&End::Failed(error.clone()), Usage::default());
            return Err(error);
        }
        Ok(Routed { asker })
    }

    /// The plan for a question, and who is about to ask those that may answer: nobody, where none may.
    async fn decide(
        &self,
        rules: Arc<Rules>,
        (question, account): (Question, Account),
        request: ChatRequest,
        meta: &Meta,
    ) -> (Arc<Plan>, Asker) {
        let core = &self.core;
        core.save_hedge(&rules);
        // When vectors would be made, nobody foresees.
        let foreseen = Some(&request).filter(|_| !question.needs.vectors);
        let plan = core
            .plan(&rules, &question, foreseen, &account, meta.is_streamed)
            .await;
        let plan = Arc::new(plan);
        let mut candidates: Vec<_> = plan.allowed().cloned().collect();
        if !plan.fallback {
            candidates.truncate(1);
        }
        let asking = Asking {
            model: request.model.clone(),
            team: account.team.as_ref().map(ToString::to_string),
            key: account.key.as_ref().map(ToString::to_string),
            task: question.task.clone(),
            privacy: plan.privacy.to_string(),
        };
        let what = if question.needs.vectors {
            Operation::Embeddings
        } else {
            Operation::Chat
        };
        let record = Record::new(asking, Arc::clone(&plan));
        let record = record.traced(&self.spans, meta.parent.clone(), what);
        core.decisions.keep(&record);
        let deadline = plan.deadline;
        let totals = candidates.iter().map(|candidate| {
            let provider = rules.settings.providers.get(&candidate.target.provider);
            provider.map_or(WHOLE_TIME, |provider| provider.timeouts.total)
        });
        let until = totals.max().unwrap_or(WHOLE_TIME);
        let asker = Asker {
            core: Arc::clone(core),
            rules,
            privacy: plan.privacy,
            request: Arc::new(request),
            first_within: deadline.filter(|_| meta.is_streamed),
            whole_within: deadline.filter(|_| !meta.is_streamed),
            place: Mutex::default(),
            until: Some(record.began() + until),
            n_hops: meta.n_hops,
            question,
            account,
            candidates,
            record,
        };
        (plan, asker)
    }

    /// Why nobody may answer. Of a model that only this machine could have, it can say more than that nobody knows it.
    async fn refused(
        &self,
        plan: &Plan,
        question: &Question,
        request: &ChatRequest,
    ) -> BackendError {
        if question.only_this_model && is_for_here(plan) {
            // Such as a file that is not whole yet, which is in no list, or why it could not be loaded.
            if let Err(error) = self.core.local.chat(request, None).await {
                return error;
            }
        }
        refused(plan)
    }

    fn question(
        &self,
        rules: &Rules,
        request: &ChatRequest,
        meta: &Meta,
    ) -> Result<(Question, Account), BackendError> {
        let (question, account) = self.asked_by(meta)?;
        let (wishes, team) = (&meta.wishes, &question.team);
        // Whoever configured nobody and asks for a model by name wants that model and no other.
        let wants_others = wishes.enable_fallback == Some(true)
            || wishes.preferences.acceptable_models.is_some()
            || wishes.preferences.strategy.is_some();
        let is_simple = team.is_none() && rules.settings.providers.is_empty();
        let names_one = rules.names.read(&request.model) != Name::Auto;
        let only_this_model = is_simple && names_one && !wants_others;
        // Only then: it looks at the disk.
        let model = if only_this_model {
            self.as_known_here(&request.model)
        } else {
            request.model.clone()
        };
        let question = Question {
            only_this_model,
            model,
            prompt: request.prompt_size(),
            max_tokens: request.max_new_tokens,
            has_temperature: request.sampling.temperature.is_some(),
            needs: Needs {
                tools: !request.tools.is_empty(),
                images: request.has_images(),
                json: matches!(request.response_format, Some(ResponseFormat::JsonSchema(_))),
                prefix: request.continue_final,
                vectors: false,
            },
            ..question
        };
        Ok((question, account))
    }

    /// What a model of this machine is called, however it is spelled; a name that nobody here has stays as it is.
    fn as_known_here(&self, name: &str) -> String {
        let known = self.core.local.pool().canonical(name);
        known.map_or_else(|_| name.to_owned(), |id| id.to_string())
    }

    /// What whoever asks says about who may answer, and who pays.
    fn asked_by(&self, meta: &Meta) -> Result<(Question, Account), BackendError> {
        let team = self.team(meta)?;
        let account = Account {
            key: meta.caller.key.clone(),
            team: team.as_ref().map(|team| TeamId::new(&team.name)),
        };
        let wishes = &meta.wishes;
        let privacy = wishes.privacy.unwrap_or_default();
        let question = Question {
            task: wishes.task.clone(),
            team,
            preferences: wishes.preferences.clone(),
            enable_fallback: wishes.enable_fallback,
            privacy: privacy.tightened(meta.caller.privacy),
            deadline: wishes.deadline,
            ..Question::default()
        };
        Ok((question, account))
    }

    /// The team a request is for: the key's own, or one that it names and the key may name.
    fn team(&self, meta: &Meta) -> Result<Option<Arc<Team>>, BackendError> {
        let speaks = speaks_for(meta.wishes.team.as_deref(), &meta.caller);
        let Some(team) = speaks.team else {
            return Ok(None);
        };
        if meta.caller.team.as_ref() == Some(&team) {
            return Ok(Some(self.teams.of_key(team.as_str())));
        }
        let found = self.teams.find(team.as_str());
        found.map(Some).map_err(|error| {
            let kind = BackendErrorKind::InvalidRequest {
                param: "ingle.team",
            };
            BackendError::new(kind, error.to_string())
        })
    }
}

/// # Errors
/// A request was passed on so often that it goes round in circles.
fn not_in_circles(meta: &Meta) -> Result<(), BackendError> {
    if meta.n_hops <= HOPS_MOST {
        return Ok(());
    }
    let message = format!(
        "the request was passed on {} times: LOCAL_MODEL_URL or a provider leads back here",
        meta.n_hops
    );
    Err(BackendError::new(BackendErrorKind::Loop, message))
}
