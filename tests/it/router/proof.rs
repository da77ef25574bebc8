//! What left, as the server proves it from its log.

use std::fs;

use ingle::egress::LOG_NAME;
use ingle::keys::{self, Key};
use serde_json::{Value, json};

use super::{Hearth, Routing};
use crate::http::wire;
use crate::pool::Wish;
use crate::provider_server::{ProviderServer, Shape};

/// A provider elsewhere, and a machine of ours: one server, by two names.
fn toml(server: &ProviderServer) -> String {
    let port = server.address().port();
    format!(
        r#"
        [router]
        fallback = false
        local_hosts = ["127.0.0.1"]
        [providers.cloud]
        dialect = "compatible"
        base_url = "http://localhost:{port}/v1"
        [providers.gpu]
        dialect = "compatible"
        base_url = "{}"
        "#,
        server.base_url(Shape::OpenAi),
    )
}

fn ask(model: &str, privacy: &str) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "user", "content": "canary-8101"}],
        "max_tokens": 20,
        "ingle": {"privacy": privacy},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proof_counts_what_left_and_no_local_only_request_is_in_it() {
    let server = ProviderServer::start();
    let hearth = Hearth::new(Wish::default());
    let routing = Routing::start(&hearth, &toml(&server), |_| {}).await;
    let none = routing.get("/v1/egress/proof").await.json();
    assert_eq!(
        (&none["log"]["entries"], &none["first"]),
        (&json!(0), &Value::Null)
    );
    for (model, privacy, status) in [
        ("cloud:say:3", "any", 200),
        ("cloud:say:3", "any", 200),
        ("cloud:say:3", "local_only", 403),
        ("gpu:say:3", "local_only", 200),
        ("local:tiny", "local_only", 200),
    ] {
        let reply = routing.post(&ask(model, privacy)).await;
        assert_eq!(reply.status, status, "{model} {privacy}: {reply:?}");
    }
    let proof = routing.get("/v1/egress/proof").await.json();
    assert_eq!(proof["holds"], true, "{proof}");
    assert_eq!(proof["log"]["entries"], 3, "{proof}");
    assert_eq!(proof["total"]["requests"], server.n_requests());
    let bytes: u64 = ["cloud", "gpu"]
        .iter()
        .map(|name| proof["by_provider"][*name]["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(proof["total"]["bytes"], bytes);
    assert_eq!(proof["by_class"]["any"]["requests"], 2);
    assert_eq!(proof["by_class"]["local_only"]["requests"], 1);
    assert_eq!(proof["by_keeping"]["ours"]["requests"], 1);
    assert_eq!(
        proof["local_only"],
        json!({"to_our_machines": 1, "elsewhere": 0})
    );
    assert_eq!(
        proof["forbidden"],
        json!({"requests": 0, "first_line": null})
    );
    assert!(proof["first"].as_str() <= proof["last"].as_str(), "{proof}");
    // What is asked for is counted, and the whole log checked.
    let past = routing.get("/v1/egress/proof?to=2020-01-01").await.json();
    assert_eq!(
        (&past["total"]["requests"], &past["log"]["entries"]),
        (&json!(0), &json!(3))
    );
    let wrong = routing.get("/v1/egress/proof?form=2020-01-01").await;
    assert_eq!(
        (wrong.status, wrong.error()["param"].clone()),
        (400, json!("form"))
    );
    // A head that was kept is still there; another is not.
    let head = proof["log"]["head"].as_str().unwrap();
    let kept = routing.get(&format!("/v1/egress/proof?head={head}")).await;
    assert_eq!(kept.status, 200, "{kept:?}");
    let lost = routing.get("/v1/egress/proof?head=00ff").await;
    assert_eq!(
        (lost.status, lost.error()["code"].clone()),
        (409, json!("egress_log_lost"))
    );
    routing.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_changed_proves_nothing_and_says_where() {
    let server = ProviderServer::start();
    let hearth = Hearth::new(Wish::default());
    let routing = Routing::start(&hearth, &toml(&server), |_| {}).await;
    for _ in 0..3 {
        assert_eq!(routing.post(&ask("cloud:say:3", "any")).await.status, 200);
    }
    let path = routing.home.path().join(LOG_NAME);
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("canary"), "{text}");
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for (changed, line) in [
        (text.replacen("\"cloud\"", "\"gpu\"", 1), 1),
        (
            [
                lines[0],
                &lines[1].replace("localhost", "127.0.0.1"),
                lines[2],
            ]
            .concat(),
            2,
        ),
        ([lines[0], lines[2]].concat(), 2),
        (lines[..2].concat(), 2),
    ] {
        fs::write(&path, changed).unwrap();
        let reply = routing.get("/v1/egress/proof").await;
        let error = reply.error();
        assert_eq!(
            (reply.status, &error["code"]),
            (409, &json!("egress_log_broken"))
        );
        let says = error["message"].as_str().unwrap();
        assert!(says.starts_with(&format!("line {line} of ")), "{says}");
    }
    fs::write(&path, &text).unwrap();
    assert_eq!(routing.get("/v1/egress/proof").await.status, 200);
    routing.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_administrators_key_sees_what_all_teams_sent_away() {
    let home = tempfile::tempdir().unwrap();
    let mut admin = Key::new("root", "");
    admin.is_admin = true;
    let admin = keys::add(home.path(), admin).unwrap();
    let member = keys::add(home.path(), Key::new("alice", "")).unwrap();
    let hearth = Hearth::new(Wish::default());
    let routing = Routing::start_in(home, &hearth, "", |_| {}).await;
    for (key, status) in [(admin, 200), (member, 403), ("no".to_owned(), 401)] {
        let request = format!(
            "GET /v1/egress/proof HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\nconnection: close\r\n\r\n"
        );
        let reply = wire::exchange(routing.address, &request).await;
        assert_eq!(reply.status, status, "{reply:?}");
    }
    routing.end().await;
}
