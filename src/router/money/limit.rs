//! Amounts, whose they are, and the limits that hold for one.

use std::collections::HashMap;

use crate::caller::{KeyId, TeamId};
use crate::limit::{Limit, Measure, Per, Scope, Whom};
use crate::money::MicroUsd;

/// An amount of everything that can be limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Requests.
    pub requests: u64,
    /// Tokens of prompts and answers.
    pub tokens: u64,
    /// Micro-dollars.
    pub money: MicroUsd,
}

impl Amounts {
    /// What of it `measure` is about.
    pub fn of(&self, measure: Measure) -> u64 {
        match measure {
            Measure::Requests => self.requests,
            Measure::Tokens => self.tokens,
            Measure::Money => self.money.0,
        }
    }

    /// Both together; the largest there is where that is too much to count.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            tokens: self.tokens.saturating_add(other.tokens),
            money: self.money.plus(other.money),
        }
    }

    /// What is left without `other`; nothing where that is more.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            tokens: self.tokens.saturating_sub(other.tokens),
            money: self.money.minus(other.money),
        }
    }
}

/// Whose request it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Account {
    /// The key it came with.
    pub key: Option<KeyId>,
    /// The team it is for.
    pub team: Option<TeamId>,
}

impl Account {
    /// Everyone who uses something with it.
    pub(super) fn scopes(&self) -> impl Iterator<Item = Scope> {
        let team = self.team.clone().map(Scope::Team);
        let key = self.key.clone().map(Scope::Key);
        [Some(Scope::Everybody), team, key].into_iter().flatten()
    }
}

/// A limit of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cap {
    pub(super) per: Per,
    pub(super) measure: Measure,
    pub(super) most: u64,
}

/// All limits, by whom they are for.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    ones: HashMap<Scope, Vec<Cap>>,
    each_team: Vec<Cap>,
    each_key: Vec<Cap>,
}

impl Limits {
    pub(super) fn new(limits: impl IntoIterator<Item = Limit>) -> Self {
        let mut all = Self::default();
        for limit in limits {
            let cap = Cap {
                per: limit.per,
                measure: limit.measure,
                most: limit.most,
            };
            match limit.whom {
                Whom::One(scope) => all.ones.entry(scope).or_default().push(cap),
                Whom::EachTeam => all.each_team.push(cap),
                Whom::EachKey => all.each_key.push(cap),
            }
        }
        for (scope, own) in &mut all.ones {
            let others = match scope {
                Scope::Everybody => continue,
                Scope::Team(_) => &all.each_team,
                Scope::Key(_) => &all.each_key,
            };
            let is_same = |a: &Cap, b: &Cap| a.per == b.per && a.measure == b.measure;
            let more: Vec<Cap> = others
                .iter()
                .filter(|other| !own.iter().any(|own| is_same(own, other)))
                .copied()
                .collect();
            own.extend(more);
        }
        all
    }

    /// Those that hold for one.
    pub(super) fn of(&self, scope: &Scope) -> &[Cap] {
        let others: &[Cap] = match scope {
            Scope::Everybody => &[],
            Scope::Team(_) => &self.each_team,
            Scope::Key(_) => &self.each_key,
        };
        self.ones.get(scope).map_or(others, Vec::as_slice)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ones.is_empty() && self.each_team.is_empty() && self.each_key.is_empty()
    }
}
