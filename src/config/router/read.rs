//! Reads the settings: the file, then the variables over it.

use std::cell::RefCell;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::providers::{self, LOCAL_REMOTE, ProviderTimeouts};
use super::{Dialect, Preferences, ProviderSettings, RouterSettings, Strategy, address, chain};
use crate::config::document::{Node, Problem, Reading, Table, Value};
use crate::egress::Keeping;

/// The keys of the `[router]` table.
pub const KEYS: [&str; 17] = [
    "strategy",
    "fallback",
    "privacy",
    "deadline_ms",
    "local_timeout_ms",
    "local_preference",
    "openrouter_default_model",
    "preferences",
    "fallback_chain",
    "aliases",
    "local_hosts",
    "teams_folder",
    "teams",
    "hedge_budget",
    "max_tokens",
    "quality",
    "names",
];
/// A day: no request waits longer.
const MOST_MS: u64 = 86_400_000;

/// The variables of the environment, and what is wrong with those that were read.
pub struct Variables<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Variables<'a> {
    /// Those that `get` knows.
    pub fn new(get: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            get,
            problems: RefCell::default(),
        }
    }

    /// The text of the variable `name`, if it is set and not blank.
    pub(in crate::config) fn text(&self, name: &str) -> Option<String> {
        let text = (self.get)(name)?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// What the variable `name` stands for, if it is set and not blank. A wrong one is noted.
    pub(in crate::config) fn read<T, E: Display>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match read(&self.text(name)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.note(name, error.to_string());
                None
            }
        }
    }

    /// What is wrong with those that were read.
    pub(in crate::config) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    fn note(&self, name: &str, problem: String) {
        self.problems.borrow_mut().push(Problem {
            key: name.to_owned(),
            place: name.to_owned(),
            problem,
        });
    }
}

/// Reads the `[router]` and `[providers]` tables of `document`, called `file`, and the variables. `listen` is where
/// this process listens.
///
/// # Errors
/// All that is wrong, never empty.
pub fn read(
    document: &Node,
    file: &str,
    listen: SocketAddr,
    variables: Variables<'_>,
) -> Result<RouterSettings, Vec<Problem>> {
    let reading = Reading::new(file);
    let root = reading.table(document, "");
    let mut settings = RouterSettings::default();
    if let Some(table) = root.table("router") {
        table.only(&KEYS);
        read_times(&table, &mut settings);
        read_lists(&table, &mut settings);
    }
    settings.providers = providers::read(&root, &settings.local_hosts, &variables);
    read_variables(&variables, listen, &mut settings);
    let mut problems = match reading.finish(()) {
        Ok(()) => Vec::new(),
        Err(problems) => problems,
    };
    problems.extend(variables.into_problems());
    if problems.is_empty() {
        Ok(settings)
    } else {
        Err(problems)
    }
}

fn read_times(table: &Table<'_>, settings: &mut RouterSettings) {
    let millis = |key| table.whole(key, 1..=MOST_MS).map(Duration::from_millis);
    settings.deadline = millis("deadline_ms");
    settings.local_timeout = millis("local_timeout_ms");
    if let Some(strategy) = table.parsed("strategy") {
        settings.strategy = strategy;
    }
    if let Some(fallback) = table.bool("fallback") {
        settings.fallback = fallback;
    }
    if let Some(privacy) = table.parsed("privacy") {
        settings.privacy = privacy;
    }
    if let Some(share) = table.number("hedge_budget", 0.0..=1.0) {
        settings.hedge_budget = share;
    }
    if let Some(tokens) = table.whole("max_tokens", 1..=u64::from(u32::MAX)) {
        settings.max_tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
    }
}

fn read_lists(table: &Table<'_>, settings: &mut RouterSettings) {
    let path = |key| table.text(key).map(PathBuf::from);
    settings.local_preference = table.texts("local_preference").unwrap_or_default();
    if let Some(model) = table.text("openrouter_default_model") {
        model.clone_into(&mut settings.openrouter_default_model);
    }
    if let Some(preferences) = table.table("preferences") {
        settings.preferences = Preferences::read(&preferences);
    }
    if let Some(chain) = chain::read(table) {
        settings.fallback_chain = chain;
    }
    if let Some(aliases) = table.table("aliases") {
        for entry in aliases.entries() {
            if let Some(target) = aliases.text(&entry.key) {
                settings
                    .aliases
                    .insert(entry.key.clone(), target.to_owned());
            }
        }
    }
    settings.local_hosts = table.texts("local_hosts").unwrap_or_default();
    settings.teams_folder = path("teams_folder");
    settings.teams = table.texts("teams").unwrap_or_default();
    settings.quality = path("quality");
    settings.names = path("names");
}

fn read_variables(variables: &Variables<'_>, listen: SocketAddr, settings: &mut RouterSettings) {
    if let Some(strategy) = variables.read("LLM_ROUTING_STRATEGY", str::parse::<Strategy>) {
        settings.strategy = strategy;
    }
    if let Some(fallback) = variables.read("LLM_FALLBACK_ENABLED", yes_or_no) {
        settings.fallback = fallback;
    }
    if let Some(names) = variables
        .text("LOCAL_MODEL_PREFERENCE")
        .as_deref()
        .map(comma_list)
    {
        settings.local_preference = names;
    }
    if let Some(timeout) = variables.read("LOCAL_MODEL_TIMEOUT", seconds) {
        settings.local_timeout = Some(timeout);
    }
    if let Some(model) = variables.text("OPENROUTER_DEFAULT_MODEL") {
        let model = model.strip_prefix("openrouter:").unwrap_or(&model);
        model.clone_into(&mut settings.openrouter_default_model);
    }
    read_preferences(variables, settings);
    if let Some(base_url) = variables.read("LOCAL_MODEL_URL", address::base)
        && !address::is_listener(&base_url, listen)
    {
        let keeping = providers::keeping(&base_url, false, &settings.local_hosts);
        let provider = local_remote(base_url, keeping, settings.local_timeout);
        settings.providers.insert(LOCAL_REMOTE.to_owned(), provider);
    }
}

/// `OPENROUTER_PREFERENCES`: an object of JSON.
fn read_preferences(variables: &Variables<'_>, settings: &mut RouterSettings) {
    const NAME: &str = "OPENROUTER_PREFERENCES";
    let json = variables.read(NAME, |text| serde_json::from_str::<serde_json::Value>(text));
    let Some(json) = json else { return };
    let node = Node::from_json(&json);
    if !matches!(node.value, Value::Table(_)) {
        let form = "it must be an object, as in {\"prefer_local\": true}";
        return variables.note(NAME, form.to_owned());
    }
    let reading = Reading::new(NAME);
    let read = Preferences::read(&reading.table(&node, ""));
    match reading.finish(read) {
        Ok(preferences) => settings.preferences = preferences.over(&settings.preferences),
        Err(problems) => variables.problems.borrow_mut().extend(problems),
    }
}

/// The server behind `LOCAL_MODEL_URL`.
fn local_remote(
    base_url: String,
    keeping: Keeping,
    first_content: Option<Duration>,
) -> ProviderSettings {
    let mut timeouts = ProviderTimeouts::default();
    timeouts.first_content = first_content.unwrap_or(timeouts.first_content);
    ProviderSettings {
        name: LOCAL_REMOTE.to_owned(),
        dialect: Dialect::Compatible,
        base_url,
        api_key: None,
        models: Vec::new(),
        keeping,
        zdr: false,
        timeouts,
    }
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match &*text.to_ascii_lowercase() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// Names between commas; `local:` before them says nothing new.
fn comma_list(text: &str) -> Vec<String> {
    let names = text.split(',').map(str::trim);
    let names = names.map(|name| name.strip_prefix("local:").unwrap_or(name));
    let names = names.filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no number of seconds above 0 and up to a day");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    let most = Duration::from_millis(MOST_MS);
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    if duration.is_zero() || duration > most {
        return Err(wrong());
    }
    Ok(duration)
}
