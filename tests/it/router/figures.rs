//! What is measured of requests: as series, as one object, and in every decision.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Hearth, Routing, broken_and_backup};
use crate::http::wire::Reply;
use crate::pool::Wish;
use crate::provider_server::{ProviderServer, Shape};

/// Models are looked at a few times a second; an engine knows its speed after a few answers.
const PATIENCE: Duration = Duration::from_mins(1);

fn ask(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 4})
}

/// The decision about an answer.
async fn explained(routing: &Routing, reply: &Reply) -> Value {
    let route = reply.header("x-ingle-route").unwrap();
    let id = route.split("id=").nth(1).unwrap();
    let found = routing.get(&format!("/v1/route/explain/{id}")).await;
    found.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn predictions_are_held_to_what_came_and_everybody_is_told() {
    let hearth = Hearth::new(Wish::default());
    let routing = Routing::start(&hearth, "", |_| {}).await;
    let mut decision = Value::Null;
    let give_up = Instant::now() + PATIENCE;
    while !decision["attempts"][0]["prediction_ratio"].is_number() {
        assert!(Instant::now() < give_up, "{decision}");
        let reply = routing.post(&ask("local:tiny")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        decision = explained(&routing, &reply).await;
    }
    let ratio = decision["attempts"][0]["prediction_ratio"].as_f64();
    assert!(ratio.is_some_and(|ratio| ratio > 0.0), "{decision}");
    assert!(decision["plan"]["candidates"][0]["predicted_ttft_ms"].is_u64());
    assert_eq!(decision["escalated"], Value::Null);

    let measured = routing.get("/v1/route/metrics").await.json();
    let known = &measured["prediction_ratio"]["tiny"];
    assert_eq!(known["n_answers"], 1, "{measured}");
    assert_eq!(known["ratio_p50"].as_f64(), ratio);
    let plan = routing.send("/v1/route/plan", &ask("local:tiny")).await;
    let candidate = &plan.json()["candidates"][0];
    assert_eq!(candidate["calibration"], *known, "{candidate}");

    let series = routing.get("/metrics").await.body;
    assert!(series.contains("ingle_prediction_ratio_bucket{model=\"tiny\",le=\"1\"}"));
    assert!(series.contains("# HELP ingle_prediction_ratio "));
    routing.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_breaker_and_who_left_for_it_are_seen() {
    let (broken, backup) = (ProviderServer::start(), ProviderServer::start());
    let hearth = Hearth::new(Wish::default());
    let base_url = broken.base_url(Shape::OpenAi);
    let toml = broken_and_backup(&format!("base_url = \"{base_url}\""), &backup);
    let routing = Routing::start(&hearth, &toml, |_| {}).await;
    let before = routing.get("/metrics").await.body;
    assert!(before.contains("ingle_provider_breaker_state{provider=\"broken\"} 0"));
    let reply = routing.post(&ask("broken:fault:status-402")).await;
    assert_eq!(reply.status, 200, "{reply:?}");

    let series = routing.get("/metrics").await.body;
    assert!(series.contains("# TYPE ingle_provider_breaker_state gauge"));
    assert!(series.contains("ingle_provider_breaker_state{provider=\"broken\"} 2"));
    assert!(series.contains("ingle_provider_breaker_state{provider=\"backup\"} 0"));
    let measured = routing.get("/v1/route/metrics").await.json();
    let breakers = measured["breakers"].as_array().unwrap();
    let open = breakers.iter().find(|one| one["state"] == "open").unwrap();
    assert_eq!(
        (&open["provider"], &open["model"]),
        (&json!("broken"), &Value::Null)
    );
    assert_eq!(open["fault"], "no_credit");
    assert!(open["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0));
    // Nobody here was asked, so nobody left.
    assert_eq!(measured["escalations"], 0);
    routing.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_this_machine_is_counted_by_why() {
    let backup = ProviderServer::start();
    let hearth = Hearth::new(Wish {
        // What is asked does not fit, so that the engine says no.
        n_ctx: Some(64),
        ..Wish::default()
    });
    let toml = format!(
        r#"
        [router]
        fallback_chain = [["backup", "say:8"]]
        [providers.backup]
        base_url = "{}"
        "#,
        backup.base_url(Shape::OpenAi),
    );
    let routing = Routing::start(&hearth, &toml, |_| {}).await;
    let long = "a b c d ".repeat(200);
    let body = json!({"model": "local:tiny", "messages": [{"role": "user", "content": long}]});
    let reply = routing.post(&body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let decision = explained(&routing, &reply).await;
    assert_eq!(decision["served_by"], "backup:say:8");
    assert_eq!(decision["escalated"], "failed", "{decision}");
    let measured = routing.get("/v1/route/metrics").await.json();
    assert_eq!(measured["escalations_by_reason"], json!({"failed": 1}));
    let series = routing.get("/metrics").await.body;
    assert!(series.contains("ingle_escalations_total{reason=\"failed\"}"));
    routing.end().await;
}
