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
use crate::egress::{Egress, EgressLog, LOG_NAME, Records};
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
    let (providers, records) = providers(config)?;
    let router = Router::new(RouterOptions {
        providers,
        records,
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
    });
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(router.clone().keep_up(config.budgets.keep));
    }
    Ok(router)
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

/// Those that can be asked, none at all offline; and where what they are asked is written down.
fn providers(config: &Config) -> anyhow::Result<(Vec<Provider>, Records)> {
    let settings = &config.router.providers;
    let path = config.home.join(LOG_NAME);
    let permit = Egress::new(config.offline).providers();
    let Some(permit) = permit.ok().filter(|_| !settings.is_empty()) else {
        return Ok((Vec::new(), Records::File(path)));
    };
    let log = Arc::new(EgressLog::open(path)?);
    let http = ProviderHttp::new(&app::http_options(config), Arc::clone(&log), &permit)?;
    let providers = settings.values().map(|one| {
        let provider = Provider::new(ProviderOptions::of(one, config.router.max_tokens), &http);
        provider.with_context(|| format!("providers.{}", one.name))
    });
    let providers = providers.collect::<anyhow::Result<_>>()?;
    Ok((providers, Records::Open(log)))
}

/// All that is wrong, as one error.
#[expect(clippy::needless_pass_by_value, reason = "as errors are mapped")]
fn told(problems: Vec<Problem>) -> anyhow::Error {
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    anyhow::anyhow!(problems.join("\n"))
}
