//! The one way out to providers: a pool of connections, and the egress log before each request.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, Url};

use super::fault::Fault;
use crate::backend::ProviderFault;
use crate::catalog::{FetchError, HttpOptions, client_builder, host, innermost, no_client};
use crate::egress::{EgressLog, LogError, ProviderPermit, ProvidersReached};

/// A connection nobody used for so long is closed: providers close theirs after a minute.
const IDLE_MOST: Duration = Duration::from_secs(45);
/// Idle connections kept to a host.
const IDLE_CONNECTIONS: usize = 64;
/// After so long without a byte the system asks whether the other side is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// An error's body is read so far and so long.
const ERROR_BYTES: usize = 64 << 10;
const ERROR_PATIENCE: Duration = Duration::from_secs(5);

/// What reaches providers: one a process. Clones share the connections.
#[derive(Clone, Debug)]
pub struct ProviderHttp {
    client: Client,
    log: Arc<EgressLog>,
}

/// What is to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Why nothing came back.
#[derive(Debug)]
pub(super) enum NotSent {
    /// The log took no entry, so nothing was sent.
    Log(LogError),
    Fault(Fault),
}

impl ProviderHttp {
    /// Makes the client. It takes the permit that `--offline` does not issue.
    ///
    /// # Errors
    /// A proxy is no address, the file of certificates holds none, or the machine cannot do TLS.
    pub fn new(
        options: &HttpOptions,
        log: Arc<EgressLog>,
        _permit: &ProvidersReached,
    ) -> Result<Self, FetchError> {
        let builder = client_builder(options)?
            .pool_idle_timeout(IDLE_MOST)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .tcp_keepalive(KEEP_ALIVE)
            .tcp_nodelay(true);
        let client = builder
            .build()
            .map_err(|error| no_client(options, &error))?;
        Ok(Self { client, log })
    }

    /// Sends, once the log says so, and waits for the answer's headers. Uses the permit up.
    pub(super) async fn send(
        &self,
        outgoing: Outgoing,
        permit: ProviderPermit,
    ) -> Result<Response, NotSent> {
        let host = host(&outgoing.url);
        let logged = self.log.record(&permit, &host, &outgoing.body);
        logged.map_err(NotSent::Log)?;
        let mut request = self
            .client
            .request(outgoing.method, outgoing.url)
            .headers(outgoing.headers)
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if !outgoing.body.is_empty() {
            request = request.body(outgoing.body);
        }
        let sent = request.send().await;
        sent.map_err(|error| NotSent::Fault(failure(&host, &error)))
    }
}

/// An answer's body as far as an error needs it.
pub(super) async fn error_body(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > ERROR_BYTES {
                break;
            }
        }
    };
    // What is there by then has to do.
    let _ = tokio::time::timeout(ERROR_PATIENCE, read).await;
    body
}

/// A whole body of at most so many bytes.
pub(super) async fn whole_body(mut response: Response, most: usize) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(Fault::garbled(broken(&error))),
        }
        if body.len() > most {
            return Err(Fault::garbled(format!(
                "the answer is longer than {} MiB",
                most >> 20
            )));
        }
    }
}

/// What a connection that broke in the middle of an answer is said to be.
pub(super) fn broken(error: &reqwest::Error) -> String {
    format!("the connection broke: {}", innermost(error))
}

fn failure(host: &str, error: &reqwest::Error) -> Fault {
    let reason = innermost(error);
    if error.is_connect() && error.is_timeout() {
        let detail = format!("{host} did not take the connection in time");
        return Fault::new(ProviderFault::Unreachable, detail);
    }
    if error.is_connect() {
        let detail = format!("{host} cannot be reached: {reason}");
        return Fault::new(ProviderFault::Unreachable, detail);
    }
    let kind = ProviderFault::Unavailable { retry_after: None };
    Fault::new(
        kind,
        format!("{host} closed the connection without an answer: {reason}"),
    )
}
