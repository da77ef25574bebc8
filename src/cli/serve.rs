//! `ingle serve`.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::app::App;
use super::gpu::Choice;
use super::reload::Live;
use crate::config::Config;
use crate::http::{ApiKeys, Limits, Readiness, Server, ServerOptions};
use crate::keys::Keys;
use crate::pool::{ModelId, Pool, PoolError, Wish};
use crate::telemetry;

/// Serves until a signal; loads `models` meanwhile.
pub(super) async fn serve(
    models: &[String],
    config: Config,
    gpu: Option<Choice>,
) -> anyhow::Result<()> {
    if Keys::open(&config.home)?.is_empty() {
        config.check_serving()?;
    }
    let (server, pool) = bind(&config, gpu, keys(&config)?).await?;
    // A name that stands for nothing is told before the server says it listens.
    let models: Vec<ModelId> = models
        .iter()
        .map(|name| pool.resolve(name))
        .collect::<Result<_, _>>()?;
    let address = server.local_addr()?;
    // Whoever knows the address may already ask it to stop.
    let mut signals = Signals::new()?;
    writeln!(io::stdout(), "http://{address}")?;
    tracing::info!(%address, "listening");

    let stop = CancellationToken::new();
    let drain = Duration::from_secs(config.drain_seconds);
    let readiness = server.readiness();
    let running = tokio::spawn(server.run(stop.clone(), drain));
    let outcome = tokio::select! {
        () = signals.next() => Ok(()),
        failed = preload(&pool, &models, &readiness) => Err(failed),
    };
    tracing::info!(seconds = drain.as_secs(), "finishing what is under way");
    stop.cancel();
    let finish = async {
        let n_cut_off = running.await.unwrap_or(0);
        if n_cut_off > 0 {
            tracing::warn!(n_cut_off, "connections were cut off");
        }
        pool.shutdown(drain).await;
    };
    tokio::select! {
        () = finish => {}
        // Whoever asks twice means it.
        () = signals.next() => tracing::warn!("ended at once"),
    }
    outcome
}

/// Starts what answers, and takes the address.
pub(super) async fn bind(
    config: &Config,
    gpu: Option<Choice>,
    keys: Option<ApiKeys>,
) -> anyhow::Result<(Server, Pool)> {
    let app = App::start(config, gpu)?;
    let pool = app.backend.pool().clone();
    let named = Keys::open(&config.home)?;
    let router = super::router::router(config, &named, app.backend)?;
    let live = Live::new(config.clone(), named.clone(), router.clone());
    // Whoever changes the file need not start anew.
    tokio::spawn(live.clone().keep_fresh());
    let server = Server::bind(ServerOptions {
        listen: config.listen,
        keys,
        limits: Limits::default(),
        router,
        recorded: telemetry::record_metrics()?,
        fingerprint: app.fingerprint,
        gpu_not_used: app.gpu_not_used,
    })
    .await
    .with_context(|| format!("{} cannot be listened on", config.listen))?;
    let server = server.with_keys(named, move |_| live.set_limits());
    Ok((server, pool))
}

/// The keys that open the server.
pub(super) fn keys(config: &Config) -> anyhow::Result<Option<ApiKeys>> {
    config.api_key_file.as_deref().map(read_keys).transpose()
}

fn read_keys(path: &std::path::Path) -> anyhow::Result<ApiKeys> {
    let place = || format!("the file of API keys, {}", path.display());
    let text = std::fs::read_to_string(path).with_context(place)?;
    ApiKeys::parse(&text).with_context(place)
}

/// Loads the models one after the other, then waits for ever. Returns when one cannot be loaded.
async fn preload(pool: &Pool, models: &[ModelId], readiness: &Readiness) -> anyhow::Error {
    for model in models {
        match pool
            .acquire_with(model.as_str(), Wish::default(), None)
            .await
        {
            Ok(lease) => {
                let seconds = lease.load_time.as_secs_f64();
                tracing::info!(%model, seconds, n_ctx = lease.n_ctx, "loaded");
            }
            // Somebody wanted it out again before it was in.
            Err(error @ PoolError::Cancelled { .. }) => {
                tracing::info!(%model, %error, "not loaded");
            }
            Err(error) => return error.into(),
        }
    }
    readiness.set();
    std::future::pending().await
}

/// The two ways of being told to stop: SIGTERM and an interrupt from the keyboard. From its making
/// on, neither ends the process by itself.
pub(super) struct Signals {
    #[cfg(unix)]
    terminated: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupted: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self {
                terminated: signal(SignalKind::terminate())?,
                interrupted: signal(SignalKind::interrupt())?,
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminated.recv() => {}
            _ = self.interrupted.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a console nobody can interrupt.
            std::future::pending().await
        }
    }
}
