//! The table of prices as a file: what a person or a script writes, and what is wrong with it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::Error as _;

use super::{Listed, ModelFacts};
use crate::money::MicroUsd;
use crate::price::{Long, Price, Rate, Tokens};

/// Why a table cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// No table, or fields nobody knows.
    #[error("{0}")]
    Form(String),
    /// A text that names no entry, or one that itself names another.
    #[error(
        "{provider} \"{model}\" = \"{same_as}\": there is no such entry with a price of its own"
    )]
    NoSuchEntry {
        /// Whose.
        provider: String,
        /// Of which model.
        model: String,
        /// What was named.
        same_as: String,
    },
    /// One model twice.
    #[error("{provider} \"{model}\" is there twice: leave one out")]
    Twice {
        /// Whose.
        provider: String,
        /// Of which model.
        model: String,
    },
}

/// What stands at the head of a table, about the table.
const ABOUT: [&str; 2] = ["date", "source"];

enum Said {
    SameAs(String),
    Entry(Entry),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    prompt: Usd,
    completion: Usd,
    cached_read: Option<Usd>,
    cache_write: Option<Usd>,
    cache_write_long: Option<Usd>,
    long: Option<LongEntry>,
    #[serde(default)]
    per_request: Usd,
    #[serde(default)]
    also: Vec<String>,
    context: Option<u32>,
    max_output: Option<u32>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct LongEntry {
    from: u32,
    prompt: Usd,
    completion: Usd,
    cached_read: Option<Usd>,
    cache_write: Option<Usd>,
    cache_write_long: Option<Usd>,
}

/// Dollars, exactly as they were written.
#[derive(Clone, Copy, Default)]
struct Usd(Rate);

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a price is a number of dollars such as 0.15")]
        enum Number {
            Whole(u64),
            Float(f64),
            Text(String),
        }
        let text = match Number::deserialize(from)? {
            Number::Whole(dollars) => dollars.to_string(),
            // The shortest text that reads as this float is what was written.
            Number::Float(dollars) => dollars.to_string(),
            Number::Text(dollars) => dollars,
        };
        Rate::per_million(&text).map(Self).map_err(D::Error::custom)
    }
}

fn tokens(prompt: Usd, completion: Usd, caches: [Option<Usd>; 3]) -> Tokens {
    let [cached_read, cache_write, cache_write_long] = caches;
    let cache_write = cache_write.unwrap_or(prompt);
    Tokens {
        prompt: prompt.0,
        completion: completion.0,
        cached_read: cached_read.unwrap_or(prompt).0,
        cache_write: cache_write.0,
        cache_write_long: cache_write_long.unwrap_or(cache_write).0,
    }
}

impl Entry {
    fn facts(&self) -> ModelFacts {
        let caches = [self.cached_read, self.cache_write, self.cache_write_long];
        let long = self.long.map(|long| {
            let caches = [long.cached_read, long.cache_write, long.cache_write_long];
            Long {
                from: long.from,
                tokens: tokens(long.prompt, long.completion, caches),
            }
        });
        ModelFacts {
            price: Price {
                tokens: tokens(self.prompt, self.completion, caches),
                long,
                // Of one dollar, a million micro-dollars.
                per_request: MicroUsd(self.per_request.0.0),
                per_hour: MicroUsd::ZERO,
            },
            context: self.context,
            max_output: self.max_output,
        }
    }
}

/// Reads a table.
///
/// # Errors
/// [`TableError`].
pub(super) fn parse(text: &str) -> Result<Listed, TableError> {
    let said = said(text)?;
    let mut listed = Listed::new();
    for ((provider, model), said) in &said {
        let Said::Entry(entry) = said else { continue };
        for name in std::iter::once(model).chain(&entry.also) {
            put(&mut listed, provider, name, entry.facts())?;
        }
    }
    for ((provider, model), one) in &said {
        let Said::SameAs(same_as) = one else { continue };
        let named = same_as.split_once(':');
        let named = named.map(|(provider, model)| (provider.to_owned(), model.to_owned()));
        match named.and_then(|named| said.get(&named)) {
            Some(Said::Entry(entry)) => put(&mut listed, provider, model, entry.facts())?,
            _ => {
                return Err(TableError::NoSuchEntry {
                    provider: provider.clone(),
                    model: model.clone(),
                    same_as: same_as.clone(),
                });
            }
        }
    }
    Ok(listed)
}

/// What is said of each model of each provider.
fn said(text: &str) -> Result<BTreeMap<(String, String), Said>, TableError> {
    let file: toml::Table =
        toml::from_str(text).map_err(|error| TableError::Form(one_line(&error)))?;
    let mut all = BTreeMap::new();
    for (provider, models) in file {
        if ABOUT.contains(&&*provider) {
            continue;
        }
        let toml::Value::Table(models) = models else {
            let problem = format!("{provider}: there must be a table of models here");
            return Err(TableError::Form(problem));
        };
        for (model, value) in models {
            let said = match value {
                toml::Value::String(same_as) => Said::SameAs(same_as),
                value => Said::Entry(value.try_into().map_err(|error| {
                    TableError::Form(format!("{provider} {model:?}: {}", one_line(&error)))
                })?),
            };
            all.insert((provider.clone(), model), said);
        }
    }
    Ok(all)
}

fn put(
    listed: &mut Listed,
    provider: &str,
    model: &str,
    facts: ModelFacts,
) -> Result<(), TableError> {
    let models = listed.entry(provider.to_owned()).or_default();
    if models.insert(model.to_owned(), facts).is_some() {
        return Err(TableError::Twice {
            provider: provider.to_owned(),
            model: model.to_owned(),
        });
    }
    Ok(())
}

/// The place and what is wrong there, without the lines of the file.
fn one_line(error: &toml::de::Error) -> String {
    let shown = error.to_string();
    let place = shown.lines().next().unwrap_or_default();
    let message = error.message().replace('\n', ", ");
    match place.strip_prefix("TOML parse error at ") {
        Some(place) => format!("{place}: {message}"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_all_or_names_another() {
        let listed = parse(
            "date = '2026-01-01'\n[a]\n'm' = { prompt = 0.1, completion = 2, also = ['m-1'], per_request = 0.5, \
             cached_read = '0.05', long = { from = 9, prompt = 1, completion = 3 }, context = 10 }\n[b]\n'x/m' = 'a:m'\n",
        )
        .unwrap();
        let facts = &listed["b"]["x/m"];
        assert_eq!(facts, &listed["a"]["m-1"]);
        assert_eq!(facts.context, Some(10));
        let tokens = facts.price.tokens;
        assert_eq!((tokens.prompt.0, tokens.cached_read.0), (100_000, 50_000));
        assert_eq!(tokens.cache_write, tokens.prompt);
        assert_eq!(facts.price.per_request, MicroUsd(500_000));
        assert_eq!(facts.price.long.unwrap().tokens.cached_read.0, 1_000_000);
    }

    #[test]
    fn what_cannot_be_is_told_with_its_place() {
        for (text, expected) in [
            (
                "[a]\n'm' = { prompt = 1 }\n",
                "a \"m\": missing field `completion`",
            ),
            (
                "[a]\n'm' = { prompt = -1.0, completion = 1 }\n",
                "\"-1\" is no price",
            ),
            (
                "[a]\n'm' = { prompt = 1, completion = 1, cache = 1 }\n",
                "unknown field `cache`",
            ),
            ("[a]\nm = 'b:m'\n", "no such entry"),
            ("[a]\nm = 'a:n'\nn = 'a:m'\n", "no such entry"),
            (
                "[a]\nm = { prompt = 1, completion = 1, also = ['m'] }\n",
                "twice",
            ),
            ("a = 3\n", "a: there must be a table"),
            ("[a\n", "line 1"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
    }
}
