//! What a plan must hold to.

mod examples;
mod laws;
mod money;
mod order;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::document::Node;
use crate::config::router::{Preferences, RouterSettings, Variables, read};
use crate::egress::Privacy;
use crate::router::calibration::Calibration;
use crate::router::names::Names;
use crate::router::prices::{Price, Rate, Tokens};
use crate::router::quality::Quality;
use crate::router::teams::Team;

/// A configuration and how things stand.
#[derive(Debug)]
pub(super) struct World {
    pub(super) settings: RouterSettings,
    pub(super) names: Names,
    pub(super) quality: Quality,
    pub(super) locals: Vec<LocalModel>,
    pub(super) facts: BTreeMap<String, Facts>,
    pub(super) budget_left: Option<MicroUsd>,
    pub(super) offline: bool,
}

impl World {
    /// The file's text, and keys for the three providers.
    pub(super) fn new(toml: &str) -> Self {
        Self::with(
            toml,
            &[
                ("OPENROUTER_API_KEY", "k"),
                ("OPENAI_API_KEY", "k"),
                ("ANTHROPIC_API_KEY", "k"),
            ],
        )
    }

    pub(super) fn with(toml: &str, variables: &[(&str, &str)]) -> Self {
        let get = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let document = Node::from_toml(toml, "f").unwrap();
        let listen = "127.0.0.1:1".parse().unwrap();
        let settings = read(&document, "f", listen, Variables::new(&get)).unwrap();
        Self {
            names: Names::new(&settings).unwrap(),
            settings,
            quality: Quality::new(None).unwrap(),
            locals: Vec::new(),
            facts: BTreeMap::new(),
            budget_left: None,
            offline: false,
        }
    }

    /// With a model of the engine that begins to answer after `first_ms`.
    pub(super) fn local(mut self, name: &str, state: LocalState, first_ms: u64) -> Self {
        self.locals.push(LocalModel {
            names: vec![name.to_owned()],
            state,
            full: None,
            first: Some(Duration::from_millis(first_ms)),
            total: Some(Duration::from_millis(first_ms * 4)),
            is_late: None,
        });
        self
    }

    /// With prices in dollars for a million tokens.
    pub(super) fn priced(mut self, target: &str, prompt: f64, completion: f64) -> Self {
        let rate = |usd: f64| Rate(MicroUsd::at_least(usd).unwrap().0);
        self.facts.entry(target.to_owned()).or_default().price = Some(Price {
            tokens: Tokens::plain(rate(prompt), rate(completion)),
            ..Price::FREE
        });
        self
    }

    pub(super) fn measured(mut self, target: &str, first_ms: u64, per_token_ms: u64) -> Self {
        let facts = self.facts.entry(target.to_owned()).or_default();
        facts.first = Some(Duration::from_millis(first_ms));
        facts.per_token = Some(Duration::from_millis(per_token_ms));
        self
    }

    pub(super) fn plan(&self, question: &Question) -> Plan {
        let facts = |target: &Target| {
            self.facts
                .get(&target.to_string())
                .copied()
                .unwrap_or_default()
        };
        plan(
            question,
            &Snapshot {
                settings: &self.settings,
                names: &self.names,
                quality: &self.quality,
                locals: &self.locals,
                facts: &facts,
                budget_left: self.budget_left,
                offline: self.offline,
            },
        )
    }

    /// The targets that may answer, in their order.
    pub(super) fn order(&self, question: &Question) -> Vec<String> {
        let plan = self.plan(question);
        plan.allowed().map(|it| it.target.to_string()).collect()
    }
}

/// A question about `model` that says nothing else.
pub(super) fn ask(model: &str) -> Question {
    Question {
        model: model.to_owned(),
        prompt: crate::chat::PromptSize {
            about: 100,
            at_most: 400,
        },
        ..Question::default()
    }
}

/// What excludes a target.
pub(super) fn excluded<'a>(plan: &'a Plan, target: &str) -> &'a str {
    let mut candidates = plan.candidates.iter();
    let found = candidates.find(|it| it.target.to_string() == target);
    let found = found.unwrap_or_else(|| panic!("{target} is no candidate of {plan:#?}"));
    found.excluded.as_ref().map_or("", Exclusion::name)
}

pub(super) fn team(name: &str) -> Team {
    Team {
        name: name.to_owned(),
        ..Team::default()
    }
}

pub(super) fn acceptable(models: &[&str]) -> Preferences {
    Preferences {
        acceptable_models: Some(models.iter().map(|it| (*it).to_owned()).collect()),
        ..Preferences::default()
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as a question has it")]
pub(super) fn of_team(team: Team) -> Option<Arc<Team>> {
    Some(Arc::new(team))
}
