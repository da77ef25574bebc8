//! F0: what a model costs, in whole numbers: nothing is rounded in the spender's favour, nothing wraps.

use std::time::Duration;

use crate::chat::Usage;
use crate::money::MicroUsd;

const MILLION: u128 = 1_000_000;
const NANOSECONDS_PER_HOUR: u128 = 3_600_000_000_000;

/// What a million of something costs. Units: micro-dollars, so that a dollar per million tokens is 1 000 000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub u64);

/// A text that is no price.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no price: write dollars such as 0.15")]
pub struct NoPrice {
    /// What was read.
    pub text: String,
}

impl Rate {
    /// Of dollars per million, as people write prices: `0.15`.
    ///
    /// # Errors
    /// [`NoPrice`].
    pub fn per_million(text: &str) -> Result<Self, NoPrice> {
        Self::decimal(text, 6)
    }

    /// Of dollars for one, as providers tell prices: `0.00000015`.
    ///
    /// # Errors
    /// [`NoPrice`].
    pub fn per_one(text: &str) -> Result<Self, NoPrice> {
        Self::decimal(text, 12)
    }

    fn decimal(text: &str, places: u32) -> Result<Self, NoPrice> {
        let value = crate::money::decimal(text, places);
        value.map(Self).ok_or_else(|| NoPrice {
            text: text.to_owned(),
        })
    }

    /// What `n` cost, in millionths of a micro-dollar.
    fn of(self, n: u64) -> u128 {
        u128::from(self.0) * u128::from(n)
    }
}

/// What tokens cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tokens {
    /// Of the prompt.
    pub prompt: Rate,
    /// Of the answer, thoughts included.
    pub completion: Rate,
    /// Of the prompt, from a provider's cache.
    pub cached_read: Rate,
    /// Of the prompt, into a provider's cache.
    pub cache_write: Rate,
    /// Of the prompt, into a provider's cache for an hour or longer.
    pub cache_write_long: Rate,
}

impl Tokens {
    /// Where a provider's cache changes nothing.
    pub fn plain(prompt: Rate, completion: Rate) -> Self {
        Self {
            prompt,
            completion,
            cached_read: prompt,
            cache_write: prompt,
            cache_write_long: prompt,
        }
    }

    /// What a token of the prompt may cost at most.
    fn dearest_prompt(&self) -> Rate {
        let caches = self.cached_read.max(self.cache_write);
        self.prompt.max(caches).max(self.cache_write_long)
    }

    fn worst(&self, n_prompt: u64, n_completion: u64) -> u128 {
        self.dearest_prompt().of(n_prompt) + self.completion.of(n_completion)
    }

    fn cost(&self, usage: &Usage) -> u128 {
        let prompt = u64::from(usage.prompt_tokens);
        let cached = u64::from(usage.cached_tokens).min(prompt);
        let written = u64::from(usage.cache_write_tokens).min(prompt - cached);
        self.prompt.of(prompt - cached - written)
            + self.cached_read.of(cached)
            + self.cache_write.of(written)
            + self.completion.of(u64::from(usage.completion_tokens))
    }
}

/// What everything costs once a prompt is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Long {
    /// Longer than so many tokens.
    pub from: u32,
    /// What they cost then.
    pub tokens: Tokens,
}

/// What a model costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Price {
    /// By tokens.
    pub tokens: Tokens,
    /// With a long prompt.
    pub long: Option<Long>,
    /// For each request.
    pub per_request: MicroUsd,
    /// For each hour of work: what a machine of ours costs.
    pub per_hour: MicroUsd,
}

impl Price {
    /// Nothing at all.
    pub const FREE: Self = {
        const NOTHING: Rate = Rate(0);
        Self {
            tokens: Tokens {
                prompt: NOTHING,
                completion: NOTHING,
                cached_read: NOTHING,
                cache_write: NOTHING,
                cache_write_long: NOTHING,
            },
            long: None,
            per_request: MicroUsd::ZERO,
            per_hour: MicroUsd::ZERO,
        }
    };

    /// What a request may cost at most, time aside: never less than [`cost`](Self::cost) of any usage within these bounds.
    pub fn worst(&self, prompt_tokens: u32, max_tokens: u32) -> MicroUsd {
        let (prompt, completion) = (u64::from(prompt_tokens), u64::from(max_tokens));
        let mut most = self.tokens.worst(prompt, completion);
        if let Some(long) = self.long
            && prompt_tokens > long.from
        {
            most = most.max(long.tokens.worst(prompt, completion));
        }
        self.per_request.plus(rounded_up(most, MILLION))
    }

    /// What `usage` costs, time aside. What a provider says it charged is not looked at.
    pub fn cost(&self, usage: &Usage) -> MicroUsd {
        let tokens = match &self.long {
            Some(long) if usage.prompt_tokens > long.from => &long.tokens,
            _ => &self.tokens,
        };
        self.per_request
            .plus(rounded_up(tokens.cost(usage), MILLION))
    }

    /// What so much time costs.
    pub fn of_time(&self, time: Duration) -> MicroUsd {
        let most = u128::from(self.per_hour.0).saturating_mul(time.as_nanos());
        rounded_up(most, NANOSECONDS_PER_HOUR)
    }

    /// The same where what is put in a provider's cache is to stay there for an hour or longer.
    #[must_use]
    pub fn for_long_cache(mut self) -> Self {
        self.tokens.cache_write = self.tokens.cache_write_long;
        if let Some(long) = &mut self.long {
            long.tokens.cache_write = long.tokens.cache_write_long;
        }
        self
    }

    /// Whether nothing is ever to be paid.
    pub fn is_free(&self) -> bool {
        *self == Self::FREE
    }
}

fn rounded_up(value: u128, by: u128) -> MicroUsd {
    MicroUsd(u64::try_from(value.div_ceil(by)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str) -> Rate {
        Rate::per_million(text).unwrap()
    }

    #[test]
    fn prices_are_read_digit_by_digit_and_rounded_up() {
        for (text, micro) in [
            ("0.15", 150_000),
            ("0.07", 70_000),
            ("30", 30_000_000),
            (" 2.5 ", 2_500_000),
            ("0.0000001", 1),
            ("1e-1", 100_000),
            ("0", 0),
            (".5", 500_000),
        ] {
            assert_eq!(Rate::per_million(text), Ok(Rate(micro)), "{text}");
        }
        for (text, micro) in [("0.0000025", 2_500_000), ("1.5e-07", 150_000), ("0", 0)] {
            assert_eq!(Rate::per_one(text), Ok(Rate(micro)), "{text}");
        }
        for text in [
            "",
            ".",
            "-1",
            "free",
            "1e99",
            "1e-99x",
            "NaN",
            "1.2.3",
            "99999999999999999999",
        ] {
            let error = Rate::per_one(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
        assert_eq!(Rate::per_one("1e-99"), Ok(Rate(1)));
    }

    #[test]
    fn what_the_cache_gave_and_took_has_its_own_price() {
        let price = Price {
            tokens: Tokens {
                cached_read: rate("0.3"),
                cache_write: rate("3.75"),
                cache_write_long: rate("6"),
                ..Tokens::plain(rate("3"), rate("15"))
            },
            ..Price::FREE
        };
        let usage = Usage {
            prompt_tokens: 1000,
            completion_tokens: 10,
            cached_tokens: 600,
            cache_write_tokens: 300,
            ..Usage::default()
        };
        // 100 × 3 + 600 × 0.3 + 300 × 3.75 + 10 × 15
        assert_eq!(price.cost(&usage), MicroUsd(300 + 180 + 1125 + 150));
        let longer = price.for_long_cache();
        assert_eq!(longer.cost(&usage), MicroUsd(300 + 180 + 1800 + 150));
        assert_eq!(price.worst(1000, 10), MicroUsd(6000 + 150));
    }

    #[test]
    fn part_of_a_micro_dollar_is_a_whole_one() {
        let price = Price {
            tokens: Tokens::plain(rate("0.02"), rate("0")),
            per_hour: MicroUsd(360_000),
            ..Price::FREE
        };
        assert_eq!(price.worst(1, 0), MicroUsd(1));
        assert_eq!(price.worst(50, 0), MicroUsd(1));
        assert_eq!(price.worst(51, 0), MicroUsd(2));
        assert_eq!(price.of_time(Duration::from_millis(10)), MicroUsd(1));
        assert_eq!(price.of_time(Duration::from_millis(11)), MicroUsd(2));
        assert_eq!(price.of_time(Duration::ZERO), MicroUsd::ZERO);
        assert_eq!(price.of_time(Duration::MAX), MicroUsd(u64::MAX));
        assert!(Price::FREE.is_free() && !price.is_free());
    }

    fn rates() -> impl Strategy<Value = Rate> {
        prop_oneof![0..100_000_000_u64, Just(u64::MAX)].prop_map(Rate)
    }

    fn tokens() -> impl Strategy<Value = Tokens> {
        let all = (rates(), rates(), rates(), rates(), rates());
        all.prop_map(
            |(prompt, completion, cached_read, cache_write, cache_write_long)| Tokens {
                prompt,
                completion,
                cached_read,
                cache_write,
                cache_write_long,
            },
        )
    }

    proptest! {
        #[test]
        fn no_usage_costs_more_than_the_worst_case(
            base in tokens(),
            long in prop::option::of((any::<u32>(), tokens())),
            per_request in any::<u64>(),
            bounds in any::<(u32, u32)>(),
            shares in any::<(u32, u32, u32, u32)>(),
        ) {
            let price = Price {
                tokens: base,
                long: long.map(|(from, tokens)| Long { from, tokens }),
                per_request: MicroUsd(per_request),
                per_hour: MicroUsd::ZERO,
            };
            let within = |share: u32, most: u32| share.checked_rem(most).unwrap_or_default();
            let usage = Usage {
                prompt_tokens: within(shares.0, bounds.0),
                completion_tokens: within(shares.1, bounds.1),
                cached_tokens: shares.2,
                cache_write_tokens: shares.3,
                ..Usage::default()
            };
            let worst = price.worst(bounds.0, bounds.1);
            prop_assert!(price.cost(&usage) <= worst);
            prop_assert!(price.for_long_cache().cost(&usage) <= worst);
        }
    }
}
