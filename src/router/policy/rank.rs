//! Orders the candidates, and says by what.

use std::cmp::Ordering;

use super::Candidate;
use super::gather::Tier;
use super::question::Asked;
use super::reason::{Exclusion, Reason, Why};
use crate::config::router::Strategy;
use crate::router::names::Name;

/// Where a candidate is, the nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The engine of this process.
    Here,
    /// Another machine of ours.
    Ours,
    /// Somebody else's.
    Cloud,
}

/// A candidate that was judged.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) candidate: Candidate,
    pub(super) tier: Tier,
    pub(super) place: Place,
    pub(super) is_late: bool,
    pub(super) is_primary: bool,
    /// See [`places`].
    pub(super) places: [usize; 3],
}

/// The places that made it a candidate: in the list of the team, of this machine, in the chain.
pub(super) fn places(whys: &[Why]) -> [usize; 3] {
    let mut places = [usize::MAX; 3];
    for why in whys {
        let (list, place) = match why {
            Why::Team { place } => (0, *place),
            Why::LocalPreference { place } => (1, *place),
            Why::Chain { place } => (2, *place),
            _ => continue,
        };
        places[list] = places[list].min(place);
    }
    places
}

/// Orders the candidates: those that may answer, the best first, then those that may not. And why somebody else comes
/// before a model of the engine that would have been the first.
pub(super) fn rank(
    mut judged: Vec<Judged>,
    asked: &Asked<'_>,
) -> (Vec<Candidate>, Option<&'static str>) {
    let is_auto = asked.name == Name::Auto;
    if !asked.fallback && !is_auto {
        let others = judged.iter_mut().filter(|judged| judged.tier > Tier::Asked);
        for other in others {
            other
                .candidate
                .excluded
                .get_or_insert(Exclusion::NoFallback);
        }
    }
    let preferred = |a: &Judged, b: &Judged| {
        let order = a.tier.cmp(&b.tier);
        order
            .then_with(|| compare(a, b, asked))
            .then_with(|| a.candidate.target.cmp(&b.candidate.target))
    };
    let excluded = |judged: &Judged| judged.candidate.excluded.is_some();
    let allowed = judged.iter().filter(|judged| !excluded(judged));
    let late = allowed.min_by(|a, b| preferred(a, b)).and_then(why_late);
    judged.sort_by(|a, b| {
        let order = excluded(a).cmp(&excluded(b));
        order
            .then_with(|| a.is_late.cmp(&b.is_late))
            .then_with(|| preferred(a, b))
    });
    let first = judged.first().filter(|judged| !excluded(judged));
    let escalation = late.filter(|_| first.is_some_and(|first| first.place != Place::Here));
    let by = ordered_by(asked);
    let mut n_allowed = 0;
    for judged in &mut judged {
        let candidate = &mut judged.candidate;
        if candidate.excluded.is_some() {
            continue;
        }
        n_allowed += 1;
        if !asked.fallback && n_allowed > 1 {
            candidate.excluded = Some(Exclusion::NoFallback);
            continue;
        }
        if !is_auto && judged.tier > Tier::Asked {
            candidate.why.push(Reason::Fallback);
        }
        candidate.why.push(Reason::Ordered {
            strategy: asked.strategy,
            by: by.clone(),
        });
    }
    let candidates = judged.into_iter().map(|judged| judged.candidate);
    (candidates.collect(), escalation)
}

/// Why a model of the engine is late.
fn why_late(judged: &Judged) -> Option<&'static str> {
    if judged.place != Place::Here || !judged.is_late {
        return None;
    }
    let reasons = &judged.candidate.why;
    let why = reasons.iter().find_map(|reason| match reason {
        Reason::Late { .. } => Some("foreseen_miss"),
        Reason::Full { .. } => Some("full"),
        _ => None,
    });
    Some(why.unwrap_or("not_here"))
}

fn compare(a: &Judged, b: &Judged, asked: &Asked<'_>) -> Ordering {
    let mut order = Ordering::Equal;
    if asked.list_first {
        order = order.then_with(|| by_team(a, b));
    }
    if asked.prefers_local {
        order = order.then_with(|| a.place.cmp(&b.place));
    }
    if asked.prefers_faster {
        order = order.then_with(|| by_speed(a, b));
    }
    order
        .then_with(|| match asked.strategy {
            Strategy::LocalFirst => a.place.cmp(&b.place),
            Strategy::CostOptimized => by_cost(a, b),
            Strategy::QualityFirst => by_quality(a, b),
            Strategy::SpeedFirst => by_speed(a, b),
        })
        .then_with(|| by_team(a, b))
        .then_with(|| a.places.cmp(&b.places))
        .then_with(|| by_cost(a, b))
        .then_with(|| by_speed(a, b))
        .then_with(|| by_quality(a, b))
}

fn ordered_by(asked: &Asked<'_>) -> String {
    let parts = [
        (asked.list_first, "the team's list"),
        (asked.prefers_local, "nearness"),
        (asked.prefers_faster, "speed"),
        (true, main_criterion(asked.strategy)),
    ];
    let mut names: Vec<&str> = Vec::new();
    for (holds, name) in parts {
        let has_list = asked.question.team.is_some() || name != "the team's list";
        if holds && has_list && !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", then ")
}

fn main_criterion(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::LocalFirst => "nearness",
        Strategy::CostOptimized => "cost",
        Strategy::QualityFirst => "quality",
        Strategy::SpeedFirst => "speed",
    }
}

fn by_team(a: &Judged, b: &Judged) -> Ordering {
    let order = a.places[0].cmp(&b.places[0]);
    order.then_with(|| b.is_primary.cmp(&a.is_primary))
}

/// The smaller first; what nobody knows last.
fn known_first<T: Ord>(a: Option<T>, b: Option<T>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

fn by_cost(a: &Judged, b: &Judged) -> Ordering {
    known_first(a.candidate.predicted_cost, b.candidate.predicted_cost)
}

/// The end where both are foreseen, else the beginning.
fn by_speed(a: &Judged, b: &Judged) -> Ordering {
    let (a, b) = (&a.candidate, &b.candidate);
    let end = known_first(a.predicted_total, b.predicted_total);
    let first = known_first(a.predicted_ttft, b.predicted_ttft);
    match (a.predicted_total, b.predicted_total) {
        (Some(_), Some(_)) => end,
        _ => first,
    }
}

fn by_quality(a: &Judged, b: &Judged) -> Ordering {
    let score = |judged: &Judged| judged.candidate.quality.unwrap_or(-1.0);
    score(b).total_cmp(&score(a))
}
