//! What leaves: logged before it does, never after a refusal, and never with a key where one can be read.

use std::fs;
use std::time::Duration;

use futures_util::StreamExt;
use ingle::backend::BackendErrorKind;
use ingle::backend::provider::{Dialect, Provider, ProviderOptions, Secret};
use ingle::egress::{Egress, EgressLog, Keeping, Privacy, Purpose, Query};

use super::{House, KEY, ask, hello, permit};
use crate::provider_server::script::FAULTS;
use crate::provider_server::{ProviderServer, Shape};

#[tokio::test]
async fn every_request_is_in_the_log_with_what_it_took_along() {
    let (server, house) = (ProviderServer::start(), House::new());
    let provider = house.at(&server, Shape::OpenRouter);
    for model in ["say:2", "fault:status-500", "fault:redirect"] {
        ask(&provider, model).await;
    }
    drop(provider);
    let path = house.folder.path().join("egress.jsonl");
    let proof = EgressLog::proof_of(&path, &Query::default()).unwrap();
    assert_eq!(
        (proof.total.requests, proof.by_class["any"].requests),
        (3, 3)
    );
    let log = fs::read_to_string(&path).unwrap();
    let sent = server.requests();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (line, sent) in lines.iter().zip(&sent) {
        let length: u64 = sent.header("content-length").unwrap().parse().unwrap();
        assert_eq!(line["bytes"], length);
        assert_eq!(
            (&line["team"], &line["why"]),
            (&"engineering".into(), &"predicted miss".into())
        );
        assert_eq!(line["host"], server.address().to_string());
    }
    // The log tells that something was said, not what.
    assert!(!log.contains("hello") && !log.contains(KEY));
}

#[tokio::test]
async fn where_the_log_cannot_be_written_nothing_is_sent() {
    // A device that is always full.
    let full = std::path::Path::new("/dev/full");
    if !full.exists() {
        return;
    }
    let log = EgressLog::open(full);
    let Ok(log) = log else { return };
    let server = ProviderServer::start();
    let permit_to_reach = Egress::new(false).providers().unwrap();
    let http = ingle::backend::provider::ProviderHttp::new(
        &ingle::catalog::HttpOptions::default(),
        std::sync::Arc::new(log),
        &permit_to_reach,
    );
    let options = ProviderOptions {
        base_url: Some(server.base_url(Shape::OpenAi)),
        ..ProviderOptions::new("acme", Dialect::OpenAi)
    };
    let provider = Provider::new(options, &http.unwrap()).unwrap();
    let error = ask(&provider, "m").await.end.unwrap_err();
    assert_eq!(error.kind, BackendErrorKind::Failed);
    assert!(error.message.contains("nothing was sent"), "{error}");
    assert_eq!((server.n_requests(), server.n_connections()), (0, 0));
}

#[tokio::test]
async fn a_permit_for_one_provider_is_none_for_another() {
    let (server, house) = (ProviderServer::start(), House::new());
    let provider = house.at(&server, Shape::OpenAi);
    let other = Egress::new(false);
    let other = other.provider(Privacy::Any, "other", Keeping::Maybe, Purpose::default());
    let refused = provider
        .chat("m", &hello(), other.unwrap())
        .await
        .unwrap_err();
    assert_eq!(refused.kind, BackendErrorKind::Failed);
    assert_eq!(server.n_requests(), 0);
}

#[test]
fn offline_there_is_no_client_to_send_with() {
    assert!(Egress::new(true).providers().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_error_and_no_debug_shows_a_key() {
    let (server, house) = (ProviderServer::start(), House::new());
    for shape in [Shape::OpenAi, Shape::OpenRouter, Shape::Anthropic] {
        let provider = house.at(&server, shape);
        assert!(!format!("{provider:?}").contains("canary"));
        for case in FAULTS
            .iter()
            .filter(|case| !case.contains("silence") && !case.contains("forever"))
        {
            let model = format!("fault:{case}");
            let outcome = tokio::time::timeout(Duration::from_secs(1), ask(&provider, &model));
            if let Ok(outcome) = outcome.await {
                assert!(!format!("{outcome:?}").contains("canary"), "{case}");
            }
        }
    }
    // The key did arrive, in its own header and no other.
    for request in server.requests() {
        let holders: Vec<&str> = request
            .headers
            .iter()
            .filter(|(_, value)| value.contains(KEY))
            .map(|(name, _)| name.as_str())
            .collect();
        let expected = if request.path.ends_with("/messages") {
            "x-api-key"
        } else {
            "authorization"
        };
        assert_eq!(holders, [expected]);
        assert!(!request.body.to_string().contains(KEY));
    }
}

#[test]
fn settings_that_cannot_be_are_named_without_the_key() {
    let house = House::new();
    let made = |change: fn(&mut ProviderOptions)| {
        let mut options = ProviderOptions {
            key: Some(Secret::new(KEY)),
            ..ProviderOptions::new("acme", Dialect::Compatible)
        };
        change(&mut options);
        Provider::new(options, &house.http).unwrap_err().to_string()
    };
    for (said, words) in [
        (made(|_| {}), "no base URL"),
        (
            made(|o| o.base_url = Some("ftp://h".to_owned())),
            "http:// or https://",
        ),
        (
            made(|o| o.base_url = Some("not a url".to_owned())),
            "\"not a url\"",
        ),
        (
            made(|o| o.base_url = Some("http://me:canary@h/v1".to_owned())),
            "a name or a password",
        ),
        (
            made(|o| o.base_url = Some("http://h/v1?key=1".to_owned())),
            "ends before",
        ),
        (
            made(|o| {
                o.base_url = Some("http://h/v1".to_owned());
                o.key = Some(Secret::new("sk-canary\nx"));
            }),
            "the key of the provider acme",
        ),
    ] {
        assert!(said.contains(words) && said.contains("acme"), "{said}");
        assert!(!said.contains("canary"), "{said}");
    }
}

#[tokio::test]
async fn who_leaves_early_stops_the_provider_and_knows_what_it_took_so_far() {
    let (server, house) = (ProviderServer::start(), House::new());
    for (n, shape) in (1..).zip([Shape::OpenAi, Shape::OpenRouter, Shape::Anthropic]) {
        let provider = house.at(&server, shape);
        let answer = provider
            .chat("fault:stall-after-5", &hello(), permit())
            .await
            .unwrap();
        let mut stream = answer.stream;
        for _ in 0..5 {
            stream.next().await.unwrap().unwrap();
        }
        drop(stream);
        let about = answer.about;
        assert_eq!(about.model().as_deref(), Some("fault:stall-after-5"));
        assert!(about.generation().unwrap().starts_with("gen-"));
        let usage = about.usage();
        assert!(usage.is_estimated && usage.completion_tokens > 0 && usage.prompt_tokens > 0);
        for _ in 0..100 {
            if server.n_gone() == n {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(server.n_gone(), n, "{shape:?}");
    }
}
