//! Requests told as spans, to a collector that is a server of this test.

use std::collections::BTreeMap;

use ingle::catalog::{HttpOptions, client_builder};
use ingle::config::telemetry::{Protocol, Sampling, TelemetrySettings};
use ingle::egress::Egress;
use ingle::telemetry::spans::Spans;
use serde_json::{Value, json};
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{Hearth, Routing, broken_and_backup};
use crate::http::wire::{self, Reply};
use crate::pool::Wish;
use crate::provider_server::{ProviderServer, Shape};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
/// Said by nobody but the client.
const SECRET: &str = "xylophone";

/// What is asked, under a span of the client's.
async fn ask(routing: &Routing, model: &str, flags: &str) -> Reply {
    let messages = json!([{"role": "user", "content": SECRET}]);
    let body = json!({"model": model, "messages": messages, "max_tokens": 4}).to_string();
    let parent = format!("traceparent: 00-{TRACE}-{SPAN}-{flags}\r\ncontent-type:");
    let request = wire::request(&body).replacen("content-type:", &parent, 1);
    let reply = wire::exchange(routing.address, &request).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply
}

async fn collector() -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/traces"))
        .and(header("authorization", "Bearer sk-collector"))
        .respond_with(ResponseTemplate::new(200).set_body_string("{}"))
        .mount(&server)
        .await;
    server
}

fn spans_to(collector: &MockServer, sampling: Sampling) -> Spans {
    let settings = TelemetrySettings {
        endpoint: Some(format!("{}/v1/traces", collector.uri())),
        headers: vec![(
            "authorization".to_owned(),
            ingle::catalog::Secret::new("Bearer sk-collector"),
        )],
        protocol: Protocol::Json,
        service_name: "hearth".to_owned(),
        sampling,
        ..TelemetrySettings::default()
    };
    let client = client_builder(&HttpOptions::default())
        .unwrap()
        .build()
        .unwrap();
    let permit = Egress::new(true).telemetry("127.0.0.1").unwrap();
    Spans::start(&settings, client, &permit).unwrap()
}

/// A span that arrived.
#[derive(Debug)]
struct Told {
    name: String,
    trace: String,
    id: String,
    parent: String,
    kind: Value,
    /// 2 is an error.
    status: Value,
    events: Vec<String>,
    attributes: BTreeMap<String, Value>,
}

impl Told {
    fn of(span: &Value) -> Self {
        let text = |key: &str| span[key].as_str().unwrap_or_default().to_owned();
        let attributes = span["attributes"].as_array().unwrap().iter();
        let attributes = attributes.map(|one| {
            let (_, value) = one["value"].as_object().unwrap().iter().next().unwrap();
            (one["key"].as_str().unwrap().to_owned(), value.clone())
        });
        let events = span["events"].as_array();
        let events = events.into_iter().flatten();
        Self {
            name: text("name"),
            trace: text("traceId"),
            id: text("spanId"),
            parent: text("parentSpanId"),
            kind: span["kind"].clone(),
            status: span["status"]["code"].clone(),
            events: events
                .map(|one| one["name"].as_str().unwrap().to_owned())
                .collect(),
            attributes: attributes.collect(),
        }
    }

    fn says(&self, key: &str) -> &str {
        self.attributes
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or("")
    }

    fn number(&self, key: &str) -> i64 {
        let number = self.attributes.get(key);
        let number =
            number.and_then(|number| number.as_i64().or_else(|| number.as_str()?.parse().ok()));
        number.unwrap_or_else(|| panic!("no {key}: {self:?}"))
    }
}

/// All that arrived, the one that no other stands above first.
async fn told(collector: &MockServer) -> Vec<Told> {
    let mut all = Vec::new();
    for request in collector.received_requests().await.unwrap() {
        let text = String::from_utf8(request.body).unwrap();
        assert!(!text.contains(SECRET), "{text}");
        let body: Value = serde_json::from_str(&text).unwrap();
        for resource in body["resourceSpans"].as_array().unwrap() {
            let named = resource["resource"]["attributes"].to_string();
            assert!(named.contains("hearth"), "{named}");
            for scope in resource["scopeSpans"].as_array().unwrap() {
                all.extend(scope["spans"].as_array().unwrap().iter().map(Told::of));
            }
        }
    }
    all.sort_by_key(|span| span.parent != SPAN);
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_this_machine_is_a_span_under_the_clients_with_one_below() {
    let (collector, hearth) = (collector().await, Hearth::new(Wish::default()));
    let spans = spans_to(&collector, Sampling::default());
    let routing = Routing::start(&hearth, "", |options| options.spans = spans).await;
    let reply = ask(&routing, "local:tiny", "01").await;
    let used = reply.json()["usage"].clone();
    routing.end().await;

    let told = told(&collector).await;
    let [request, attempt] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(request.name, "chat local:tiny");
    assert_eq!(attempt.name, "chat tiny");
    assert_eq!((&*request.trace, &*request.parent), (TRACE, SPAN));
    assert_eq!((&*attempt.trace, &attempt.parent), (TRACE, &request.id));
    // Server and internal.
    assert_eq!((&request.kind, &attempt.kind), (&json!(2), &json!(1)));
    assert_eq!(attempt.events, ["first_content"]);
    for span in [request, attempt] {
        assert_eq!(span.says("gen_ai.operation.name"), "chat");
        assert_eq!(span.says("gen_ai.provider.name"), "ingle");
        assert_eq!(span.says("gen_ai.response.model"), "tiny");
        let tokens = |key: &str| used[key].as_i64().unwrap();
        assert_eq!(
            span.number("gen_ai.usage.input_tokens"),
            tokens("prompt_tokens")
        );
        assert_eq!(
            span.number("gen_ai.usage.output_tokens"),
            tokens("completion_tokens")
        );
        assert_eq!(span.says("error.type"), "");
        assert_ne!(span.status, json!(2));
    }
    assert_eq!(request.says("gen_ai.request.model"), "local:tiny");
    assert_eq!(attempt.says("gen_ai.request.model"), "tiny");
    let route = reply.header("x-ingle-route").unwrap();
    assert!(route.contains(request.says("ingle.request.id")));
}

fn two(broken: &ProviderServer, backup: &ProviderServer) -> String {
    let base_url = broken.base_url(Shape::OpenAi);
    let broken =
        format!("dialect = \"openai\"\nbase_url = \"{base_url}\"\napi_key = \"sk-canary\"");
    broken_and_backup(&broken, backup)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_failed_and_who_answered_instead_are_spans_side_by_side() {
    let (broken, backup) = (ProviderServer::start(), ProviderServer::start());
    let (collector, hearth) = (collector().await, Hearth::new(Wish::default()));
    let spans = spans_to(&collector, Sampling::default());
    let toml = two(&broken, &backup);
    let routing = Routing::start(&hearth, &toml, |options| options.spans = spans).await;
    ask(&routing, "broken:fault:status-402", "01").await;
    routing.end().await;

    let told = told(&collector).await;
    let [request, others @ ..] = told.as_slice() else {
        panic!("nothing arrived");
    };
    assert_eq!(request.name, "chat broken:fault:status-402");
    assert_eq!(request.says("gen_ai.provider.name"), "backup");
    assert_eq!(request.says("gen_ai.response.model"), "say:8");
    assert_eq!(request.says("error.type"), "");
    let by = |provider: &str| {
        let found = others
            .iter()
            .filter(|one| one.says("gen_ai.provider.name") == provider);
        let found: Vec<&Told> = found.collect();
        assert_eq!(found.len(), 1, "{told:?}");
        found[0]
    };
    let (failed, answered) = (by("broken"), by("backup"));
    assert_eq!(others.len(), 2);
    for (span, server) in [(failed, &broken), (answered, &backup)] {
        assert_eq!(span.parent, request.id);
        assert_eq!(span.kind, json!(3), "a client's");
        assert_eq!(span.says("server.address"), "127.0.0.1");
        assert_eq!(
            span.number("server.port"),
            i64::from(server.address().port())
        );
    }
    assert_eq!(failed.says("error.type"), "no_credit");
    assert_eq!(failed.status, json!(2));
    assert_eq!(failed.says("ingle.why"), "first");
    assert_eq!(answered.says("ingle.why"), "failed");
    assert_eq!(answered.number("gen_ai.usage.output_tokens"), 8);
    // Who is compatible may be an Ingle, whose spans stand under ours; nobody else is told.
    let parent = format!("00-{TRACE}-{}-01", answered.id);
    assert_eq!(backup.requests()[0].header("traceparent"), Some(&*parent));
    assert_eq!(broken.requests()[0].header("traceparent"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_that_is_not_told_or_not_ours_is_passed_on_all_the_same() {
    let (broken, backup) = (ProviderServer::start(), ProviderServer::start());
    let (collector, hearth) = (collector().await, Hearth::new(Wish::default()));
    let toml = two(&broken, &backup);
    // The client's trace is not sampled, so ours is not.
    let spans = spans_to(&collector, Sampling::default());
    let routing = Routing::start(&hearth, &toml, |options| options.spans = spans).await;
    ask(&routing, "backup:say:8", "00").await;
    routing.end().await;
    // Nobody makes spans at all.
    let routing = Routing::start(&hearth, &toml, |_| {}).await;
    ask(&routing, "backup:say:8", "01").await;
    routing.end().await;

    assert_eq!(told(&collector).await.len(), 0);
    let requests = backup.requests();
    let parents: Vec<&str> = requests
        .iter()
        .filter_map(|one| one.header("traceparent"))
        .collect();
    let [ours, theirs] = parents.as_slice() else {
        panic!("{parents:?}");
    };
    assert!(
        ours.starts_with(&format!("00-{TRACE}-")) && ours.ends_with("-00"),
        "{ours}"
    );
    assert_eq!(*theirs, format!("00-{TRACE}-{SPAN}-01"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_gone_costs_no_request_its_answer() {
    let hearth = Hearth::new(Wish::default());
    let collector = collector().await;
    let sampling = Sampling {
        follows_parent: false,
        ratio: 1.0,
    };
    let spans = spans_to(&collector, sampling);
    drop(collector);
    let routing = Routing::start(&hearth, "", |options| options.spans = spans).await;
    for _ in 0..3 {
        ask(&routing, "local:tiny", "00").await;
    }
    routing.end().await;
}
