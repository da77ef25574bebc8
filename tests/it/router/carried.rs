//! What of a request is carried to whoever answers: pictures are, and of fields it is told which are not.

use serde_json::{Value, json};

use super::{Hearth, Routing};
use crate::pool::Wish;
use crate::provider_server::{ProviderServer, Shape};

fn toml(server: &ProviderServer) -> String {
    format!(
        r#"
        [router]
        fallback = false
        [providers.openai]
        base_url = "{}"
        api_key = "sk-canary-openai"
        [providers.anthropic]
        base_url = "{}"
        api_key = "sk-canary-anthropic"
        "#,
        server.base_url(Shape::OpenAi),
        server.base_url(Shape::Anthropic),
    )
}

fn ask(model: &str) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "user", "content": "count"}],
        "max_tokens": 20,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_a_provider_has_no_words_for_are_told() {
    let server = ProviderServer::start();
    let hearth = Hearth::new(Wish::default());
    let routing = Routing::start(&hearth, &toml(&server), |_| {}).await;
    for is_stream in [false, true] {
        let mut body = ask("anthropic:say:3");
        body["stream"] = json!(is_stream);
        body["seed"] = json!(7);
        body["presence_penalty"] = json!(0.5);
        body["temperature"] = json!(0.5);
        let reply = routing.post(&body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let told = reply.header("x-ingle-dropped").unwrap();
        let mut fields: Vec<&str> = told.split(", ").collect();
        fields.sort_unstable();
        assert_eq!(fields, ["presence_penalty", "seed"], "{reply:?}");
        let sent = server.requests().pop().unwrap().body;
        assert!(sent.get("seed").is_none() && sent.get("temperature").is_some());
        let decision = routing.decision(&reply).await;
        let dropped = decision["attempts"][0]["dropped"].as_array().unwrap();
        assert_eq!(dropped.len(), 2, "{decision}");
        // Whoever has words for all of them drops nothing, and neither does the engine.
        for model in ["openai:say:3", "local:tiny"] {
            body["model"] = json!(model);
            let reply = routing.post(&body).await;
            assert_eq!(
                (reply.status, reply.header("x-ingle-dropped")),
                (200, None),
                "{model}"
            );
        }
    }
    routing.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_go_to_who_can_see_and_are_refused_where_nobody_can() {
    let server = ProviderServer::start();
    let hearth = Hearth::new(Wish::default());
    let routing = Routing::start(&hearth, &toml(&server), |_| {}).await;
    let pixel = "data:image/png;base64,iVBORw0KGgo=";
    let look = |model: &str| {
        let mut body = ask(model);
        body["messages"][0]["content"] = json!([
            {"type": "text", "text": "what is it?"},
            {"type": "image_url", "image_url": {"url": pixel}},
        ]);
        body
    };
    let reply = routing.post(&look("openai:say:3")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let sent = server.requests().pop().unwrap().body;
    assert_eq!(sent["messages"][0]["content"][1]["image_url"]["url"], pixel);
    let reply = routing.post(&look("anthropic:say:3")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let sent = server.requests().pop().unwrap().body;
    let source = &sent["messages"][0]["content"][1]["source"];
    assert_eq!(
        (&source["media_type"], &source["data"]),
        (&json!("image/png"), &json!("iVBORw0KGgo="))
    );
    let n_sent = server.n_requests();
    for privacy in ["any", "local_only"] {
        let mut body = look("local:tiny");
        body["ingle"] = json!({"privacy": privacy});
        let reply = routing.post(&body).await;
        assert_eq!(reply.status, 400, "{reply:?}");
        let error = reply.error();
        assert_eq!(error["code"], "unsupported_parameter", "{error}");
        let says = error["message"].as_str().unwrap();
        assert!(says.contains("local:tiny: it cannot do images"), "{says}");
    }
    assert_eq!(server.n_requests(), n_sent);
    routing.end().await;
}
