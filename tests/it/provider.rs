//! Providers' backends against a server that plays every fault, byte by byte.

mod accounts;
mod faults;
mod going_on;
mod leaving;
mod requests;
mod unreachable;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use ingle::backend::provider::{Answer, Dialect, Provider, ProviderHttp, ProviderOptions, Secret};
use ingle::backend::{BackendError, BackendErrorKind, ProviderFault};
use ingle::catalog::HttpOptions;
use ingle::chat::{ChatDelta, ChatRequest, FinishReason, Message, Role, Said, Usage};
use ingle::egress::{Egress, EgressLog, Keeping, Privacy, ProviderPermit, Purpose};
use tempfile::TempDir;

use crate::provider_server::{ProviderServer, Shape};

const KEY: &str = "sk-canary-0123456789abcdef";

/// A client, and the folder with its log.
struct House {
    folder: TempDir,
    http: ProviderHttp,
}

impl House {
    fn new() -> Self {
        Self::with(&HttpOptions::default())
    }

    fn with(options: &HttpOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = EgressLog::open(folder.path().join("egress.jsonl")).unwrap();
        let permit = Egress::new(false).providers().unwrap();
        let http = ProviderHttp::new(options, Arc::new(log), &permit).unwrap();
        Self { folder, http }
    }

    /// A provider of this name at `base_url`.
    fn provider(&self, dialect: Dialect, base_url: &str) -> Provider {
        let options = ProviderOptions {
            base_url: Some(base_url.to_owned()),
            key: Some(Secret::new(KEY)),
            ..ProviderOptions::new("acme", dialect)
        };
        Provider::new(options, &self.http).unwrap()
    }

    fn at(&self, server: &ProviderServer, shape: Shape) -> Provider {
        self.provider(dialect(shape), &server.base_url(shape))
    }
}

fn dialect(shape: Shape) -> Dialect {
    match shape {
        Shape::OpenAi => Dialect::OpenAi,
        Shape::OpenRouter => Dialect::OpenRouter,
        Shape::Anthropic => Dialect::Anthropic,
    }
}

fn permit() -> ProviderPermit {
    permit_of(Privacy::Any)
}

fn permit_of(privacy: Privacy) -> ProviderPermit {
    let purpose = Purpose {
        request_id: "r-1".to_owned(),
        team: Some("engineering".to_owned()),
        why: "predicted miss".to_owned(),
    };
    Egress::new(false)
        .provider(privacy, "acme", Keeping::Nothing, purpose)
        .unwrap()
}

fn hello() -> ChatRequest {
    ChatRequest::new(
        "m",
        vec![Message::text(
            Role::User,
            "say hello, hello and hello again",
        )],
    )
}

/// What came of a chat: all that was said, and its one end.
#[derive(Debug)]
struct Outcome {
    said: Said,
    end: Result<(FinishReason, Usage), BackendError>,
    n_deltas: usize,
}

impl Outcome {
    fn fault(&self) -> ProviderFault {
        match &self.end {
            Err(BackendError {
                kind: BackendErrorKind::Provider(fault),
                ..
            }) => *fault,
            other => panic!("no fault of a provider: {other:?}"),
        }
    }

    fn usage(&self) -> Usage {
        self.end.as_ref().unwrap().1
    }
}

/// Asks, and reads to the end; what takes longer than `patience` is given up as the router would.
async fn ask_for(
    provider: &Provider,
    model: &str,
    request: &ChatRequest,
    patience: Duration,
) -> Outcome {
    let mut outcome = Outcome {
        said: Said::default(),
        end: Err(BackendError::new(
            BackendErrorKind::Provider(ProviderFault::Stalled),
            "given up",
        )),
        n_deltas: 0,
    };
    let all = async {
        let Answer { mut stream, .. } = match provider.chat(model, request, permit()).await {
            Ok(answer) => answer,
            Err(error) => return outcome.end = Err(error),
        };
        let mut end = None;
        while let Some(next) = stream.next().await {
            assert!(end.is_none(), "something follows the end: {next:?}");
            match next {
                Ok(ChatDelta::Finished { reason, usage }) => end = Some(Ok((reason, usage))),
                Ok(delta) => {
                    assert!(delta.is_content(), "{delta:?}");
                    outcome.n_deltas += 1;
                    outcome.said.push(delta);
                }
                Err(error) => end = Some(Err(error)),
            }
        }
        outcome.end = end.expect("a stream ends with an end or an error");
    };
    let _ = tokio::time::timeout(patience, all).await;
    outcome
}

async fn ask(provider: &Provider, model: &str) -> Outcome {
    ask_for(provider, model, &hello(), Duration::from_secs(20)).await
}
