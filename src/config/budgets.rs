//! What may be used, what our own work costs, and how long the ledger keeps what was used: the tables `[[budget]]`,
//! `[local_price]` and `[ledger]`.

use std::time::Duration;

use super::document::{Node, Problem, Reading, Table, Value};
use crate::caller::{KeyId, TeamId};
use crate::limit::{Limit, Measure, Per, Scope, Whom};
use crate::money::MicroUsd;
use crate::price::{Price, Rate, Tokens};

/// The tables that are read here.
pub(super) const TABLES: [&str; 3] = ["budget", "local_price", "ledger"];
/// Budgets of one file at most.
const BUDGETS_MOST: usize = 10_000;
/// More tokens than anybody has.
const COUNT_MOST: u64 = 1_000_000_000_000_000;
/// More dollars than anybody has.
const USD_MOST: f64 = 1e9;
/// Days for which settled attempts are kept one by one, where nothing is said.
const KEEP_DAYS: u64 = 400;
/// More days than anybody waits.
const KEEP_DAYS_MOST: u64 = 36_500;
/// For each team or key by itself.
const EACH: &str = "*";

/// What may be used, what our own work costs, and how long the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetSettings {
    /// All limits.
    pub limits: Vec<Limit>,
    /// What work of this machine costs.
    pub local_price: Price,
    /// How long settled attempts are kept one by one; their sums stay.
    pub keep: Duration,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self {
            limits: Vec::new(),
            local_price: Price::FREE,
            keep: days(KEEP_DAYS),
        }
    }
}

fn days(n: u64) -> Duration {
    Duration::from_hours(24 * n)
}

/// Reads the tables of `document`, which is called `file`.
///
/// # Errors
/// All that is wrong, with lines.
pub(super) fn read(document: &Node, file: &str) -> Result<BudgetSettings, Vec<Problem>> {
    let reading = Reading::new(file);
    let whole = reading.table(document, "");
    let mut settings = BudgetSettings::default();
    if let Some(price) = whole.table("local_price") {
        settings.local_price = local_price(&price);
    }
    if let Some(ledger) = whole.table("ledger") {
        ledger.only(&["keep_days"]);
        let kept = ledger.whole("keep_days", 1..=KEEP_DAYS_MOST);
        settings.keep = days(kept.unwrap_or(KEEP_DAYS));
    }
    let budgets = whole.list("budget").unwrap_or_default();
    if budgets.len() > BUDGETS_MOST {
        whole.refuse("budget", format!("there must be {BUDGETS_MOST} at most"));
    }
    for (number, node) in (1..).zip(budgets.iter().take(BUDGETS_MOST)) {
        if let Value::Table(_) = node.value {
            let table = reading.table(node, &format!("budget[{number}]"));
            settings.limits.extend(budget(&table));
        } else {
            whole.refuse("budget", "each must be a table: write [[budget]] over it");
        }
    }
    reading.finish(settings)
}

fn budget(table: &Table) -> Vec<Limit> {
    table.only(&["team", "key", "per", "usd", "requests", "tokens"]);
    let named = |key| {
        let text = table.text(key)?.trim();
        if text.is_empty() {
            table.refuse(key, "it is empty: name one, or \"*\" for each by itself");
        }
        Some(text)
    };
    let whom = match (named("team"), named("key")) {
        (None, None) => Whom::One(Scope::Everybody),
        (Some(EACH), None) => Whom::EachTeam,
        (Some(team), None) => Whom::One(Scope::Team(TeamId::new(team))),
        (None, Some(EACH)) => Whom::EachKey,
        (None, Some(key)) => Whom::One(Scope::Key(KeyId::new(key))),
        (Some(_), Some(_)) => {
            table.refuse("key", "a budget is for a team or for a key: write two");
            return Vec::new();
        }
    };
    let Some(per) = table.parsed::<Per>("per") else {
        if !table.has("per") {
            table.refuse_it("per is missing: say minute, day or month");
        }
        return Vec::new();
    };
    let usd = table.number("usd", 0.0..=USD_MOST);
    let amounts = [
        (
            Measure::Money,
            usd.and_then(MicroUsd::at_least).map(|usd| usd.0),
        ),
        (Measure::Requests, table.whole("requests", 0..=COUNT_MOST)),
        (Measure::Tokens, table.whole("tokens", 0..=COUNT_MOST)),
    ];
    if !["usd", "requests", "tokens"]
        .iter()
        .any(|key| table.has(key))
    {
        table.refuse_it("it limits nothing: say usd, requests or tokens");
    }
    let limits = amounts.into_iter().filter_map(|(measure, most)| {
        Some(Limit {
            whom: whom.clone(),
            per,
            measure,
            most: most?,
        })
    });
    limits.collect()
}

fn local_price(table: &Table) -> Price {
    table.only(&["prompt", "completion", "per_request", "per_hour"]);
    let usd = |key| {
        let usd = table.number(key, 0.0..=USD_MOST);
        usd.and_then(MicroUsd::at_least).unwrap_or_default()
    };
    // Of dollars per million tokens, as of dollars, a millionth is the smallest.
    let rate = |key| Rate(usd(key).0);
    Price {
        tokens: Tokens::plain(rate("prompt"), rate("completion")),
        per_request: usd("per_request"),
        per_hour: usd("per_hour"),
        ..Price::FREE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<BudgetSettings, Vec<Problem>> {
        read(&Node::from_toml(text, "ingle.toml").unwrap(), "ingle.toml")
    }

    #[test]
    fn budgets_are_for_all_a_team_a_key_or_each_by_itself() {
        let read = settings(
            "[local_price]\ncompletion = 0.07\nper_hour = 0.2\n\
             [[budget]]\nper = 'month'\nusd = 100\n\
             [[budget]]\nteam = 'engineering-team'\nper = 'day'\nusd = 5.07\nrequests = 10\n\
             [[budget]]\nkey = '*'\nper = 'minute'\ntokens = 1000\n",
        )
        .unwrap();
        let limit = |whom, per, measure, most| Limit {
            whom,
            per,
            measure,
            most,
        };
        let team = Whom::One(Scope::Team(TeamId::new("engineering")));
        assert_eq!(
            read.limits,
            [
                limit(
                    Whom::One(Scope::Everybody),
                    Per::Month,
                    Measure::Money,
                    100_000_000
                ),
                limit(team.clone(), Per::Day, Measure::Money, 5_070_000),
                limit(team, Per::Day, Measure::Requests, 10),
                limit(Whom::EachKey, Per::Minute, Measure::Tokens, 1000),
            ]
        );
        assert_eq!(read.local_price.worst(1000, 1_000_000), MicroUsd(70_000));
        assert_eq!(read.local_price.per_hour, MicroUsd(200_000));
        assert_eq!(settings("").unwrap(), BudgetSettings::default());
        let kept = settings("[ledger]\nkeep_days = 30\n").unwrap().keep;
        assert_eq!(kept, Duration::from_hours(30 * 24));
        for wrong in ["keep_days = 0", "keep_day = 30", "keep_days = \"long\""] {
            assert!(
                settings(&format!("[ledger]\n{wrong}\n")).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn what_cannot_be_is_named_with_its_line() {
        for (text, expected) in [
            (
                "[[budget]]\nusd = 5\n",
                "budget[1] in ingle.toml, line 1: per is missing",
            ),
            ("[[budget]]\nper = 'day'\n", "line 1: it limits nothing"),
            (
                "[[budget]]\nper = 'week'\nusd = 1\n",
                "line 2: \"week\" is no window of time",
            ),
            (
                "[[budget]]\nper = 'day'\nusd = -1\n",
                "line 3: it must be a number from 0",
            ),
            (
                "[[budget]]\nper = 'day'\nusdd = 1\n",
                "line 3: there is no such key",
            ),
            (
                "[[budget]]\nteam = 'a'\nkey = 'b'\nper = 'day'\nusd = 1\n",
                "write two",
            ),
            (
                "[[budget]]\nteam = ' '\nper = 'day'\nusd = 1\n",
                "it is empty",
            ),
            ("budget = 3\n", "it must be a list"),
            ("budget = [3]\n", "each must be a table"),
            (
                "[local_price]\nprompt = 'much'\n",
                "line 2: it must be a number",
            ),
        ] {
            let problems = settings(text).unwrap_err();
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert!(
                all.iter().any(|one| one.contains(expected)),
                "{expected}: {all:?}"
            );
        }
    }
}
