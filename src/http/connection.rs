//! Connections: how many, how slow a stranger may be, and how they end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::limits::Limits;
use super::stall::StallGuard;

/// Rest after accepting failed, as it does when the process is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Accepts until `stop`, then finishes what is under way for up to `drain`; `draining` is set in
/// between. Returns how many connections were cut off.
pub(super) async fn serve(
    listener: TcpListener,
    (router, limits): (Router, Limits),
    stop: CancellationToken,
    draining: CancellationToken,
    drain: Duration,
) -> usize {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(limits.n_connections));
    let cut = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, place)) = accepted else {
            continue;
        };
        let (router, draining, cut) = (router.clone(), draining.clone(), cut.clone());
        connections.spawn(async move {
            tokio::select! {
                () = answer(stream, (router, limits), draining) => {}
                () = cut.cancelled() => {}
            }
            drop(place);
        });
    }
    drop(listener);
    draining.cancel();
    connections.close();
    if tokio::time::timeout(drain, connections.wait())
        .await
        .is_ok()
    {
        return 0;
    }
    let n_cut_off = connections.len();
    cut.cancel();
    connections.wait().await;
    n_cut_off
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_REST).await;
            None
        }
    }
}

/// Answers the requests of one connection; once `draining`, the one under way is its last.
async fn answer(
    stream: TcpStream,
    (router, limits): (Router, Limits),
    draining: CancellationToken,
) {
    // Tokens are small and should leave at once.
    let _ = stream.set_nodelay(true);
    let stream = StallGuard::new(stream, limits.write_stall);
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(limits.head_bytes)
        .max_headers(limits.n_header_lines)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // Clients leave in the middle all day long.
        tracing::debug!(%error, "a connection broke off");
    }
}
