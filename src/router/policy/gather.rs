//! Who could answer: what was named, the same elsewhere, what the team prefers, what this machine and the chain have.

use super::question::Asked;
use super::reason::Why;
use super::snapshot::{LocalModel, LocalState};
use crate::config::document::nearest;
use crate::config::router::{LOCAL, LOCAL_REMOTE};
use crate::router::names::{Name, Target};

/// How near a candidate is to what was asked for; earlier ones go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    /// What the request names.
    Asked,
    /// The same model elsewhere.
    Same,
    /// What the team lists.
    Team,
    /// What the configuration lists, and what is acceptable.
    Pool,
    /// What happens to be here.
    Here,
}

/// A candidate before anybody judged it.
#[derive(Clone, Debug)]
pub(super) struct Found<'a> {
    pub(super) target: Target,
    pub(super) whys: Vec<Why>,
    pub(super) tier: Tier,
    /// Of the engine: what it knows of the model.
    pub(super) local: Option<&'a LocalModel>,
    /// Of the chain, where the request gives no temperature.
    pub(super) temperature: Option<f32>,
}

/// All candidates.
pub(super) struct Gathered<'a> {
    pub(super) found: Vec<Found<'a>>,
    /// Nobody knows the model that was named.
    pub(super) unknown: Option<String>,
}

/// Gathers all candidates, each once.
pub(super) fn gather<'a>(asked: &Asked<'a>) -> Gathered<'a> {
    let mut gather = Gather {
        asked,
        found: Vec::new(),
    };
    match &asked.name {
        Name::Auto if asked.question.only_this_model => {
            return nobody("auto names no model: this request needs a certain one".to_owned());
        }
        Name::Auto => {}
        Name::Of(target) => {
            let targets = if target.model.contains('*') {
                gather.locals_like(&target.to_string())
            } else {
                gather.at(&target.provider, &target.model)
            };
            if targets.is_empty() {
                return nobody(format!("no model of this machine is meant by {target}"));
            }
            for target in targets {
                gather.add(target, Why::Asked, Tier::Asked);
            }
            for target in gather.elsewhere() {
                gather.add(target, Why::Elsewhere, Tier::Same);
            }
        }
        Name::Bare(bare) => {
            let targets = if bare.contains('*') {
                gather.locals_like(bare)
            } else {
                gather.everywhere(bare)
            };
            if targets.is_empty() {
                return nobody(unknown(bare, asked));
            }
            for target in targets {
                gather.add(target, Why::Named, Tier::Asked);
            }
        }
    }
    if !asked.question.only_this_model {
        gather.of_team();
        gather.of_configuration();
        gather.acceptable();
        gather.here();
    }
    Gathered {
        found: gather.found,
        unknown: None,
    }
}

fn nobody(because: String) -> Gathered<'static> {
    Gathered {
        found: Vec::new(),
        unknown: Some(because),
    }
}

fn unknown(bare: &str, asked: &Asked<'_>) -> String {
    let locals = asked.snapshot.locals.iter();
    let locals = locals.flat_map(|model| model.names.iter().map(String::as_str));
    let nearest = nearest(bare, locals.chain(asked.snapshot.names.known()));
    format!("nobody here knows the model {bare:?}{nearest}")
}

struct Gather<'a, 'b> {
    asked: &'b Asked<'a>,
    found: Vec<Found<'a>>,
}

impl<'a> Gather<'a, '_> {
    /// What `provider:model` means: `local:` is the engine, and the server that stands beside it.
    fn at(&self, provider: &str, model: &str) -> Vec<Target> {
        let names = self.asked.snapshot.names;
        let target = names.at(provider, model);
        if provider != LOCAL {
            return vec![target];
        }
        let mut targets = Vec::new();
        if names.is_provider(LOCAL_REMOTE) {
            targets.push(Target::new(LOCAL_REMOTE, model));
        }
        // The server beside it may know what the engine does not.
        if targets.is_empty() || self.local(model).is_some() {
            targets.insert(0, Target::new(LOCAL, model));
        }
        targets
    }

    /// Where a bare name is found; empty where nobody knows it.
    fn everywhere(&self, bare: &str) -> Vec<Target> {
        let mut targets = self.asked.snapshot.names.everywhere(bare);
        targets.retain(|target| !target.is_local() || self.local(&target.model).is_some());
        targets
    }

    fn elsewhere(&self) -> Vec<Target> {
        let named = self.found.iter().map(|found| &found.target);
        let mut targets: Vec<Target> = named
            .flat_map(|target| self.asked.snapshot.names.elsewhere(target))
            .collect();
        targets.retain(|target| !target.is_local() || self.local(&target.model).is_some());
        targets
    }

    /// What the engine knows of the model of this name.
    fn local(&self, name: &str) -> Option<&'a LocalModel> {
        let mut locals = self.asked.snapshot.locals.iter();
        locals.find(|model| model.names.iter().any(|known| known == name))
    }

    fn add(&mut self, mut target: Target, why: Why, tier: Tier) {
        let local = if target.is_local() {
            self.local(&target.model)
        } else {
            None
        };
        if let Some(name) = local.and_then(|local| local.names.first()) {
            target.model.clone_from(name);
        }
        let known = self.found.iter_mut().find(|found| found.target == target);
        match known {
            Some(found) => {
                if !found.whys.contains(&why) {
                    found.whys.push(why);
                }
            }
            None => self.found.push(Found {
                target,
                whys: vec![why],
                tier,
                local,
                temperature: None,
            }),
        }
    }

    /// The models of the engine that a pattern means.
    fn locals_like(&self, text: &str) -> Vec<Target> {
        let pattern = self.asked.snapshot.names.pattern(text);
        let locals = self.asked.snapshot.locals.iter();
        let here = locals.filter(|model| model.state <= LocalState::Stored);
        let like = here.filter(|model| {
            let names = model.names.iter().map(String::as_str);
            pattern.matches(LOCAL, names)
        });
        let named = like.filter_map(|model| model.names.first());
        named.map(|name| Target::new(LOCAL, &**name)).collect()
    }

    /// What an entry of a list stands for.
    fn listed(&self, text: &str) -> Vec<Target> {
        if text.contains('*') {
            return self.locals_like(text);
        }
        match self.asked.snapshot.names.read(text) {
            // Everything else is found anyway.
            Name::Auto => Vec::new(),
            Name::Of(target) => self.at(&target.provider, &target.model),
            Name::Bare(bare) => self.everywhere(&bare),
        }
    }

    fn of_team(&mut self) {
        let Some(team) = &self.asked.question.team else {
            return;
        };
        for (place, text) in team.model_preferences.iter().enumerate() {
            for target in self.listed(text) {
                self.add(target, Why::Team { place }, Tier::Team);
            }
        }
    }

    fn of_configuration(&mut self) {
        let settings = self.asked.snapshot.settings;
        for (place, name) in settings.local_preference.iter().enumerate() {
            for target in self.at(LOCAL, name) {
                self.add(target, Why::LocalPreference { place }, Tier::Pool);
            }
        }
        for (place, link) in settings.fallback_chain.iter().enumerate() {
            if !self.asked.snapshot.names.is_provider(&link.provider) {
                continue;
            }
            for target in self.at(&link.provider, &link.model) {
                self.add(target.clone(), Why::Chain { place }, Tier::Pool);
                self.warm(&target, link.temperature);
            }
        }
    }

    /// Gives a link's temperature to its candidate, unless the request named it.
    fn warm(&mut self, target: &Target, temperature: Option<f32>) {
        let local = self
            .local(&target.model)
            .and_then(|model| model.names.first());
        let model = local.filter(|_| target.is_local()).unwrap_or(&target.model);
        let found = self
            .found
            .iter_mut()
            .find(|found| found.target.provider == target.provider && found.target.model == *model);
        if let Some(found) = found
            && found.tier > Tier::Asked
            && found.temperature.is_none()
            && !self.asked.question.has_temperature
        {
            found.temperature = temperature;
        }
    }

    fn acceptable(&mut self) {
        let acceptable = self.asked.preferences.acceptable_models.clone();
        for text in acceptable.unwrap_or_default() {
            for target in self.listed(&text) {
                self.add(target, Why::Acceptable, Tier::Pool);
            }
        }
    }

    /// The models of this machine that nobody named: the last resort, unless none was named that is here.
    fn here(&mut self) {
        let usable = |model: &LocalModel| model.state <= LocalState::Stored;
        let named = self.found.iter().filter(|found| found.tier <= Tier::Pool);
        let is_one_here = named.filter_map(|found| found.local).any(usable);
        let (tier, most) = if is_one_here {
            (Tier::Here, LocalState::Ready)
        } else {
            (Tier::Pool, LocalState::Stored)
        };
        for model in self.asked.snapshot.locals {
            if let Some(name) = model.names.first().filter(|_| model.state <= most) {
                self.add(Target::new(LOCAL, &**name), Why::Here, tier);
            }
        }
    }
}
