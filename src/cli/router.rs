//! The router, put together from a configuration.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::app;
use crate::backend::local::LocalBackend;
use crate::backend::provider::{Provider, ProviderHttp, ProviderOptions};
use crate::catalog::{ProxyOptions, client_builder, no_client};
use crate::config::Config;
use crate::config::document::Problem;
use crate::egress::{Egress, EgressLog};
use crate::keys::Keys;
use crate::limit::Limit;
use crate::router::money::{Moment, Money};
use crate::router::names::Names;
use crate::router::prices::Prices;
use crate::router::quality::Quality;
use crate::router::teams::Teams;
use crate::router::{Router, RouterOptions};
use crate::telemetry::spans::Spans;

/// How often the folder of teams is looked at.
const TEAMS_EVERY: Duration = Duration::from_secs(2);

/// Puts a router in front of `local`.
pub(super) fn router(config: &Config, keys: &Keys, local: LocalBackend) -> anyhow::Result<Router> {
    let settings = config.router.clone();
    let names = Names::new(&settings).map_err(told)?;
    let teams = Teams::open(settings.teams_folder.clone(), &settings.teams).map_err(told)?;
    // Whoever changes a team's file need not start anew.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(teams.clone().keep_fresh(TEAMS_EVERY));
    }
    let quality = Quality::new(settings.quality.as_deref()).map_err(told)?;
    std::fs::create_dir_all(&config.home)
        .with_context(|| format!("the folder {} cannot be made", config.home.display()))?;
    let prices = Prices::load(&config.home, config.budgets.local_price)?;
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
        spans: spans(config)?,
    }))
}

/// Where requests are told as spans, if anybody wants to know.
fn spans(config: &Config) -> anyhow::Result<Spans> {
    let settings = &config.telemetry;
    let Some(endpoint) = &settings.endpoint else {
        return Ok(Spans::default());
    };
    let url = reqwest::Url::parse(endpoint)?;
    let permit = Egress::new(config.offline).telemetry(url.host_str().unwrap_or_default())?;
    let mut http = app::http_options(config);
    if config.offline {
        // What goes no farther takes no way round either.
        http.proxies = ProxyOptions::default();
    }
    let client = client_builder(&http)?.build();
    let client = client.map_err(|error| no_client(&http, &error))?;
    tracing::info!(endpoint, "requests are told as spans");
    Ok(Spans::start(settings, client, &permit)?)
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
        let provider = Provider::new(ProviderOptions::of(one, config.router.max_tokens), &http);
        provider.with_context(|| format!("providers.{}", one.name))
    });
    providers.collect()
}

/// All that is wrong, as one error.
#[expect(clippy::needless_pass_by_value, reason = "as errors are mapped")]
fn told(problems: Vec<Problem>) -> anyhow::Error {
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    anyhow::anyhow!(problems.join("\n"))
}
