//! Who has used what, and whether more may be used: pure, the clock is an argument.
//!
//! What is held counts as used. A hold and what becomes of it count in the windows in which it was taken, whenever it ends:
//! so spent and held together never exceed a limit in any window, however long an answer takes and wherever the clock jumps.

use std::collections::{BTreeMap, HashMap};

use super::limit::{Account, Amounts, Cap, Limits};
use super::over::{Left, OverLimit, Remaining};
use super::window::Moment;
use crate::limit::{Limit, Measure, Per, Scope};

/// Windows that are remembered of one limit: a clock that jumps back by less finds what was used there before.
const MINUTES_KEPT: usize = 90;
const DAYS_KEPT: usize = 8;
const MONTHS_KEPT: usize = 3;
/// And of what no limit is for.
const UNLIMITED_KEPT: usize = 2;

/// What one has used in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    spent: Amounts,
    held: Amounts,
}

impl Used {
    fn of(&self, measure: Measure) -> u64 {
        let (spent, held) = (self.spent.of(measure), self.held.of(measure));
        spent.saturating_add(held)
    }
}

/// What one has used, by window.
#[derive(Clone, Debug, Default)]
struct Tally {
    windows: [BTreeMap<Moment, Used>; 3],
}

fn index(per: Per) -> usize {
    match per {
        Per::Minute => 0,
        Per::Day => 1,
        Per::Month => 2,
    }
}

impl Tally {
    fn used(&self, per: Per, now: Moment) -> Used {
        let windows = &self.windows[index(per)];
        windows.get(&per.start(now)).copied().unwrap_or_default()
    }

    /// The window that `now` lies in, made where it is new; older ones are forgotten for it, unless something is held there.
    fn window(&mut self, per: Per, now: Moment, caps: &[Cap]) -> &mut Used {
        let (start, windows) = (per.start(now), &mut self.windows[index(per)]);
        if !windows.contains_key(&start) {
            let kept = match per {
                _ if !caps.iter().any(|cap| cap.per == per) => UNLIMITED_KEPT,
                Per::Minute => MINUTES_KEPT,
                Per::Day => DAYS_KEPT,
                Per::Month => MONTHS_KEPT,
            };
            while windows.len() >= kept {
                let nothing = Amounts::default();
                let oldest = windows.iter().find(|(_, used)| used.held == nothing);
                let Some((&oldest, _)) = oldest else { break };
                windows.remove(&oldest);
            }
        }
        windows.entry(start).or_default()
    }

    /// The window that `at` lies in, unless it is forgotten.
    fn known(&mut self, per: Per, at: Moment) -> Option<&mut Used> {
        self.windows[index(per)].get_mut(&per.start(at))
    }
}

/// Limits, and what is used of them.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    limits: Limits,
    tallies: HashMap<Scope, Tally>,
}

impl Budgets {
    /// Nothing used yet.
    pub fn new(limits: impl IntoIterator<Item = Limit>) -> Self {
        Self {
            limits: Limits::new(limits),
            tallies: HashMap::new(),
        }
    }

    /// Other limits from now on; what is used stays used.
    pub fn set_limits(&mut self, limits: impl IntoIterator<Item = Limit>) {
        self.limits = Limits::new(limits);
    }

    /// Whether anything at all is limited.
    pub fn has_limits(&self) -> bool {
        !self.limits.is_empty()
    }

    /// Whether something is limited for `account` that must outlive the process: money, or what a day or longer holds.
    pub fn is_lasting(&self, account: &Account) -> bool {
        let is_lasting = |cap: &Cap| cap.measure == Measure::Money || cap.per != Per::Minute;
        let mut scopes = account.scopes();
        scopes.any(|scope| self.limits.of(&scope).iter().any(is_lasting))
    }

    /// Takes `ask` out of everything that is limited for `account`, or nothing.
    ///
    /// # Errors
    /// [`OverLimit`]: of one at least more would be used than there is.
    pub fn hold(&mut self, account: &Account, ask: &Amounts, now: Moment) -> Result<(), OverLimit> {
        if let Some(over) = self.over(account, ask, now) {
            return Err(over);
        }
        self.add(account, now, |used| used.held = used.held.plus(ask));
        Ok(())
    }

    /// The limit that `ask` exceeds, of several the one that holds longest.
    fn over(&self, account: &Account, ask: &Amounts, now: Moment) -> Option<OverLimit> {
        let mut worst: Option<OverLimit> = None;
        self.each_left(account, now, |left| {
            let asked = ask.of(left.measure);
            if asked == 0 || left.used.saturating_add(asked) <= left.limit {
                return;
            }
            let over = OverLimit { left, asked };
            let holds = |over: &OverLimit| (over.never_fits(), over.left.resets_at);
            if worst
                .as_ref()
                .is_none_or(|worst| holds(&over) > holds(worst))
            {
                worst = Some(over);
            }
        });
        worst
    }

    /// Ends a hold taken at `at`: what it was about is `spent` now.
    pub fn settle(&mut self, account: &Account, at: Moment, held: &Amounts, spent: &Amounts) {
        self.change(account, at, |used| {
            used.held = used.held.minus(held);
            used.spent = used.spent.plus(spent);
        });
    }

    /// What was thought to be spent at `at` was something else.
    pub fn correct(&mut self, account: &Account, at: Moment, was: &Amounts, is: &Amounts) {
        self.change(account, at, |used| {
            used.spent = used.spent.minus(was).plus(is);
        });
    }

    /// What was spent at `at`, before this process began.
    pub fn recall(&mut self, account: &Account, at: Moment, spent: &Amounts, windows: &[Per]) {
        for scope in account.scopes() {
            let caps = self.limits.of(&scope);
            let tally = self.tallies.entry(scope).or_default();
            for per in windows {
                let used = tally.window(*per, at, caps);
                used.spent = used.spent.plus(spent);
            }
        }
    }

    /// What is left of the tightest limits.
    pub fn remaining(&self, account: &Account, now: Moment) -> Remaining {
        let mut remaining = Remaining::default();
        self.each_left(account, now, |left| remaining.tighten(left));
        remaining
    }

    /// Everything that is spent or held by one in a window.
    pub fn used(&self, scope: &Scope, per: Per, now: Moment) -> Amounts {
        let used = self.tallies.get(scope).map(|tally| tally.used(per, now));
        let used = used.unwrap_or_default();
        used.spent.plus(&used.held)
    }

    fn each_left(&self, account: &Account, now: Moment, mut see: impl FnMut(Left)) {
        for scope in account.scopes() {
            let tally = self.tallies.get(&scope);
            for cap in self.limits.of(&scope) {
                let used = tally.map(|tally| tally.used(cap.per, now));
                see(Left {
                    scope: scope.clone(),
                    measure: cap.measure,
                    per: cap.per,
                    limit: cap.most,
                    used: used.unwrap_or_default().of(cap.measure),
                    resets_at: cap.per.end(now),
                    now,
                });
            }
        }
    }

    fn add(&mut self, account: &Account, now: Moment, mut change: impl FnMut(&mut Used)) {
        for scope in account.scopes() {
            let caps = self.limits.of(&scope);
            let tally = self.tallies.entry(scope).or_default();
            for per in Per::ALL {
                change(tally.window(per, now, caps));
            }
        }
    }

    fn change(&mut self, account: &Account, at: Moment, mut change: impl FnMut(&mut Used)) {
        for scope in account.scopes() {
            let Some(tally) = self.tallies.get_mut(&scope) else {
                continue;
            };
            for per in Per::ALL {
                if let Some(used) = tally.known(per, at) {
                    change(used);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
