//! Vectors of a provider's models, under the rules that hold for answers.

use ingle::money::MicroUsd;
use ingle::router::RouterOptions;
use ingle::router::money::{Limit, Measure, Moment, Money, Per, Scope, Whom};
use serde_json::{Value, json};

use super::{Hearth, Routing};
use crate::http::wire::Reply;
use crate::pool::Wish;
use crate::provider_server::{ProviderServer, Shape};

const SMALL: &str = "text-embedding-3-small";

fn toml(server: &ProviderServer) -> String {
    format!(
        r#"
        [router.aliases]
        vectors = "openai:{SMALL}"
        [providers.openai]
        base_url = "{openai}"
        api_key = "sk-canary-openai"
        [providers.openrouter]
        base_url = "{}"
        api_key = "sk-canary-openrouter"
        [providers.anthropic]
        base_url = "{}"
        api_key = "sk-canary-anthropic"
        [providers.vllm]
        base_url = "{openai}"
        models = ["qwen-embed*"]
        "#,
        server.base_url(Shape::OpenRouter),
        server.base_url(Shape::Anthropic),
        openai = server.base_url(Shape::OpenAi),
    )
}

fn ask(model: &str) -> Value {
    json!({"model": model, "input": ["canary-8201", "b"]})
}

/// The same with more fields, or others.
fn with(model: &str, more: &Value) -> Value {
    crate::http::with(ask(model), more)
}

fn by(reply: &Reply) -> &str {
    assert_eq!(reply.status, 200, "{reply:?}");
    let route = reply.header("x-ingle-route").unwrap();
    route.split(';').next().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_of_a_providers_goes_there_and_one_of_this_machine_stays() {
    let server = ProviderServer::start();
    let hearth = Hearth::new(Wish::default());
    let routing = Routing::start(&hearth, &toml(&server), |_| {}).await;
    for (model, target, path) in [
        (
            "openai:text-embedding-3-small",
            "openai:text-embedding-3-small",
            "/v1/embeddings",
        ),
        ("vectors", "openai:text-embedding-3-small", "/v1/embeddings"),
        (SMALL, "openai:text-embedding-3-small", "/v1/embeddings"),
        (
            "openrouter:text-embedding-3-small",
            "openrouter:openai/text-embedding-3-small",
            "/api/v1/embeddings",
        ),
        ("qwen-embed-8b", "vllm:qwen-embed-8b", "/v1/embeddings"),
    ] {
        let reply = routing.embed(&ask(model)).await;
        assert_eq!(by(&reply), target, "{model}");
        let answer = reply.json();
        assert_eq!(answer["data"][1]["embedding"], json!([1.0, 0.5, -1.0]));
        assert_eq!(
            answer["usage"],
            json!({"prompt_tokens": 5, "total_tokens": 5})
        );
        assert_eq!(answer["model"], model);
        let sent = server.requests().pop().unwrap();
        assert_eq!(sent.path, path, "{model}");
        assert_eq!(target.split_once(':').unwrap().1, sent.model());
        let decision = routing.decision(&reply).await;
        assert_eq!(decision["served_by"], target);
        assert_eq!(decision["outcome"], "stop");
        assert_eq!(decision["attempts"][0]["outcome"], "answered");
        assert_eq!(decision["usage"]["prompt_tokens"], 5);
        assert_eq!(decision["usage"]["completion_tokens"], 0);
    }
    let n_sent = server.n_requests();
    let reply = routing.embed(&ask("tiny")).await;
    assert_eq!(by(&reply), "local:tiny");
    assert_eq!(server.n_requests(), n_sent);
    // What left is in the log, and no more.
    let proof = routing.get("/v1/egress/proof").await.json();
    assert_eq!(proof["log"]["entries"], n_sent);
    routing.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_leave_or_cannot_be_said_is_refused_and_not_sent() {
    let server = ProviderServer::start();
    let hearth = Hearth::new(Wish::default());
    let routing = Routing::start(&hearth, &toml(&server), |_| {}).await;
    let openai = "openai:text-embedding-3-small";
    let cases = [
        (
            with(openai, &json!({"ingle": {"privacy": "local_only"}})),
            403,
            "a local_only request may not go there",
        ),
        (
            with(
                "vllm:qwen-embed-8b",
                &json!({"ingle": {"privacy": "zdr_only"}}),
            ),
            403,
            "a zdr_only request may not go there",
        ),
        (
            with(
                openai,
                &json!({"ingle": {"preferences": {"acceptable_models": ["local:*"]}}}),
            ),
            403,
            "not in acceptable_models",
        ),
        (
            with(openai, &json!({"ingle": {"team": "nobody"}})),
            400,
            "nobody",
        ),
        (
            with("anthropic:claude-embed", &json!({})),
            400,
            "it cannot do vectors",
        ),
        (
            with(openai, &json!({"input": ["a", [1]]})),
            400,
            "input mixes texts and tokens",
        ),
        (
            with(openai, &json!({"truncate": true})),
            400,
            "openai cuts no input short",
        ),
        (with("auto", &json!({})), 400, "so name one"),
        (with("local:*", &json!({})), 400, "so name one"),
        (with("nobodys", &json!({})), 404, "nobodys"),
    ];
    for (body, status, says) in cases {
        let reply = routing.embed(&body).await;
        assert_eq!(reply.status, status, "{body}: {reply:?}");
        let error = reply.error();
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
    }
    assert_eq!(server.n_requests(), 0);
    let proof = routing.get("/v1/egress/proof").await.json();
    assert_eq!(proof["log"]["entries"], 0);
    routing.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cuts_inputs_short_is_told_to_and_who_keeps_nothing_is_found() {
    let server = ProviderServer::start();
    let hearth = Hearth::new(Wish::default());
    let routing = Routing::start(&hearth, &toml(&server), |_| {}).await;
    let cut = with("vllm:qwen-embed-8b", &json!({"truncate": true}));
    assert_eq!(routing.embed(&cut).await.status, 200);
    assert_eq!(server.requests()[0].body["truncate_prompt_tokens"], -1);
    // The same model elsewhere, which is asked to keep nothing.
    let nothing_kept = with(
        "openai:text-embedding-3-small",
        &json!({"ingle": {"privacy": "zdr_only"}}),
    );
    let reply = routing.embed(&nothing_kept).await;
    assert_eq!(by(&reply), "openrouter:openai/text-embedding-3-small");
    let provider = &server.requests()[1].body["provider"];
    assert_eq!(provider["zdr"], true);
    routing.end().await;
}

/// Everybody together may spend so many micro-dollars a month.
fn limited(options: &mut RouterOptions, most: u64) {
    options.money = Money::unrecorded([Limit {
        whom: Whom::One(Scope::Everybody),
        per: Per::Month,
        measure: Measure::Money,
        most,
    }]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vectors_are_paid_for_and_a_budget_holds() {
    let server = ProviderServer::start();
    let hearth = Hearth::new(Wish::default());
    let routing = Routing::start(&hearth, &toml(&server), |options| limited(options, 6)).await;
    let used = || {
        let money = routing.router.money();
        money.used(&Scope::Everybody, Per::Month, Moment::now())
    };
    // Five tokens of $0.02 a million are a part of a micro-dollar; OpenRouter says what it charged.
    for (model, money, tokens) in [
        ("openai:text-embedding-3-small", 1, 5),
        ("openrouter:openai/text-embedding-3-small", 4, 10),
    ] {
        assert_eq!(routing.embed(&ask(model)).await.status, 200);
        assert_eq!((used().money, used().tokens), (MicroUsd(money), tokens));
    }
    let unpriced = routing.embed(&ask("vllm:qwen-embed-8b")).await;
    assert_eq!(unpriced.status, 403, "{unpriced:?}");
    let says = unpriced.error()["message"].to_string();
    assert!(says.contains("its price is not known"), "{says}");
    // 200 bytes may be 216 tokens, which may cost 5 micro-dollars: 2 are left.
    let long = json!({"model": "openai:text-embedding-3-small", "input": "x".repeat(200)});
    let over = routing.embed(&long).await;
    assert_eq!(
        (over.status, over.error()["code"].clone()),
        (429, json!("budget_exceeded"))
    );
    assert_eq!(server.n_requests(), 2);
    routing.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_model_elsewhere_answers_for_who_fails_and_nothing_costs_twice() {
    let server = ProviderServer::start();
    let hearth = Hearth::new(Wish::default());
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("http://{}/v1", dead.local_addr().unwrap());
    drop(dead);
    let toml = toml(&server).replacen(&server.base_url(Shape::OpenAi), &nowhere, 1);
    let routing = Routing::start(&hearth, &toml, |options| limited(options, 1000)).await;
    let reply = routing.embed(&ask(SMALL)).await;
    assert_eq!(by(&reply), "openrouter:openai/text-embedding-3-small");
    let decision = routing.decision(&reply).await;
    assert_eq!(decision["attempts"][0]["fault"], "unreachable");
    assert_eq!(decision["attempts"][1]["why"], "failed");
    assert_eq!(decision["cost_micro_usd"], 3);
    let money = routing.router.money();
    let used = money.used(&Scope::Everybody, Per::Month, Moment::now());
    assert_eq!((used.requests, used.money), (1, MicroUsd(3)));
    // Whoever wants no other is told why there is none.
    let alone = json!({
        "model": "openai:text-embedding-3-small",
        "input": "a",
        "ingle": {"enable_fallback": false},
    });
    let reply = routing.embed(&alone).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    routing.end().await;
}
