//! A team's file.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Team;
use crate::config::document::{Node, Problem, Reading, Table};
use crate::config::router::Preferences;

const KEYS: [&str; 9] = [
    "primary_provider",
    "model_preferences",
    "routing_hints",
    "preferences",
    "acceptable_models",
    "strategy",
    "enable_fallback",
    "privacy",
    "deadline_ms",
];

/// Reads the file's text into `team`; `file` is what it is called in messages.
///
/// Errors: all that is wrong, with lines.
pub(super) fn team(text: &str, file: &str, mut team: Team) -> Result<Team, Vec<Problem>> {
    let node = Node::from_yaml(text, file).map_err(|problem| vec![problem])?;
    let reading = Reading::new(file);
    let root = reading.table(&node, "");
    root.only(&["llm_preferences"]);
    if let Some(table) = root.table("llm_preferences") {
        table.only(&KEYS);
        fill(&table, &mut team);
    }
    reading.finish(team)
}

fn fill(table: &Table<'_>, team: &mut Team) {
    team.primary_provider = table.text("primary_provider").map(str::to_owned);
    team.model_preferences = table.texts("model_preferences").unwrap_or_default();
    team.routing_hints = hints(table);
    if let Some(preferences) = table.table("preferences") {
        team.preferences = Preferences::read(&preferences);
    }
    if let Some(strategy) = table.parsed("strategy") {
        team.preferences.strategy = Some(strategy);
    }
    if let Some(models) = table.texts("acceptable_models") {
        team.preferences.acceptable_models = Some(models);
    }
    team.enable_fallback = table.bool("enable_fallback");
    team.privacy = table.parsed("privacy");
    let millis = table.whole("deadline_ms", 1..=86_400_000);
    team.deadline = millis.map(Duration::from_millis);
}

fn hints(table: &Table<'_>) -> BTreeMap<String, crate::config::router::Strategy> {
    let Some(hints) = table.table("routing_hints") else {
        return BTreeMap::new();
    };
    let entries = hints.entries().filter_map(|entry| {
        let strategy = hints.parsed(&entry.key)?;
        Some((entry.key.clone(), strategy))
    });
    entries.collect()
}
