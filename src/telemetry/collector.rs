//! The way to the collector of spans: the one client of this program, on its own runtime.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::Client;
use tokio::runtime::{Handle, TryCurrentError};

/// A collector says no more than this. Units: bytes.
const ANSWER_MOST: usize = 1 << 20;

/// What takes spans.
#[derive(Clone, Debug)]
pub(super) struct Collector {
    client: Client,
    /// The thread that sends has none.
    runtime: Handle,
    timeout: Duration,
    endpoint: Arc<str>,
    /// Somebody was told that they do not arrive.
    is_told: Arc<AtomicBool>,
}

impl Collector {
    pub(super) fn new(
        client: Client,
        timeout: Duration,
        endpoint: &str,
    ) -> Result<Self, TryCurrentError> {
        Ok(Self {
            client,
            runtime: Handle::try_current()?,
            timeout,
            endpoint: endpoint.into(),
            is_told: Arc::default(),
        })
    }

    async fn send(self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = self.exchange(request).await;
        let problem = match &sent {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        let was_told = self.is_told.swap(problem.is_some(), Ordering::Relaxed);
        // Once, until it goes well again.
        if let Some(problem) = problem.filter(|_| !was_told) {
            tracing::warn!(endpoint = %self.endpoint, problem, "spans do not arrive");
        }
        sent
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut request = reqwest::Request::try_from(request)?;
        *request.timeout_mut() = Some(self.timeout);
        let mut answer = self.client.execute(request).await?;
        let mut whole = Response::builder().status(answer.status());
        if let Some(headers) = whole.headers_mut() {
            headers.clone_from(answer.headers());
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_MOST {
                return Err("its answer does not end".into());
            }
        }
        Ok(whole.body(body.into())?)
    }
}

impl HttpClient for Collector {
    fn send_bytes<'me, 'sent>(
        &'me self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'sent>>
    where
        'me: 'sent,
        Self: 'sent,
    {
        let sending = self.runtime.spawn(self.clone().send(request));
        Box::pin(async move { sending.await? })
    }
}
