//! What is left of a caller's limits, in the headers OpenAI's clients read.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};

use crate::limit::Measure;
use crate::money::MicroUsd;
use crate::router::money::{Left, Remaining};

/// The names of a measure's headers: how much there is, what is left, and when it starts anew.
fn names(measure: Measure) -> [&'static str; 3] {
    match measure {
        Measure::Requests => [
            "x-ratelimit-limit-requests",
            "x-ratelimit-remaining-requests",
            "x-ratelimit-reset-requests",
        ],
        Measure::Tokens => [
            "x-ratelimit-limit-tokens",
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-reset-tokens",
        ],
        Measure::Money => [
            "x-ratelimit-limit-usd",
            "x-ratelimit-remaining-usd",
            "x-ratelimit-reset-usd",
        ],
    }
}

/// Writes what is left of the tightest limit of each measure; nothing where there is none.
pub(super) fn write(headers: &mut HeaderMap, remaining: &Remaining) {
    let all = [&remaining.requests, &remaining.tokens, &remaining.money];
    for left in all.into_iter().flatten() {
        for (name, text) in names(left.measure).into_iter().zip(texts(left)) {
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(name, value);
            }
        }
    }
}

fn texts(left: &Left) -> [String; 3] {
    let amount = |amount: u64| match left.measure {
        Measure::Requests | Measure::Tokens => amount.to_string(),
        Measure::Money => MicroUsd(amount).to_string().replace('$', ""),
    };
    let reset = time(left.resets_in());
    [amount(left.limit), amount(left.remaining()), reset]
}

/// As OpenAI writes it: `250ms`, `12s`, `6m0s`, `13h0m0s`.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes, seconds % 60) {
        (0, 0, 0) => format!("{}ms", time.as_millis()),
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Limit, Per, Scope, Whom};
    use crate::router::money::{Account, Amounts, Budgets, Moment};

    #[test]
    fn what_is_left_is_said_as_clients_read_it_and_without_a_limit_nothing() {
        let limit = |per, measure, most| Limit {
            whom: Whom::One(Scope::Everybody),
            per,
            measure,
            most,
        };
        let now = Moment::read("2026-11-26T10:00:48Z").unwrap();
        let (who, mut headers) = (Account::default(), HeaderMap::new());
        write(&mut headers, &Budgets::new([]).remaining(&who, now));
        assert!(headers.is_empty());
        let mut budgets = Budgets::new([
            limit(Per::Minute, Measure::Requests, 60),
            limit(Per::Day, Measure::Requests, 1000),
            limit(Per::Day, Measure::Money, 5_000_000),
        ]);
        let ask = Amounts {
            requests: 1,
            tokens: 10,
            money: MicroUsd(120_000),
        };
        budgets.hold(&who, &ask, now).unwrap();
        write(&mut headers, &budgets.remaining(&who, now));
        for (name, expected) in [
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-reset-requests", "12s"),
            ("x-ratelimit-limit-usd", "5.00"),
            ("x-ratelimit-remaining-usd", "4.88"),
            ("x-ratelimit-reset-usd", "13h59m12s"),
        ] {
            assert_eq!(headers[name], expected, "{name}");
        }
        assert_eq!(headers.len(), 6);
    }
}
