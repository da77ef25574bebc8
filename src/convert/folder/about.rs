//! What is said of a model that nothing computes with: its name and size, and how to draw its tokens.
//!
//! Source: the rules of gguf-py's `metadata.py`, by which a folder's name says what it holds. Model cards
//! are not read.

use std::path::Path;

use serde::Deserialize;

use super::super::{Error, files};
use crate::gguf::{Value, Writer};

/// How the model's makers draw tokens.
#[derive(Default, Deserialize)]
struct Drawing {
    top_k: Option<i32>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    temperature: Option<f64>,
}

/// Writes the keys that say it.
///
/// Errors: a file is there and cannot be read.
#[expect(
    clippy::cast_possible_truncation,
    reason = "single precision is what the keys have"
)]
pub(super) fn write(folder: &Path, n_weights: u64, writer: &mut Writer) -> Result<(), Error> {
    writer.key("general.type", Value::Str(b"model"));
    let path = folder.join("generation_config.json");
    // Not every such file is what it should be, and nothing depends on it.
    let drawing = match files::opt_json::<Drawing>(&path) {
        Ok(drawing) => drawing.unwrap_or_default(),
        Err(Error::Content { .. }) => Drawing::default(),
        Err(error) => return Err(error),
    };
    if let Some(top_k) = drawing.top_k {
        writer.key("general.sampling.top_k", Value::I32(top_k));
    }
    let floats = [
        ("top_p", drawing.top_p),
        ("min_p", drawing.min_p),
        ("temp", drawing.temperature),
    ];
    for (key, value) in floats {
        if let Some(value) = value {
            let key = format!("general.sampling.{key}");
            writer.key(&key, Value::F32(value as f32));
        }
    }
    // Of `.` and the like, the name it has above.
    let whole = folder.canonicalize().map_err(Error::io(folder))?;
    let id = whole.file_name().unwrap_or_default().to_string_lossy();
    let name = Name::of(&id, n_weights);
    let texts = [
        ("name", Some(title(&id))),
        ("version", name.version),
        ("finetune", name.finetune),
        ("basename", name.basename),
        (
            "size_label",
            Some(name.size.unwrap_or_else(|| size_label(n_weights))),
        ),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            writer.key(&format!("general.{key}"), Value::Str(text.as_bytes()));
        }
    }
    Ok(())
}

/// Words begin with capitals, but for versions and numbers.
fn title(id: &str) -> String {
    let word = |word: &str| {
        let has_case = word.chars().any(char::is_alphabetic);
        let is_lower = has_case && word.chars().all(|c| !c.is_uppercase());
        let is_number = word.starts_with(|c: char| c.is_ascii_digit())
            || word.strip_prefix('v').is_some_and(is_version);
        if !is_lower || is_number {
            return word.to_owned();
        }
        let mut after_letter = false;
        let mut titled = String::new();
        for c in word.chars() {
            if after_letter {
                titled.push(c);
            } else {
                titled.extend(c.to_uppercase());
            }
            after_letter = c.is_alphabetic();
        }
        titled
    };
    let words: Vec<String> = id.replace('-', " ").split_whitespace().map(word).collect();
    words.join(" ")
}

/// Whether a text is of numbers with points between.
fn is_version(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    text.split('.').all(is_number)
}

/// What a part of a folder's name says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Nothing,
    Base,
    Size,
    Finetune,
    Version,
    Type,
}

/// What a folder's name says: `Llama-3.1-8B-Instruct` has a base, a version, a size and a finetune.
#[derive(Debug, Default, PartialEq, Eq)]
struct Name {
    basename: Option<String>,
    finetune: Option<String>,
    version: Option<String>,
    size: Option<String>,
}

impl Name {
    fn of(id: &str, n_weights: u64) -> Self {
        if id.contains(' ') {
            return Self::default();
        }
        let parts = id.split('-').filter(|part| !part.is_empty()).enumerate();
        let mut parts: Vec<(String, Part)> = parts
            .map(|(idx, part)| annotate(idx, part, n_weights))
            .collect();
        let has_number = |(text, part): &(String, Part)| {
            *part == Part::Size && text.bytes().any(|b| b.is_ascii_digit())
        };
        if parts.iter().any(has_number) {
            let words = parts
                .iter_mut()
                .filter(|it| it.1 == Part::Size && !has_number(it));
            words.for_each(|word| word.1 = Part::Nothing);
        }
        // The base is what the name begins with, versions in it, but not behind it.
        let begins = |(text, part): &&(String, Part)| match part {
            Part::Nothing => text.starts_with(char::is_alphabetic),
            part => *part == Part::Version,
        };
        let mut n_base = parts.iter().take_while(begins).count();
        if n_base == parts.len() {
            let at_end = parts.iter().rev().take_while(|it| it.1 == Part::Version);
            n_base -= at_end.count();
        }
        for (idx, (_, part)) in parts.iter_mut().enumerate() {
            if idx < n_base {
                *part = Part::Base;
            } else if *part == Part::Nothing {
                *part = Part::Finetune;
            }
        }
        let of = |wanted: Part| {
            let mut texts: Vec<&str> = Vec::new();
            for (text, part) in &parts {
                let is_again = wanted == Part::Size && texts.contains(&&**text);
                if *part == wanted && !is_again {
                    texts.push(text);
                }
            }
            (!texts.is_empty()).then(|| texts.join("-"))
        };
        let mut name = Self {
            basename: of(Part::Base),
            finetune: of(Part::Finetune),
            version: of(Part::Version),
            size: of(Part::Size),
        };
        if name.size.is_none() && name.finetune.is_none() && name.version.is_none() {
            name.basename = None;
        }
        name
    }
}

/// What one part of a name says by itself, in the spelling the file has.
fn annotate(idx: usize, part: &str, n_weights: u64) -> (String, Part) {
    let lower = part.to_ascii_lowercase();
    let number = lower
        .strip_prefix('v')
        .or(lower.strip_prefix("iter"))
        .unwrap_or(&lower);
    if is_version(number) {
        return (part.to_owned(), Part::Version);
    }
    if is_type(&lower) {
        return (part.to_ascii_uppercase(), Part::Type);
    }
    if idx > 0 && ["small", "mini", "medium", "large", "xl", "xxl"].contains(&&*lower) {
        return (part.to_owned(), Part::Size);
    }
    if idx > 0
        && let Some((text, n_said)) = size(part)
    {
        // A number far from the weights' is of something else, such as a context.
        let far = (n_said - n_weights as f64).abs() > (7 * n_weights / 8) as f64;
        if n_weights > 0 && far {
            let (number, unit) = text.split_at(text.len() - 1);
            return (
                number.to_owned() + &unit.to_ascii_lowercase(),
                Part::Finetune,
            );
        }
        return (text, Part::Size);
    }
    if idx > 0 && ["chat", "instruct", "vision", "lora"].contains(&&*lower) {
        return (part.to_owned(), Part::Finetune);
    }
    (part.to_owned(), Part::Nothing)
}

/// Whether a part names a type of weights.
fn is_type(lower: &str) -> bool {
    let float = lower.strip_prefix('b').unwrap_or(lower);
    let float = float.strip_prefix("fp").or(float.strip_prefix('f'));
    let quant = lower.strip_prefix('i').unwrap_or(lower).strip_prefix('q');
    let is_quant = |rest: &str| {
        let mut parts = rest.split('_');
        let is_digit = parts
            .next()
            .is_some_and(|it| it.len() == 1 && is_version(it));
        is_digit && parts.all(|it| it.len() == 1)
    };
    matches!(float, Some("16" | "32")) || quant.is_some_and(is_quant)
}

/// A size such as `8B`, `1.7b` or `8x7B`: in capitals, and how many weights it means.
fn size(part: &str) -> Option<(String, f64)> {
    let text = part.replace('_', ".");
    let unit = text
        .chars()
        .next_back()
        .filter(|c| "kmbtKMBT".contains(*c))?;
    let number = &text[..text.len() - 1];
    let plain =
        number.split_once(['x', 'X']).map_or(
            number,
            |(count, size)| {
                if is_version(count) { size } else { number }
            },
        );
    let plain = plain.strip_prefix(['A', 'a']).unwrap_or(plain);
    let is_number = is_version(plain) && plain.split('.').count() <= 2;
    let power = " KMBT".find(unit.to_ascii_uppercase())?;
    is_number.then(|| {
        let text = format!("{number}{}", unit.to_ascii_uppercase());
        // Sizes of several experts are not compared.
        let value: f64 = number.parse().unwrap_or(f64::NAN);
        (
            text,
            value * 1000_f64.powi(i32::try_from(power).unwrap_or(0)),
        )
    })
}

/// A number of weights in two digits or more.
fn size_label(n_weights: u64) -> String {
    let units = [(1e12, "T"), (1e9, "B"), (1e6, "M")];
    let n_weights = n_weights as f64;
    let unit = units.into_iter().find(|(unit, _)| n_weights > *unit);
    let (unit, suffix) = unit.unwrap_or((1e3, "K"));
    let scaled = n_weights / unit;
    let n_digits = format!("{scaled:.0}").trim_start_matches('0').len();
    let decimals = 2_usize.saturating_sub(n_digits);
    format!("{scaled:.decimals$}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folders_name_says_what_it_holds() {
        let some = |text: &str| Some(text.to_owned());
        let name = Name::of("Llama-3.2-1B-Instruct", 1_235_814_400);
        assert_eq!(
            (name.basename, name.size, name.finetune, name.version),
            (some("Llama-3.2"), some("1B"), some("Instruct"), None)
        );
        let name = Name::of("Mistral-7B-Instruct-v0.3", 7_248_023_552);
        assert_eq!(
            (name.basename, name.size, name.finetune, name.version),
            (some("Mistral"), some("7B"), some("Instruct"), some("v0.3"))
        );
        assert_eq!(Name::of("narrow_mistral", 5), Name::default());
        let name = Name::of("Yarn-Llama-2-7b-64k", 6_738_415_616);
        assert_eq!((name.size, name.finetune), (some("7B"), some("64k")));
        assert_eq!(title("tiny-llama-v1.1 3b"), "Tiny Llama v1.1 3b");
        assert_eq!(title("Narrow_mistral x"), "Narrow_mistral X");
    }

    #[test]
    fn sizes_have_two_digits_or_more() {
        assert_eq!(size_label(23_100_000), "23M");
        assert_eq!(size_label(8_030_261_248), "8.0B");
        assert_eq!(size_label(134_515_008), "135M");
        assert_eq!(size_label(420), "0.42K");
    }
}
