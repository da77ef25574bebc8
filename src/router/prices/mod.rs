//! What models cost, and how long prompts and answers may be: a table in the program, a file over it, and over both
//! what providers themselves say. A model nobody prices has no price, which is not the same as free.

mod table;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

pub use table::TableError;

pub use crate::price::{Long, NoPrice, Price, Rate, Tokens};

use crate::chat::Usage;
use crate::money::MicroUsd;

/// The table of the program.
const EMBEDDED: &str = include_str!("../../../models/prices.toml");
/// The file in the home folder that goes before it.
pub const FILE_NAME: &str = "prices.toml";
/// The provider whose models run here.
pub const LOCAL: &str = "local";
/// What one provider may tell us of at most: who sends more is no provider.
const MODELS_MOST: usize = 20_000;

/// What is known of a model at a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    /// What it costs.
    pub price: Price,
    /// Tokens of its prompt at most.
    pub context: Option<u32>,
    /// Tokens of its answer at most.
    pub max_output: Option<u32>,
}

/// Facts by provider and model.
type Listed = BTreeMap<String, BTreeMap<String, ModelFacts>>;

/// Why there are no prices.
#[derive(Debug, thiserror::Error)]
pub enum PricesError {
    /// The file is there and cannot be read.
    #[error("the table of prices {path} cannot be read: {source}")]
    Unreadable {
        /// Where it is.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file cannot be used.
    #[error("the table of prices {path}: {source}")]
    Table {
        /// Where it is.
        path: String,
        /// What is wrong with it.
        source: TableError,
    },
}

/// All prices that are known. Clones share them.
#[derive(Clone, Debug)]
pub struct Prices(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What holds unless somebody says otherwise.
    table: Listed,
    /// What a file says.
    file: Listed,
    /// What providers say of themselves.
    told: RwLock<Listed>,
    /// What our own work costs.
    local: Price,
}

impl Prices {
    /// The program's table, and over it `prices.toml` of the folder `home` where there is one; local work costs `local`.
    ///
    /// # Errors
    /// [`PricesError`].
    pub fn load(home: &Path, local: Price) -> Result<Self, PricesError> {
        let path = home.join(FILE_NAME);
        if path.exists() {
            return Self::load_file(&path, local);
        }
        Self::of_tables(EMBEDDED, Listed::new(), local).map_err(|source| in_table(None, source))
    }

    /// The program's table, and over it the one at `path`; local work costs `local`.
    ///
    /// # Errors
    /// [`PricesError`].
    pub fn load_file(path: &Path, local: Price) -> Result<Self, PricesError> {
        let text = std::fs::read_to_string(path).map_err(|source| PricesError::Unreadable {
            path: path.display().to_string(),
            source,
        })?;
        let said = table::parse(&text).map_err(|source| in_table(Some(path), source))?;
        Self::of_tables(EMBEDDED, said, local).map_err(|source| in_table(None, source))
    }

    fn of_tables(embedded: &str, file: Listed, local: Price) -> Result<Self, TableError> {
        Ok(Self(Arc::new(Inner {
            table: table::parse(embedded)?,
            file,
            told: RwLock::default(),
            local,
        })))
    }

    /// What a request to `model` of `provider` costs; none where nobody says.
    pub fn of(&self, provider: &str, model: &str) -> Option<Price> {
        if provider == LOCAL {
            return Some(self.0.local);
        }
        Some(self.about(provider, model)?.price)
    }

    /// What is known of `model` of `provider`: from the file, from the provider, from the program's table, in this order.
    pub fn about(&self, provider: &str, model: &str) -> Option<ModelFacts> {
        let find = |listed: &Listed| listed.get(provider)?.get(model).copied();
        let told = || find(&self.0.told.read().unwrap_or_else(PoisonError::into_inner));
        find(&self.0.file)
            .or_else(told)
            .or_else(|| find(&self.0.table))
    }

    /// Takes what `provider` says of all its models, in place of what it said before.
    pub fn tell(&self, provider: &str, models: impl IntoIterator<Item = (String, ModelFacts)>) {
        let models = models.into_iter().take(MODELS_MOST).collect();
        let mut told = self.0.told.write().unwrap_or_else(PoisonError::into_inner);
        told.insert(provider.to_owned(), models);
    }

    /// The models of `provider` that have a price.
    pub fn models(&self, provider: &str) -> Vec<String> {
        let told = self.0.told.read().unwrap_or_else(PoisonError::into_inner);
        let all = [&self.0.table, &*told, &self.0.file];
        let names = all.iter().filter_map(|listed| listed.get(provider));
        let names: std::collections::BTreeSet<&String> = names.flat_map(BTreeMap::keys).collect();
        names.into_iter().cloned().collect()
    }
}

fn in_table(path: Option<&Path>, source: TableError) -> PricesError {
    let path = path.map_or_else(
        || "of this program".to_owned(),
        |path| path.display().to_string(),
    );
    PricesError::Table { path, source }
}

/// What is to be booked for `usage`: what the provider says it charged, else what the price makes of it; none where
/// neither is known.
pub fn billed(usage: &Usage, price: Option<&Price>) -> Option<MicroUsd> {
    usage.cost.or_else(|| Some(price?.cost(usage)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices() -> Prices {
        let nowhere = tempfile::tempdir().unwrap();
        Prices::load(nowhere.path(), Price::FREE).unwrap()
    }

    #[test]
    fn the_programs_table_prices_what_people_ask_for() {
        let prices = prices();
        for (provider, model, worst) in [
            ("openai", "gpt-4", 30_000 + 6_000),
            ("openai", "gpt-4o-2024-08-06", 2_500 + 1_000),
            ("openrouter", "openai/gpt-4o-mini", 150 + 60),
            // 1.25 times the prompt's price goes into the cache.
            ("anthropic", "claude-3-opus-20240229", 18_750 + 7_500),
            ("openrouter", "anthropic/claude-3-opus", 18_750 + 7_500),
        ] {
            let price = prices.of(provider, model);
            let worst_found = price.map(|price| price.worst(1000, 100));
            assert_eq!(worst_found, Some(MicroUsd(worst)), "{provider}:{model}");
        }
        let facts = prices.about("openai", "gpt-4").unwrap();
        assert_eq!((facts.context, facts.max_output), (Some(8192), Some(4096)));
        assert!(prices.models("anthropic").len() > 15);
    }

    #[test]
    fn what_nobody_prices_has_no_price_and_is_not_free() {
        let prices = prices();
        for (provider, model) in [
            ("openai", "gpt-4o:nitro"),
            ("openrouter", "openai/gpt-4o:online"),
            ("nobody", "gpt-4"),
            ("openai", ""),
        ] {
            assert_eq!(prices.of(provider, model), None, "{provider}:{model}");
        }
        assert_eq!(prices.of(LOCAL, "anything"), Some(Price::FREE));
    }

    #[test]
    fn a_file_goes_before_a_provider_and_a_provider_before_the_table() {
        let home = tempfile::tempdir().unwrap();
        let text = "[openai]\n'gpt-4' = { prompt = 1, completion = 1 }\n";
        std::fs::write(home.path().join(FILE_NAME), text).unwrap();
        let prices = Prices::load(home.path(), Price::FREE).unwrap();
        let told = |dollars: &str| ModelFacts {
            price: Price {
                tokens: Tokens::plain(Rate::per_million(dollars).unwrap(), Rate(0)),
                ..Price::FREE
            },
            context: None,
            max_output: None,
        };
        let models = ["gpt-4", "gpt-4o", "new"].map(|model| (model.to_owned(), told("7")));
        prices.tell("openai", models);
        let of_million = |model| prices.of("openai", model).unwrap().worst(1_000_000, 0);
        assert_eq!(of_million("gpt-4"), MicroUsd(1_000_000));
        assert_eq!(of_million("gpt-4o"), MicroUsd(7_000_000));
        assert_eq!(of_million("new"), MicroUsd(7_000_000));
        assert_eq!(of_million("gpt-3.5-turbo"), MicroUsd(500_000));
        std::fs::write(home.path().join(FILE_NAME), "[openai]\nx = 1\n").unwrap();
        let error = Prices::load(home.path(), Price::FREE)
            .unwrap_err()
            .to_string();
        assert!(error.contains("prices.toml: openai \"x\": "), "{error}");
    }

    #[test]
    fn what_a_provider_charged_goes_before_what_we_reckon() {
        let price = prices().of("openai", "gpt-4").unwrap();
        let mut usage = Usage {
            prompt_tokens: 1000,
            ..Usage::default()
        };
        assert_eq!(billed(&usage, Some(&price)), Some(MicroUsd(30_000)));
        assert_eq!(billed(&usage, None), None);
        // Nothing charged is something said.
        usage.cost = Some(MicroUsd::ZERO);
        assert_eq!(billed(&usage, Some(&price)), Some(MicroUsd::ZERO));
    }
}
