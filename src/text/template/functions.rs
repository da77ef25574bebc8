//! What chat templates may call beside the language itself.

use std::error::Error as _;
use std::time::{Duration, SystemTime};

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::pycompat;

use super::json;

/// A template's own verdict on a conversation.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

/// Adds the functions and filters published templates use.
pub(super) fn register(environment: &mut Environment<'_>) {
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", |format: &str| {
        strftime(format, SystemTime::now())
    });
    environment.add_filter("tojson", tojson);
    // For people at a debugger, and it writes out what it is given before anyone can count.
    environment.remove_filter("pprint");
    environment.remove_global("debug");
}

/// What `raise_exception` was called with, if that is why rendering failed.
pub(super) fn refusal(error: &Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(Refusal(reason)) = error.downcast_ref() {
            return Some(reason.chars().take(300).collect());
        }
        cause = error.source();
    }
    None
}

fn raise_exception(reason: &str) -> Result<Value, Error> {
    let error = Error::new(ErrorKind::InvalidOperation, reason.to_owned());
    Err(error.with_source(Refusal(reason.to_owned())))
}

/// Python's methods of texts, lists and maps.
fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    // The width of a format is memory that is not paid for.
    let digits = |text: &str| {
        text.split(|char: char| !char.is_ascii_digit())
            .map(str::len)
            .max()
    };
    if name == "format"
        && value
            .as_str()
            .and_then(digits)
            .is_some_and(|n_digits| n_digits > 3)
    {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "a format is wider than 999",
        ));
    }
    pycompat::unknown_method_callback(state, value, name, args)
}

/// `json.dumps` with `ensure_ascii=False`. Other than the library's own filter it leaves `<`, `>`,
/// `&` and `'` alone: a prompt is no web page.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature minijinja calls"
)]
fn tojson(state: &State<'_, '_>, value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let _: Option<bool> = kwargs.get("ensure_ascii")?;
    kwargs.assert_all_used()?;
    let pay = |n_bytes: usize| state.consume_fuel(u64::try_from(n_bytes).unwrap_or(u64::MAX));
    json::write(value, indent, &pay).map(Value::from)
}

/// The date in Greenwich, in the way of C's `strftime`. What is not known is written as it stands.
fn strftime(format: &str, now: SystemTime) -> String {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            text.push(char);
            continue;
        }
        let month_name = pick(&MONTHS, month - 1);
        let day_name = pick(&DAYS, days + 4);
        let part: String = match chars.next() {
            Some('Y') => format!("{year:04}"),
            Some('y') => format!("{:02}", year % 100),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('H') => format!("{:02}", seconds / 3600),
            Some('M') => format!("{:02}", seconds / 60 % 60),
            Some('S') => format!("{:02}", seconds % 60),
            Some('B') => month_name.into(),
            Some('b') => month_name.chars().take(3).collect(),
            Some('A') => day_name.into(),
            Some('a') => day_name.chars().take(3).collect(),
            Some('%') | None => "%".into(),
            Some(other) => format!("%{other}"),
        };
        text += &part;
    }
    text
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

fn pick<'a, const N: usize>(names: &[&'a str; N], number: u64) -> &'a str {
    usize::try_from(number).map_or("", |number| names[number % N])
}

/// Year, month (from 1) and day (from 1) of a day counted from 1970-01-01.
///
/// Counting goes by the 400 years after which the calendar repeats, from a 1st of March, so that
/// the leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months + 2) / 5 + 1;
    let month = if months < 10 { months + 3 } else { months - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let format = "%d %b %Y %H:%M:%S %A";
        assert_eq!(strftime(format, at(0)), "01 Jan 1970 00:00:00 Thursday");
        assert_eq!(
            strftime(format, at(951_782_399)),
            "28 Feb 2000 23:59:59 Monday"
        );
        assert_eq!(
            strftime(format, at(951_782_400)),
            "29 Feb 2000 00:00:00 Tuesday"
        );
        assert_eq!(
            strftime(format, at(4_107_542_400)),
            "01 Mar 2100 00:00:00 Monday"
        );
        assert_eq!(strftime("100%% %q%", at(0)), "100% %q%");
    }
}
