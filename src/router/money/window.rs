//! Windows of time that limits hold for: minutes, days and months of the calendar, in UTC.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Datelike, Months, NaiveDate, SecondsFormat, Utc};

use crate::limit::Per;

const MINUTE: i64 = 60_000;
pub(super) const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The last day anything is counted on: the calendar goes no farther.
const LAST: i64 = 253_370_764_800_000;

/// A moment. Units: milliseconds since 1970 in UTC, within 1970 to 9998.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(i64);

impl Moment {
    /// So many milliseconds after the beginning of 1970; the nearest there is.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(0, LAST))
    }

    /// By the system's clock.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = since.map_or(0, |since| since.as_millis());
        Self::from_millis(i64::try_from(millis).unwrap_or(LAST))
    }

    /// Of a day (`2026-11-26`) its beginning, or of a time (`2026-11-26T10:00:00Z`).
    pub fn read(text: &str) -> Option<Self> {
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Some(Self::from_millis(time.timestamp_millis()));
        }
        let day: NaiveDate = text.parse().ok()?;
        let midnight = day.and_hms_opt(0, 0, 0)?.and_utc();
        Some(Self::from_millis(midnight.timestamp_millis()))
    }

    /// Milliseconds since 1970.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// From `earlier` until this; nothing where that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// So much later.
    pub fn after(self, time: Duration) -> Self {
        let millis = i64::try_from(time.as_millis()).unwrap_or(LAST);
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// So much earlier.
    pub fn before(self, time: Duration) -> Self {
        let millis = i64::try_from(time.as_millis()).unwrap_or(LAST);
        Self::from_millis(self.0.saturating_sub(millis))
    }

    /// The hour it lies in, counted from 1970.
    pub(super) fn hour(self) -> i64 {
        self.0.div_euclid(HOUR)
    }

    /// The first moment of an hour, counted from 1970.
    pub(super) fn of_hour(hour: i64) -> Self {
        Self::from_millis(hour.saturating_mul(HOUR))
    }

    fn utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or_default()
    }
}

impl fmt::Display for Moment {
    /// As `2026-11-26T10:00:00Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.utc().to_rfc3339_opts(SecondsFormat::Secs, true))
    }
}

impl Per {
    /// When the window began that `now` lies in.
    pub fn start(self, now: Moment) -> Moment {
        match self {
            Self::Minute => Moment(now.0 - now.0.rem_euclid(MINUTE)),
            Self::Day => Moment(now.0 - now.0.rem_euclid(DAY)),
            Self::Month => {
                let day = now.utc().date_naive();
                let first = day.with_day(1).unwrap_or(day);
                let midnight = first.and_time(chrono::NaiveTime::MIN).and_utc();
                Moment(midnight.timestamp_millis())
            }
        }
    }

    /// When the window ends that `now` lies in, and the next begins.
    pub fn end(self, now: Moment) -> Moment {
        let start = self.start(now);
        match self {
            Self::Minute => Moment(start.0 + MINUTE),
            Self::Day => Moment(start.0 + DAY),
            Self::Month => {
                let next = start.utc().checked_add_months(Months::new(1));
                Moment(next.map_or(LAST, |next| next.timestamp_millis()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(per: Per, text: &str) -> (String, String) {
        let now = Moment::read(text).unwrap();
        (per.start(now).to_string(), per.end(now).to_string())
    }

    #[test]
    fn windows_are_those_of_the_calendar() {
        for (per, now, start, end) in [
            (
                Per::Minute,
                "2026-11-26T10:20:59.999Z",
                "2026-11-26T10:20:00Z",
                "2026-11-26T10:21:00Z",
            ),
            (
                Per::Minute,
                "2026-12-31T23:59:30Z",
                "2026-12-31T23:59:00Z",
                "2027-01-01T00:00:00Z",
            ),
            (
                Per::Day,
                "2026-11-26T23:59:59Z",
                "2026-11-26T00:00:00Z",
                "2026-11-27T00:00:00Z",
            ),
            // An hour after midnight there, the day before here.
            (
                Per::Day,
                "2026-11-26T00:59:59+01:00",
                "2026-11-25T00:00:00Z",
                "2026-11-26T00:00:00Z",
            ),
            (
                Per::Month,
                "2024-02-29T12:00:00Z",
                "2024-02-01T00:00:00Z",
                "2024-03-01T00:00:00Z",
            ),
            (
                Per::Month,
                "2026-12-31",
                "2026-12-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
            ),
            (
                Per::Month,
                "2027-01-01",
                "2027-01-01T00:00:00Z",
                "2027-02-01T00:00:00Z",
            ),
        ] {
            let expected = (start.to_owned(), end.to_owned());
            assert_eq!(window(per, now), expected, "{per} of {now}");
        }
        for text in ["", "yesterday", "2026-02-30", "2026-11-26 10:00"] {
            assert_eq!(Moment::read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_lies_in_one_window_and_no_clock_breaks_it(millis in any::<i64>()) {
            for now in [Moment::from_millis(millis), Moment::from_millis(millis.rem_euclid(LAST))] {
                for per in Per::ALL {
                    let (start, end) = (per.start(now), per.end(now));
                    prop_assert!(start <= now && now < end, "{per} {now}");
                    prop_assert_eq!(per.start(start), start);
                    prop_assert_eq!(per.end(Moment(end.0 - 1)), end);
                    prop_assert_eq!(per.start(end), end);
                }
            }
        }
    }
}
