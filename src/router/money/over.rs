//! What is left of a limit, and a request that asks for more.

use std::fmt;
use std::time::Duration;

use super::window::Moment;
use crate::limit::{Measure, Per, Scope};

/// A limit, and what of it is used: spent or held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Whose.
    pub scope: Scope,
    /// Of what.
    pub measure: Measure,
    /// In which window.
    pub per: Per,
    /// How much there is.
    pub limit: u64,
    /// How much is used.
    pub used: u64,
    /// When it starts anew.
    pub resets_at: Moment,
    /// When that was so.
    pub now: Moment,
}

impl Left {
    /// How much may still be used.
    pub fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    /// In how long it starts anew.
    pub fn resets_in(&self) -> Duration {
        self.resets_at.since(self.now)
    }
}

/// A request that asks for more than is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// Of which limit; of several the one that holds longest.
    pub left: Left,
    /// How much the request asks for.
    pub asked: u64,
}

impl OverLimit {
    /// Whether the request asks for more than there ever is: waiting does not help.
    pub fn never_fits(&self) -> bool {
        self.asked > self.left.limit
    }

    /// When it is worth asking again.
    pub fn retry_after(&self) -> Option<Duration> {
        (!self.never_fits()).then(|| self.left.resets_in())
    }
}

impl std::error::Error for OverLimit {}

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Left {
            scope,
            measure,
            per,
            limit,
            used,
            resets_at,
            ..
        } = &self.left;
        let (asked, limit) = (measure.shown(self.asked), measure.shown(*limit));
        if self.never_fits() {
            let less = match measure {
                Measure::Requests => "",
                Measure::Tokens | Measure::Money => "ask for a lower max_tokens, or ",
            };
            return write!(
                f,
                "this request may take {asked}, and {scope} may use {limit} a {per}: {less}raise the budget"
            );
        }
        let used = measure.shown(*used);
        write!(
            f,
            "{scope} has used {used} of {limit} a {per}, and this request may take {asked}: \
             the next {per} begins at {resets_at}"
        )
    }
}

/// What is left of the tightest limit of each measure; none where there is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Requests.
    pub requests: Option<Left>,
    /// Tokens.
    pub tokens: Option<Left>,
    /// Micro-dollars.
    pub money: Option<Left>,
}

impl Remaining {
    /// Keeps `left` where it is tighter than what is there.
    pub(super) fn tighten(&mut self, left: Left) {
        let place = match left.measure {
            Measure::Requests => &mut self.requests,
            Measure::Tokens => &mut self.tokens,
            Measure::Money => &mut self.money,
        };
        let key = |left: &Left| (left.remaining(), std::cmp::Reverse(left.resets_at));
        if place.as_ref().is_none_or(|there| key(&left) < key(there)) {
            *place = Some(left);
        }
    }
}
