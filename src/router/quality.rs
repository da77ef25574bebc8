//! How good a model's answers are: a table of scores with their sources, and a file over it. A model that nobody scored
//! has no score, which is not the same as a bad one.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::document::{Node, Problem, Reading, read_bounded};

/// The table of the program.
const EMBEDDED: &str = include_str!("../../models/quality.toml");
/// No table is longer. Units: bytes.
const MAX_BYTES: u64 = 4 << 20;

/// A score and where it comes from.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Score {
    /// From 0 to 1.
    pub score: f64,
    /// Who says so.
    pub source: String,
    /// When that was published.
    pub date: String,
}

/// The scores of models.
#[derive(Clone, Debug, Default)]
pub struct Quality {
    /// By [`plain`] name.
    scores: BTreeMap<String, Score>,
}

impl Quality {
    /// The table of the program, and the file over it.
    ///
    /// # Errors
    /// All that is wrong with the file.
    pub fn new(file: Option<&Path>) -> Result<Self, Vec<Problem>> {
        let mut quality = Self::default();
        quality.extend(EMBEDDED, "quality.toml")?;
        if let Some(path) = file {
            let text = read_bounded(path, MAX_BYTES).map_err(|problem| vec![problem])?;
            quality.extend(&text, &path.display().to_string())?;
        }
        Ok(quality)
    }

    fn extend(&mut self, text: &str, file: &str) -> Result<(), Vec<Problem>> {
        let node = Node::from_toml(text, file).map_err(|problem| vec![problem])?;
        let reading = Reading::new(file);
        let root = reading.table(&node, "");
        root.only(&["date", "models"]);
        let models = root.table("models").map(|models| models.tables());
        for (name, table) in models.unwrap_or_default() {
            table.only(&["score", "source", "date", "also"]);
            for key in ["score", "source", "date"] {
                if !table.has(key) {
                    table.refuse_it(format!("its {key} is missing"));
                }
            }
            let score = Score {
                score: table.number("score", 0.0..=1.0).unwrap_or_default(),
                source: table.text("source").unwrap_or_default().to_owned(),
                date: table.text("date").unwrap_or_default().to_owned(),
            };
            for also in table.texts("also").unwrap_or_default() {
                self.scores.insert(plain(&also), score.clone());
            }
            self.scores.insert(plain(name), score);
        }
        reading.finish(())
    }

    /// The score of the model with these names, the most particular first.
    pub fn of<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Option<&Score> {
        let mut names = names.into_iter().map(plain);
        names.find_map(|name| {
            let exact = self.scores.get(&name);
            exact.or_else(|| self.scores.get(without_date(&name)))
        })
    }
}

/// A model's name without its author, its variant at OpenRouter and capitals; versions have dashes.
fn plain(name: &str) -> String {
    let slug = name.rsplit_once('/');
    let name = slug.map_or(name, |(_, name)| {
        name.split_once(':').map_or(name, |(name, _)| name)
    });
    name.to_lowercase().replace('.', "-")
}

/// Without the date at its end: `-20240229`, `-2024-08-06`, `-0613`; or `-latest`.
fn without_date(name: &str) -> &str {
    if let Some(name) = name.strip_suffix("-latest") {
        return name;
    }
    let is_end = |c: char| c.is_ascii_digit() || c == '-';
    let kept = name.trim_end_matches(is_end);
    let end = &name[kept.len()..];
    for n_chars in [11, 9, 5] {
        let Some(at) = end.len().checked_sub(n_chars) else {
            continue;
        };
        let date = &end[at..];
        let is_date = match n_chars {
            11 => date.matches('-').count() == 3,
            _ => date.starts_with('-') && date.matches('-').count() == 1,
        };
        if is_date {
            return &name[..kept.len() + at];
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_dates_and_variants_do_not_matter() {
        let quality = Quality::new(None).unwrap();
        let gpt_4 = quality.of(["gpt-4"]).unwrap();
        for name in ["openai/gpt-4", "gpt-4-0613", "openai/gpt-4:nitro", "GPT-4"] {
            assert_eq!(quality.of([name]), Some(gpt_4), "{name}");
        }
        assert!(quality.of(["claude-3-opus-20240229"]).is_some());
        assert!(quality.of(["anthropic/claude-3-haiku"]).is_some());
        assert!(quality.of(["gpt-3.5-turbo-0125"]).is_some());
        for name in ["gpt-4-nova", "nobody", "openrouter/auto", "gpt-4-2"] {
            assert_eq!(quality.of([name]), None, "{name}");
        }
        assert_eq!(without_date("a-2024-08-06"), "a");
        assert_eq!(without_date("2024"), "2024");
    }

    #[test]
    fn a_file_replaces_and_extends_and_names_its_mistakes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.toml");
        std::fs::write(&path, "[models]\ngpt-4 = { score = 0.5, source = \"own\", date = \"2026-01-01\" }\n\"a:b\" = { score = 1, source = \"own\", date = \"d\" }\n").unwrap();
        let quality = Quality::new(Some(&path)).unwrap();
        assert_eq!(quality.of(["gpt-4"]).unwrap().score, 0.5);
        assert_eq!(quality.of(["a:b"]).unwrap().score, 1.0);
        assert!(quality.of(["claude-3-opus"]).is_some());
        std::fs::write(&path, "[models]\na = { score = 7, sorce = \"own\" }\n").unwrap();
        let problems = Quality::new(Some(&path)).unwrap_err();
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(shown.len(), 4, "{shown:?}");
        assert!(shown[0].contains("line 2: there is no such key: did you mean source?"));
    }

    #[test]
    fn every_score_has_a_source_and_a_date() {
        let quality = Quality::new(None).unwrap();
        for (name, score) in &quality.scores {
            assert!((0.0..=1.0).contains(&score.score), "{name}");
            assert!(!score.source.is_empty() && score.date.len() >= 4, "{name}");
        }
    }
}
