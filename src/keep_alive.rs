//! F0: how long a model stays in memory once nobody uses it, and how people and programs say so.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// How long a model stays in memory once nobody uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepAlive {
    /// Until others need its memory.
    #[default]
    UntilNeeded,
    /// So long, or until others need its memory.
    For(Duration),
    /// Until it is told to leave, whatever others need.
    Pinned,
}

/// A text or number that says no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no time: write seconds (300) or a number with a unit (90s, 10m, 1h30m), 0 to unload at \
     once, -1 to keep it for ever"
)]
pub struct NoTime {
    /// What was said.
    pub text: String,
}

/// The longest time that is told from for ever: a hundred years.
const LONGEST_SECONDS: f64 = 100.0 * 365.0 * 24.0 * 3600.0;

impl KeepAlive {
    /// From a number of seconds; a negative one is for ever.
    ///
    /// # Errors
    /// [`NoTime`] for what is no number.
    pub fn from_seconds(seconds: f64) -> Result<Self, NoTime> {
        if seconds.is_nan() {
            let text = seconds.to_string();
            return Err(NoTime { text });
        }
        let is_time = (0.0..=LONGEST_SECONDS).contains(&seconds);
        let time = Duration::try_from_secs_f64(seconds).ok();
        Ok(time.filter(|_| is_time).map_or(Self::Pinned, Self::For))
    }
}

/// Seconds, or a duration as Go writes it: `90`, `1.5s`, `1h30m`; a minus makes it for ever.
impl FromStr for KeepAlive {
    type Err = NoTime;

    fn from_str(text: &str) -> Result<Self, NoTime> {
        let no_time = || NoTime {
            text: text.to_owned(),
        };
        let (is_negative, rest) = match text.trim().strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.trim()),
        };
        let seconds = seconds(rest).ok_or_else(no_time)?;
        Self::from_seconds(if is_negative { -seconds } else { seconds })
    }
}

/// The sum of all numbers with units; one number alone is of seconds.
fn seconds(text: &str) -> Option<f64> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    if !text.is_empty() && text.bytes().all(is_digit) {
        return text.parse().ok();
    }
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.bytes().position(|byte| !is_digit(byte))?;
        let (number, after) = rest.split_at(end);
        let end = after.bytes().position(is_digit).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let each = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * each;
        rest = after;
    }
    (!text.is_empty()).then_some(sum)
}

impl fmt::Display for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UntilNeeded => f.write_str("until needed"),
            Self::For(time) => write!(f, "{}s", time.as_secs_f64()),
            Self::Pinned => f.write_str("for ever"),
        }
    }
}

impl<'de> Deserialize<'de> for KeepAlive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Said)
    }
}

struct Said;

impl Visitor<'_> for Said {
    type Value = KeepAlive;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seconds, or a time such as 10m")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<KeepAlive, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<KeepAlive, E> {
        KeepAlive::from_seconds(seconds).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<KeepAlive, E> {
        self.visit_f64(seconds as f64)
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<KeepAlive, E> {
        self.visit_f64(seconds as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: f64) -> KeepAlive {
        KeepAlive::For(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn times_are_read_as_go_writes_them_or_as_seconds() {
        for (text, seconds) in [
            ("300", 300.0),
            ("0", 0.0),
            ("5m", 300.0),
            ("1h30m", 5400.0),
            ("1.5h", 5400.0),
            (" 90s ", 90.0),
            ("250ms", 0.25),
            ("1s1ns", 1.000_000_001),
        ] {
            assert_eq!(text.parse(), Ok(time(seconds)), "{text}");
        }
        for text in ["-1", "-1s", "-5m", "900000000000000000h", "99999999999"] {
            assert_eq!(text.parse(), Ok(KeepAlive::Pinned), "{text}");
        }
        for text in [
            "", "-", "m", "5x", "5m3", "1..5s", "..", "h5", "5 m", "nan", "1e9", "5µ",
        ] {
            let error = text.parse::<KeepAlive>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{text:?} is no time")),
                "{error}"
            );
        }
    }

    #[test]
    fn json_says_it_as_a_number_or_a_text() {
        let read = |json: &str| serde_json::from_str::<KeepAlive>(json);
        assert_eq!(read("300").ok(), Some(time(300.0)));
        assert_eq!(read("-1").ok(), Some(KeepAlive::Pinned));
        assert_eq!(read("0.5").ok(), Some(time(0.5)));
        assert_eq!(read("\"10m\"").ok(), Some(time(600.0)));
        assert!(read("true").is_err() && read("\"soon\"").is_err() && read("null").is_err());
    }
}
