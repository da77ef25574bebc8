//! What an answer costs, from its price.

use std::time::Duration;

use crate::chat::Usage;
use crate::money::MicroUsd;
use crate::router::prices::{Price, Rate, Tokens};

/// Tokens that rates are for.
const MILLION: u128 = 1_000_000;

/// A price of so much for each million tokens, whatever they are.
pub(super) fn flat(per_million: u64) -> Price {
    let rate = Rate(per_million);
    Price {
        tokens: Tokens::plain(rate, rate),
        ..Price::FREE
    }
}

/// What so many tokens and so much time are likely to cost.
pub(super) fn likely(price: &Price, n_prompt: u32, n_answer: u32, time: Duration) -> MicroUsd {
    let usage = Usage {
        prompt_tokens: n_prompt,
        completion_tokens: n_answer,
        ..Usage::default()
    };
    price.cost(&usage).plus(price.of_time(time))
}

/// What tokens cost after a prompt of this length.
pub(super) fn tokens(price: &Price, n_prompt: u32) -> &Tokens {
    match &price.long {
        Some(long) if n_prompt > long.from => &long.tokens,
        _ => &price.tokens,
    }
}

/// What a token costs on average where the mean is above `most`. Units: micro-dollars for a million.
pub(super) fn mean_above(price: &Price, n_prompt: u32, n_answer: u32, most: u64) -> Option<u64> {
    let rates = tokens(price, n_prompt);
    let n_tokens = u128::from(n_prompt) + u128::from(n_answer);
    let cost = u128::from(rates.prompt.0) * u128::from(n_prompt)
        + u128::from(rates.completion.0) * u128::from(n_answer)
        + u128::from(price.per_request.0) * MILLION;
    (cost > u128::from(most) * n_tokens)
        .then(|| u64::try_from(cost / n_tokens.max(1)).unwrap_or(u64::MAX))
}

/// The most tokens of an answer that `most` pays for after a prompt of so many; none where it does not even pay for the
/// prompt.
pub(super) fn affordable(price: &Price, most: MicroUsd, n_prompt: u32) -> Option<u32> {
    let pays = |n_answer| price.worst(n_prompt, n_answer) <= most;
    if !pays(0) {
        return None;
    }
    let (mut paid, mut unpaid) = (0, u32::MAX);
    if pays(unpaid) {
        return Some(unpaid);
    }
    while unpaid - paid > 1 {
        let middle = paid + (unpaid - paid) / 2;
        if pays(middle) {
            paid = middle;
        } else {
            unpaid = middle;
        }
    }
    Some(paid)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::router::prices::Long;

    proptest! {
        #[test]
        fn what_is_affordable_is_paid_for_and_one_more_is_not(
            prompt in 0_u64..100_000_000, completion in 0_u64..100_000_000,
            request in 0_u64..1000, tokens in 0_u32..100_000, most in 0_u64..10_000_000,
            from in 0_u32..100_000,
        ) {
            let plain = |factor: u64| Tokens::plain(Rate(prompt * factor), Rate(completion * factor));
            let price = Price {
                tokens: plain(1),
                long: Some(Long { from, tokens: plain(2) }),
                per_request: MicroUsd(request),
                per_hour: MicroUsd::ZERO,
            };
            match affordable(&price, MicroUsd(most), tokens) {
                Some(n) => {
                    prop_assert!(price.worst(tokens, n).0 <= most);
                    if n < u32::MAX {
                        prop_assert!(price.worst(tokens, n + 1).0 > most);
                    }
                }
                None => prop_assert!(price.worst(tokens, 0).0 > most),
            }
        }
    }
}
