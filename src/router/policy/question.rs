//! What is asked, and what holds for it once team and configuration have had their say.

use std::sync::Arc;
use std::time::Duration;

use super::Snapshot;
use crate::chat::PromptSize;
use crate::config::router::{Preferences, RouterSettings, Strategy};
use crate::egress::Privacy;
use crate::router::names::{Name, Pattern};
use crate::router::teams::Team;

/// A request, as far as it matters for who answers it.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The model as the client named it.
    pub model: String,
    /// What it is about, for the team's hints.
    pub task: Option<String>,
    /// Whose request it is.
    pub team: Option<Arc<Team>>,
    /// What the request prefers.
    pub preferences: Preferences,
    /// Whether another may answer, where the request says so.
    pub enable_fallback: Option<bool>,
    /// How far the prompt may go; the team's and the configuration's word can only tighten it.
    pub privacy: Privacy,
    /// Time to the first content.
    pub deadline: Option<Duration>,
    /// How long its prompt is.
    pub prompt: PromptSize,
    /// Tokens of the answer at most, where the request says so.
    pub max_tokens: Option<u32>,
    /// Tokens that an answer of this kind is likely to have.
    pub expected_tokens: Option<u32>,
    /// Whether the request gives a temperature.
    pub has_temperature: bool,
    /// What it takes to answer it.
    pub needs: Needs,
    /// No other model will do than the one it names, wherever it is: vectors of two models cannot be compared.
    pub only_this_model: bool,
}

impl Question {
    /// How far the prompt may go, once the team and the configuration have had their say.
    pub fn privacy_under(&self, settings: &RouterSettings) -> Privacy {
        let of_team = self.team.as_ref().and_then(|team| team.privacy);
        let privacy = self.privacy.tightened(settings.privacy);
        privacy.tightened(of_team.unwrap_or_default())
    }

    /// Time to the first content, as the request, the team or the configuration says.
    pub fn deadline_under(&self, settings: &RouterSettings) -> Option<Duration> {
        let of_team = self.team.as_ref().and_then(|team| team.deadline);
        self.deadline.or(of_team).or(settings.deadline)
    }
}

/// What it takes to answer a request besides text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a need of its own")]
pub struct Needs {
    /// Calls of tools.
    pub tools: bool,
    /// Eyes.
    pub images: bool,
    /// Answers in JSON of a schema.
    pub json: bool,
    /// Going on with a text that an assistant began.
    pub prefix: bool,
    /// Vectors instead of an answer.
    pub vectors: bool,
}

impl Needs {
    /// Their names.
    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        let named = [
            (self.tools, "tools"),
            (self.images, "images"),
            (self.json, "json"),
            (self.prefix, "prefix"),
            (self.vectors, "vectors"),
        ];
        let named = named.into_iter().filter(|(needed, _)| *needed);
        named.map(|(_, name)| name)
    }

    /// Whether it needs the one of this name.
    pub(super) fn has(self, name: &str) -> bool {
        self.names().any(|needed| needed == name)
    }
}

/// A question with everything that holds for it.
#[expect(clippy::struct_excessive_bools, reason = "each is a wish of its own")]
pub(super) struct Asked<'a> {
    pub(super) question: &'a Question,
    pub(super) snapshot: &'a Snapshot<'a>,
    /// The model that was named, once aliases are followed.
    pub(super) name: Name,
    pub(super) preferences: Preferences,
    pub(super) acceptable: Option<Vec<Pattern>>,
    pub(super) strategy: Strategy,
    /// Who chose it.
    pub(super) strategy_by: &'static str,
    /// Whether what the team lists goes before the strategy: it does where nobody nearer to the request chose one.
    pub(super) list_first: bool,
    pub(super) prefers_local: bool,
    pub(super) prefers_faster: bool,
    pub(super) fallback: bool,
    /// Whether providers may be asked that were not named.
    pub(super) cloud: bool,
    pub(super) privacy: Privacy,
}

impl<'a> Asked<'a> {
    pub(super) fn new(question: &'a Question, snapshot: &'a Snapshot<'a>) -> Self {
        let settings = snapshot.settings;
        let team = question.team.as_deref();
        let of_team = team.map(|team| &team.preferences);
        let mut preferences = question.preferences.clone();
        if let Some(of_team) = of_team {
            preferences = preferences.over(of_team);
        }
        let preferences = preferences.over(&settings.preferences);
        let (strategy, strategy_by) = strategy(question, snapshot);
        // A strategy is not overruled by what somebody prefers who is further from the request than who chose it.
        let said = |wish: fn(&Preferences) -> Option<bool>| {
            let own = wish(&question.preferences);
            let said = match strategy_by {
                "request" | "hint" => own,
                "team" => own.or(of_team.and_then(wish)),
                _ => wish(&preferences),
            };
            said.unwrap_or(false)
        };
        let own_wishes = [
            question.preferences.prefer_local,
            question.preferences.prefer_faster,
        ];
        let list_first = strategy_by == "configuration" && !own_wishes.contains(&Some(true));
        let acceptable = preferences.acceptable_models.as_ref().map(|texts| {
            let patterns = texts.iter().map(|text| snapshot.names.pattern(text));
            patterns.collect()
        });
        let of_team = team.and_then(|team| team.enable_fallback);
        Self {
            name: snapshot.names.read(&question.model),
            acceptable,
            strategy,
            strategy_by,
            list_first,
            prefers_local: said(|wishes| wishes.prefer_local),
            prefers_faster: said(|wishes| wishes.prefer_faster),
            fallback: question
                .enable_fallback
                .or(of_team)
                .unwrap_or(settings.fallback),
            cloud: preferences.fallback_to_cloud.unwrap_or(true),
            preferences,
            privacy: question.privacy_under(settings),
            question,
            snapshot,
        }
    }

    /// Time to the first content that a candidate has.
    pub(super) fn deadline(&self, is_local: bool) -> Option<Duration> {
        let settings = self.snapshot.settings;
        let asked = self.question.deadline_under(settings);
        match settings.local_timeout.filter(|_| is_local) {
            Some(timeout) => Some(asked.map_or(timeout, |asked| asked.min(timeout))),
            None => asked,
        }
    }
}

/// The strategy, and who chose it: the request, the team's hint for the task, the team, the configuration.
fn strategy(question: &Question, snapshot: &Snapshot<'_>) -> (Strategy, &'static str) {
    if let Some(strategy) = question.preferences.strategy {
        return (strategy, "request");
    }
    let team = question.team.as_deref();
    let hint = team.zip(question.task.as_deref());
    if let Some(strategy) = hint.and_then(|(team, task)| team.hint(task)) {
        return (strategy, "hint");
    }
    if let Some(strategy) = team.and_then(|team| team.preferences.strategy) {
        return (strategy, "team");
    }
    let preferred = snapshot.settings.preferences.strategy;
    (
        preferred.unwrap_or(snapshot.settings.strategy),
        "configuration",
    )
}
