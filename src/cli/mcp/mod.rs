//! `ingle mcp`: MCP over stdio. Every message goes to `/mcp` of the running Ingle, or of one that is
//! started here; so there is one place that answers, and models are loaded once.

mod bridge;
mod events;
mod lines;
mod upstream;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::gpu::Choice;
use super::running::Running;
use super::serve::{self, Signals};
use crate::config::Config;
use crate::http::ApiKeys;
use crate::pool::Pool;
use bridge::Bridge;
use lines::{Input, Output};

/// How long answers under way are waited for once no more messages come.
const FINISH_MOST: Duration = Duration::from_millis(1500);
/// How often a running Ingle is looked for while another one is just being started beside.
const FIND_TRIES: u32 = 20;
const FIND_REST: Duration = Duration::from_millis(100);

/// Bridges stdin and stdout until stdin closes or a signal comes.
pub(super) async fn run(config: Config, gpu: Option<Choice>) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let mut house = House {
        config,
        gpu,
        own: None,
    };
    let (input, output) = (tokio::io::stdin(), tokio::io::stdout());
    let bridged = tokio::select! {
        bridged = bridge(&mut house, input, output) => bridged,
        () = signals.next() => Ok(()),
    };
    tokio::select! {
        () = house.close() => {}
        // Whoever asks twice means it.
        () = signals.next() => {}
    }
    bridged
}

async fn bridge(
    house: &mut House,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Send + Unpin + 'static,
) -> anyhow::Result<()> {
    let running = house.find_or_start().await?;
    let mut bridge = Bridge::new(running, Output::new(output));
    let mut input = Input::new(input);
    while let Some(line) = input.next().await? {
        if bridge.is_lost() {
            bridge.reconnect(house.find_or_start().await?).await;
        }
        if let Some(again) = bridge.take(line).await {
            // The Ingle that was asked has gone: another one may answer.
            bridge.reconnect(house.find_or_start().await?).await;
            bridge.retake(again).await;
        }
        if bridge.is_unread() {
            break;
        }
    }
    bridge.finish(FINISH_MOST).await;
    Ok(())
}

/// Who answers: a running Ingle, or our own.
struct House {
    config: Config,
    gpu: Option<Choice>,
    own: Option<Own>,
}

/// An Ingle that was started here.
struct Own {
    address: SocketAddr,
    /// A key of its own, where it wants one.
    key: Option<String>,
    pool: Pool,
    stop: CancellationToken,
    serving: JoinHandle<usize>,
}

impl House {
    /// The running Ingle; where there is none, it is started.
    ///
    /// Errors: none is running and none can be started.
    async fn find_or_start(&mut self) -> anyhow::Result<Running> {
        if let Some(own) = &self.own {
            return Running::at(own.address, own.key.clone());
        }
        let listen = self.config.listen;
        if let Some(running) = Running::find(listen).await {
            return Ok(running);
        }
        let error = match self.start().await {
            Ok(running) => return Ok(running),
            Err(error) => error,
        };
        // Another one may have been started in the same moment.
        for _ in 0..FIND_TRIES {
            tokio::time::sleep(FIND_REST).await;
            if let Some(running) = Running::find(listen).await {
                return Ok(running);
            }
        }
        Err(error)
    }

    async fn start(&mut self) -> anyhow::Result<Running> {
        self.config.check_serving()?;
        let keys = serve::keys(&self.config)?;
        let key = keys
            .is_some()
            .then(|| uuid::Uuid::new_v4().simple().to_string());
        let keys = match (keys, &key) {
            (Some(keys), Some(key)) => Some(keys.and(&ApiKeys::parse(key)?)),
            (keys, _) => keys,
        };
        let (server, pool) = serve::bind(&self.config, self.gpu.clone(), keys).await?;
        let address = server.local_addr().context("the address listened on")?;
        tracing::info!(%address, "listening");
        server.readiness().set();
        let stop = CancellationToken::new();
        let drain = Duration::from_secs(self.config.drain_seconds);
        let serving = tokio::spawn(server.run(stop.clone(), drain));
        let running = Running::at(address, key.clone())?;
        self.own = Some(Own {
            address,
            key,
            pool,
            stop,
            serving,
        });
        Ok(running)
    }

    /// Ends the Ingle that was started here; others who ask it are answered to the end.
    async fn close(self) {
        let Some(own) = self.own else {
            return;
        };
        let drain = Duration::from_secs(self.config.drain_seconds);
        own.stop.cancel();
        // Whether connections were cut off, there is nobody left to tell.
        let _ = own.serving.await;
        own.pool.shutdown(drain).await;
    }
}
