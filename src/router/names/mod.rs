//! What models are called: `provider:model`, bare names, aliases, families and globs.

mod pattern;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::config::document::Problem;
use crate::config::router::{Dialect, LOCAL, LOCAL_REMOTE, RouterSettings};

pub use pattern::{Pattern, matches_glob};
use table::Table;

/// The model that is chosen by the router.
pub const AUTO: &str = "auto";
/// The model behind [`AUTO`] at OpenRouter.
pub const OPENROUTER_AUTO: &str = "openrouter/auto";
/// Aliases that lead to aliases, at most.
const MAX_ALIASES: usize = 8;
/// Providers that everybody means by these names, whether they are configured or not.
const WELL_KNOWN: [&str; 3] = ["openrouter", "openai", "anthropic"];

/// A model at a provider.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The provider's name in the configuration, or `local`.
    pub provider: String,
    /// The model, as that provider calls it.
    pub model: String,
}

impl Target {
    /// The model `model` of `provider`.
    pub fn new(provider: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            provider: provider.into(),
            model: model.into(),
        }
    }

    /// Whether the engine of this process is meant.
    pub fn is_local(&self) -> bool {
        self.provider == LOCAL
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.provider, self.model)
    }
}

impl serde::Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// What a client named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// Whatever is best.
    Auto,
    /// This model of this provider, as the client spelled it.
    Of(Target),
    /// A model, wherever it is.
    Bare(String),
}

/// All names of one configuration.
#[derive(Clone, Debug)]
pub struct Names {
    table: Table,
    aliases: BTreeMap<String, String>,
    dialects: BTreeMap<String, Dialect>,
    /// Bare names that compatible providers serve.
    served: Vec<(String, Vec<String>)>,
    openrouter_default_model: String,
}

impl Names {
    /// The names of the program, those of the configuration, and those of the file it names.
    ///
    /// # Errors
    /// All that is wrong with the file.
    pub fn new(settings: &RouterSettings) -> Result<Self, Vec<Problem>> {
        let mut table = Table::embedded();
        if let Some(path) = &settings.names {
            table.extend(path)?;
        }
        let providers = settings.providers.values();
        let dialects = providers
            .clone()
            .map(|provider| (provider.name.clone(), provider.dialect));
        let served = providers
            .filter(|provider| !provider.models.is_empty())
            .map(|provider| (provider.name.clone(), provider.models.clone()));
        Ok(Self {
            table,
            aliases: settings.aliases.clone(),
            dialects: dialects.collect(),
            served: served.collect(),
            openrouter_default_model: settings.openrouter_default_model.clone(),
        })
    }

    /// Whether this is the name of a provider that can be asked, or of the engine.
    pub fn is_provider(&self, name: &str) -> bool {
        name == LOCAL || self.dialects.contains_key(name)
    }

    /// Whether everybody means a certain provider by this name, configured or not.
    pub fn is_well_known(&self, name: &str) -> bool {
        WELL_KNOWN.contains(&name)
    }

    /// What a client means by `text`.
    pub fn read(&self, text: &str) -> Name {
        let text = self.without_alias(text.trim());
        if text == AUTO || text == "ingle/auto" {
            return Name::Auto;
        }
        match text.split_once(':') {
            Some((provider, model)) if self.names_provider(provider) && !model.is_empty() => {
                Name::Of(Target::new(provider, model))
            }
            // The provider alone: what it has for those who do not choose.
            _ if text == "openrouter" && self.is_provider(text) => {
                Name::Of(Target::new(text, AUTO))
            }
            _ => Name::Bare(text.to_owned()),
        }
    }

    fn names_provider(&self, name: &str) -> bool {
        self.is_provider(name) || WELL_KNOWN.contains(&name)
    }

    fn without_alias<'a>(&'a self, text: &'a str) -> &'a str {
        let mut text = text;
        for _ in 0..MAX_ALIASES {
            match self.aliases.get(text) {
                Some(meant) => text = meant.trim(),
                None => break,
            }
        }
        text
    }

    /// The target that `model` means at `provider`: what people call `gpt-4` is `openai/gpt-4` at OpenRouter.
    pub fn at(&self, provider: &str, model: &str) -> Target {
        if self.dialect(provider) == Some(Dialect::OpenRouter) {
            let model = match model {
                AUTO if self.openrouter_default_model == AUTO => OPENROUTER_AUTO,
                AUTO => &self.openrouter_default_model,
                other => other,
            };
            if model == AUTO {
                return Target::new(provider, OPENROUTER_AUTO);
            }
            return Target::new(provider, self.called(provider, "openrouter", model));
        }
        Target::new(provider, self.called(provider, provider, model))
    }

    fn dialect(&self, provider: &str) -> Option<Dialect> {
        let known = self.dialects.get(provider).copied();
        // One that is not configured is still called what it is.
        known.or_else(|| (provider == "openrouter").then_some(Dialect::OpenRouter))
    }

    /// What `provider` calls `model`, by its own column of the table, else by its kind's.
    fn called(&self, provider: &str, kind: &str, model: &str) -> String {
        let column = |column: &str| self.table.called(column, model);
        let found = column(provider).or_else(|| column(kind));
        found.unwrap_or_else(|| model.to_owned())
    }

    /// Where the model of a bare name may be found: the engine first, which may not know it.
    pub fn everywhere(&self, bare: &str) -> Vec<Target> {
        let mut found = vec![Target::new(LOCAL, bare)];
        let mut add = |target: Target| {
            if !found.contains(&target) {
                found.push(target);
            }
        };
        for (column, model) in self.table.columns(bare) {
            for provider in self.of_column(column) {
                add(Target::new(provider, &*model));
            }
        }
        // `author/slug` is how OpenRouter calls all models.
        if bare.contains('/') {
            for provider in self.of_column("openrouter") {
                add(Target::new(provider, bare));
            }
        }
        for (provider, globs) in &self.served {
            if globs.iter().any(|glob| matches_glob(glob, bare)) {
                add(Target::new(&**provider, bare));
            }
        }
        found
    }

    /// The providers that the table's column `column` speaks of: those that are configured, else the one everybody means
    /// by this name.
    fn of_column(&self, column: &str) -> Vec<String> {
        let speaks = self
            .dialects
            .iter()
            .filter(|(name, dialect)| *name == column || dialect.name() == column);
        let mut names: Vec<String> = speaks.map(|(name, _)| name.clone()).collect();
        if names.is_empty() && (column == LOCAL || WELL_KNOWN.contains(&column)) {
            names.push(column.to_owned());
        }
        names
    }

    /// The same model at other providers.
    pub fn elsewhere(&self, target: &Target) -> Vec<Target> {
        let name = self.table.name_of(&target.model).unwrap_or(&target.model);
        let mut all = self.everywhere(name);
        all.retain(|other| other.provider != target.provider);
        all
    }

    /// The name that the table has for a provider's model, e.g. `gpt-4` for `openai/gpt-4`.
    pub fn canonical(&self, model: &str) -> Option<&str> {
        self.table.name_of(model)
    }

    /// Reads an entry of a list of acceptable or preferred models.
    pub fn pattern(&self, text: &str) -> Pattern {
        let text = self.without_alias(text.trim());
        match text.split_once(':') {
            Some((provider, model)) if self.names_provider(provider) => {
                let mut globs = BTreeSet::from([model.to_owned()]);
                if !model.contains('*') {
                    globs.insert(self.at(provider, model).model);
                }
                Pattern::of(Some(provider.to_owned()), globs)
            }
            _ => Pattern::of(None, self.table.family(text)),
        }
    }

    /// All bare names that are known, for telling what somebody may have meant.
    pub fn known(&self) -> impl Iterator<Item = &str> {
        let aliases = self.aliases.keys().map(String::as_str);
        self.table.names().chain(aliases)
    }
}

/// Whether models of this provider are called `local:`.
pub fn is_called_local(provider: &str) -> bool {
    provider == LOCAL || provider == LOCAL_REMOTE
}
