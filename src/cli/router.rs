//! The router, put together from a configuration.

use std::sync::Arc;

use anyhow::Context;

use super::app;
use crate::backend::local::LocalBackend;
use crate::backend::provider::{
    self, App, Provider, ProviderHttp, ProviderOptions, Retention, Secret,
};
use crate::config::Config;
use crate::config::document::Problem;
use crate::config::router::{Dialect, ProviderSettings};
use crate::egress::{Egress, EgressLog};
use crate::keys::Keys;
use crate::limit::Limit;
use crate::router::money::{Moment, Money};
use crate::router::names::Names;
use crate::router::prices::Prices;
use crate::router::quality::Quality;
use crate::router::teams::Teams;
use crate::router::{Router, RouterOptions};

/// Where OpenRouter shows requests under.
const APP_URL: &str = "https://ingle.example";
const APP_TITLE: &str = "Ingle";

/// Puts a router in front of `local`.
pub(super) fn router(config: &Config, keys: &Keys, local: LocalBackend) -> anyhow::Result<Router> {
    let settings = config.router.clone();
    let names = Names::new(&settings).map_err(told)?;
    let teams = Teams::open(settings.teams_folder.clone(), &settings.teams).map_err(told)?;
    let quality = Quality::new(settings.quality.as_deref()).map_err(told)?;
    std::fs::create_dir_all(&config.home)
        .with_context(|| format!("the folder {} cannot be made", config.home.display()))?;
    let local_price = config.budgets.local_price;
    let prices = match &settings.prices {
        Some(path) => Prices::load_file(path, local_price),
        None => Prices::load(&config.home, local_price),
    }?;
    let money = Money::open(&config.home, limits(config, keys), Moment::now())?;
    Ok(Router::new(RouterOptions {
        providers: providers(config)?,
        local,
        settings,
        names,
        teams,
        quality,
        prices,
        money,
        egress: Egress::new(config.offline),
        offline: config.offline,
    }))
}

/// What the configuration limits, and what keys do.
pub(super) fn limits(config: &Config, keys: &Keys) -> Vec<Limit> {
    let mut limits = config.budgets.limits.clone();
    limits.extend(keys.limits());
    limits
}

/// Those that can be asked; none at all offline.
fn providers(config: &Config) -> anyhow::Result<Vec<Provider>> {
    let settings = &config.router.providers;
    let Ok(permit) = Egress::new(config.offline).providers() else {
        return Ok(Vec::new());
    };
    if settings.is_empty() {
        return Ok(Vec::new());
    }
    let log = Arc::new(EgressLog::open(config.home.join("egress.jsonl"))?);
    let http = ProviderHttp::new(&app::http_options(config), log, &permit)?;
    let providers = settings.values().map(|one| {
        let provider = Provider::new(options(one, config), &http);
        provider.with_context(|| format!("providers.{}", one.name))
    });
    providers.collect()
}

fn options(settings: &ProviderSettings, config: &Config) -> ProviderOptions {
    let dialect = match settings.dialect {
        Dialect::OpenRouter => provider::Dialect::OpenRouter,
        Dialect::OpenAi => provider::Dialect::OpenAi,
        Dialect::Anthropic => provider::Dialect::Anthropic,
        Dialect::Compatible => provider::Dialect::Compatible,
    };
    ProviderOptions {
        base_url: Some(settings.base_url.clone()),
        key: settings
            .api_key
            .as_ref()
            .map(|key| Secret::new(key.reveal())),
        app: Some(App {
            url: APP_URL.to_owned(),
            title: APP_TITLE.to_owned(),
        }),
        retention: if settings.zdr {
            Retention::Never
        } else {
            Retention::AsTheAccountSays
        },
        max_new_tokens: config.router.max_tokens,
        ..ProviderOptions::new(settings.name.clone(), dialect)
    }
}

/// All that is wrong, as one error.
fn told(problems: Vec<Problem>) -> anyhow::Error {
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    anyhow::anyhow!(problems.join("\n"))
}
