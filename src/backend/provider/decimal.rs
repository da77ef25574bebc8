//! Amounts as the wire writes them, read without a float between: `"0.0000025"` dollars are 2.5 micro-dollars, not
//! a little less.

use serde_json::Value;

use crate::money::MicroUsd;

/// Digits of a number, and of its exponent, that are read: more is nobody's price.
const DIGITS_MOST: usize = 40;

/// The smallest whole number of `10^-places` that is no less than the decimal number `text`; none for what is no
/// such number, less than nothing or too much to count.
pub(super) fn scaled_up(text: &str, places: i32) -> Option<u64> {
    let text = text.trim();
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || text.len() > DIGITS_MOST || exponent.abs() > 99 {
        return None;
    }
    // The value is `digits` times ten to this power, in the unit asked for.
    let power = exponent + places - i32::try_from(fraction.len()).ok()?;
    let number: u128 = digits.parse().ok()?;
    let scaled = if power >= 0 {
        let factor = 10u128.checked_pow(power.unsigned_abs());
        if number == 0 {
            0
        } else {
            number.checked_mul(factor?)?
        }
    } else {
        let divisor = 10u128.checked_pow(power.unsigned_abs());
        divisor.map_or(u128::from(number > 0), |divisor| number.div_ceil(divisor))
    };
    u64::try_from(scaled).ok()
}

/// Dollars as a number or a text, rounded up.
pub(super) fn usd(value: &Value) -> Option<MicroUsd> {
    scaled_up(&text(value)?, 6).map(MicroUsd)
}

/// Dollars a token, as micro-dollars a million tokens, rounded up.
pub(super) fn usd_per_token(value: &Value) -> Option<MicroUsd> {
    scaled_up(&text(value)?, 12).map(MicroUsd)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn decimals_are_exact_and_rounded_up() {
        for (text, micro) in [
            ("0.00014", Some(140)),
            ("0.000140000001", Some(141)),
            ("1.4e-4", Some(140)),
            ("0", Some(0)),
            ("0.0", Some(0)),
            ("0e99", Some(0)),
            ("1e-30", Some(1)),
            (".5", Some(500_000)),
            ("3.", Some(3_000_000)),
            ("18446744073709.551615", Some(u64::MAX)),
            ("18446744073709.551616", None),
            ("1e30", None),
            ("-1", None),
            ("", None),
            (".", None),
            ("NaN", None),
            ("1e999999999999", None),
        ] {
            assert_eq!(scaled_up(text, 6), micro, "{text}");
        }
    }

    #[test]
    fn prices_and_costs_are_read_as_numbers_and_as_texts() {
        assert_eq!(usd(&json!(0.00014)), Some(MicroUsd(140)));
        assert_eq!(usd(&json!("0.00014")), Some(MicroUsd(140)));
        assert_eq!(usd(&json!(0)), Some(MicroUsd(0)));
        assert_eq!(usd(&json!(-0.5)), None);
        assert_eq!(usd(&json!(null)), None);
        // 2.5 dollars a million tokens.
        assert_eq!(
            usd_per_token(&json!("0.0000025")),
            Some(MicroUsd(2_500_000))
        );
        assert_eq!(usd_per_token(&json!(2.5e-6)), Some(MicroUsd(2_500_000)));
    }
}
