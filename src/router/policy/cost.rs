//! What an answer costs, in exact integers.

use crate::money::MicroUsd;

/// Tokens that prices are for.
const PER: u128 = 1_000_000;

/// What a model costs. Units: micro-dollars for a million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Of the prompt.
    pub prompt: u64,
    /// Of the answer.
    pub completion: u64,
    /// Of the request itself. Units: micro-dollars.
    pub request: MicroUsd,
}

impl Rates {
    /// What so many tokens cost, rounded up.
    pub fn cost(self, prompt_tokens: u32, completion_tokens: u32) -> MicroUsd {
        let prompt = u128::from(self.prompt) * u128::from(prompt_tokens);
        let completion = u128::from(self.completion) * u128::from(completion_tokens);
        let tokens = (prompt + completion).div_ceil(PER);
        MicroUsd(u64::try_from(tokens).unwrap_or(u64::MAX)).plus(self.request)
    }

    /// The most tokens of an answer that `most` pays for after a prompt of so many; none where it does not even pay for
    /// the prompt.
    pub(super) fn affordable(self, most: MicroUsd, prompt_tokens: u32) -> Option<u32> {
        let prompt = u128::from(self.prompt) * u128::from(prompt_tokens);
        let left = most.0.checked_sub(self.request.0)?;
        let left = (u128::from(left) * PER).checked_sub(prompt)?;
        let tokens = match self.completion {
            0 => u128::from(u32::MAX),
            per_million => left / u128::from(per_million),
        };
        Some(u32::try_from(tokens).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_affordable_is_paid_for_and_one_more_is_not(
            prompt in 0_u64..100_000_000, completion in 1_u64..100_000_000,
            request in 0_u64..1000, tokens in 0_u32..100_000, most in 0_u64..10_000_000,
        ) {
            let rates = Rates { prompt, completion, request: MicroUsd(request) };
            match rates.affordable(MicroUsd(most), tokens) {
                Some(n) => {
                    prop_assert!(rates.cost(tokens, n).0 <= most);
                    if n < u32::MAX {
                        prop_assert!(rates.cost(tokens, n + 1).0 > most);
                    }
                }
                None => prop_assert!(rates.cost(tokens, 0).0 > most),
            }
        }
    }
}
