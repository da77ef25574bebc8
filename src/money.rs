//! F0: money, in whole micro-dollars: sums are exact, and nothing is ever rounded in the spender's favour.

use std::fmt;
use std::str::FromStr;

/// Micro-dollars in a dollar.
const PER_USD: u64 = 1_000_000;

/// An amount of money. Units: millionths of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MicroUsd(pub u64);

/// A text that is no amount of money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no amount of dollars: write a number such as 0.25")]
pub struct NoAmount {
    /// What was read.
    pub text: String,
}

impl MicroUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The smallest amount that is no less than `usd`, taken as the shortest decimal number that reads as it; none for what
    /// is no amount: less than nothing, endless, or more than can be counted.
    pub fn at_least(usd: f64) -> Option<Self> {
        decimal(&usd.to_string(), 6).map(Self)
    }

    /// Dollars, for showing.
    pub fn to_usd(self) -> f64 {
        self.0 as f64 / PER_USD as f64
    }

    /// Both together; the largest amount there is where that is too much to count.
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left without `other`; nothing where that is more.
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// Reads decimal digits as they stand, for no float can hold them; moves their point `places` to the right and rounds up.
/// None for what is no number from 0 on that can be counted.
pub fn decimal(text: &str, places: u32) -> Option<u64> {
    /// Digits of the greatest number that can be counted.
    const DIGITS_MOST: usize = 20;
    let number = text.trim();
    let (number, exponent) = match number.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (number, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let point = i64::try_from(whole.len()).ok()? + i64::from(exponent) + i64::from(places);
    let point = usize::try_from(point.max(0)).ok()?;
    let cut = point.min(digits.len());
    let is_rounded = digits.bytes().skip(cut).any(|digit| digit != b'0');
    let kept = digits.get(..cut)?.trim_start_matches('0');
    let n_zeros = point - cut;
    if kept.is_empty() {
        return Some(u64::from(is_rounded));
    }
    if kept.len() + n_zeros > DIGITS_MOST {
        return None;
    }
    let value: u64 = format!("{kept}{}", "0".repeat(n_zeros)).parse().ok()?;
    value.checked_add(u64::from(is_rounded))
}

impl fmt::Display for MicroUsd {
    /// As `$0.000125`: at least two digits, and no more than are needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, micro) = (self.0 / PER_USD, self.0 % PER_USD);
        let digits = format!("{micro:06}");
        let cents = &digits[..2];
        let rest = digits[2..].trim_end_matches('0');
        write!(f, "${whole}.{cents}{rest}")
    }
}

impl FromStr for MicroUsd {
    type Err = NoAmount;

    fn from_str(text: &str) -> Result<Self, NoAmount> {
        let number = text.trim().trim_start_matches('$');
        decimal(number, 6).map(Self).ok_or_else(|| NoAmount {
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_rounded_up_and_shown_whole() {
        for (usd, micro, shown) in [
            (0.0, 0, "$0.00"),
            (0.000_000_1, 1, "$0.000001"),
            (0.07, 70_000, "$0.07"),
            (0.25, 250_000, "$0.25"),
            (1.000_5, 1_000_500, "$1.0005"),
            (1234.5, 1_234_500_000, "$1234.50"),
        ] {
            let amount = MicroUsd::at_least(usd).unwrap();
            assert_eq!((amount.0, &*amount.to_string()), (micro, shown));
        }
        for usd in [-0.1, f64::NAN, f64::INFINITY, 1e19, 1e300] {
            assert_eq!(MicroUsd::at_least(usd), None, "{usd}");
        }
    }

    #[test]
    fn texts_are_amounts_or_an_error_that_shows_them() {
        assert_eq!("$0.5".parse(), Ok(MicroUsd(500_000)));
        assert_eq!(" 2 ".parse(), Ok(MicroUsd(2_000_000)));
        let error = "two".parse::<MicroUsd>().unwrap_err().to_string();
        assert!(error.contains("\"two\""), "{error}");
    }

    #[test]
    fn sums_stay_in_bounds() {
        let most = MicroUsd(u64::MAX);
        assert_eq!(most.plus(MicroUsd(1)), most);
        assert_eq!(MicroUsd(1).minus(MicroUsd(2)), MicroUsd::ZERO);
    }
}
