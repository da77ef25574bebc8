//! Who is let in, and what those hear who are not.

use super::wire::{self, Reply, request};
use super::{Options, Served, ask};

/// Every route that needs a key.
const GUARDED: [(&str, &str); 5] = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/tiny"),
    ("GET", "/metrics"),
    ("GET", "/mcp"),
    ("POST", "/v1/chat/completions"),
];

async fn send(served: &Served, method: &str, path: &str, headers: &str) -> Reply {
    let bytes = format!("{method} {path} HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
    wire::exchange(served.address, &bytes).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_keys_every_route_but_health_needs_one() {
    let served = Served::start(Options {
        keys: Some("sk-one\nsk-two\n"),
        ..Options::default()
    })
    .await;
    for (method, path) in GUARDED {
        for headers in [
            "host: x\r\n",
            "host: x\r\nauthorization: Bearer sk-thre\r\n",
            "host: x\r\nauthorization: Bearer sk-one1\r\n",
            "host: x\r\nauthorization: Basic sk-one\r\n",
            "host: x\r\nx-api-key: \r\n",
        ] {
            let reply = send(&served, method, path, headers).await;
            assert_eq!(reply.status, 401, "{path} {headers}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
            let error = reply.error();
            assert_eq!(error["type"], "authentication_error");
            assert!(!reply.body.contains("sk-"), "no key is repeated: {error}");
        }
        // With a key, a name of its own is nobody's business.
        for headers in [
            "host: ml.example\r\nauthorization: Bearer sk-one\r\n",
            "host: ml.example\r\nx-api-key: sk-two\r\n",
        ] {
            let reply = send(&served, method, path, headers).await;
            assert_ne!(reply.status, 401, "{path}");
            assert_ne!(reply.status, 403, "{path}");
        }
    }
    for path in ["/health", "/health/live"] {
        let reply = send(&served, "GET", path, "host: probe\r\n").await;
        assert_eq!((reply.status, &*reply.body), (200, "{\"status\":\"ok\"}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_keys_pages_and_other_names_are_refused() {
    let served = Served::usual().await;
    for (method, path) in GUARDED {
        for headers in [
            "host: evil.example\r\n",
            "host: localhost\r\norigin: https://evil.example\r\n",
            "host: localhost\r\norigin: null\r\n",
        ] {
            let reply = send(&served, method, path, headers).await;
            assert_eq!(reply.status, 403, "{path} {headers}");
            assert_eq!(reply.error()["code"], "foreign_origin");
            let reflected = reply.header("access-control-allow-origin");
            assert_eq!(reflected, None, "no page is let in by CORS");
        }
        let page = "host: localhost\r\norigin: http://localhost:3000\r\n";
        assert_ne!(
            send(&served, method, path, page).await.status,
            403,
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_cannot_post_without_asking_first() {
    let served = Served::usual().await;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "",
        "multipart/form-data",
    ] {
        let bytes = request(&ask(1).to_string()).replace("application/json", kind);
        let reply = wire::exchange(served.address, &bytes).await;
        assert_eq!(reply.status, 415, "{kind}");
        assert!(
            reply.error()["message"]
                .as_str()
                .unwrap()
                .contains("application/json")
        );
    }
    let kind = "Application/JSON; charset=utf-8";
    let bytes = request(&ask(1).to_string()).replace("application/json", kind);
    assert_eq!(wire::exchange(served.address, &bytes).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_and_methods_that_are_not_there_are_error_objects() {
    let served = Served::usual().await;
    for path in [
        "/v1/nothing",
        "/",
        "/v1/models/",
        "/v1/chat/completions/x",
        "/../etc/passwd",
    ] {
        let reply = served.get(path).await;
        assert_eq!(reply.status, 404, "{path}");
        let error = reply.error();
        assert_eq!(error["message"], format!("there is no GET {path}"));
    }
    for (method, path) in [
        ("GET", "/v1/chat/completions"),
        ("DELETE", "/v1/models"),
        ("POST", "/health"),
    ] {
        let reply = send(
            &served,
            method,
            path,
            "host: localhost\r\ncontent-length: 0\r\n",
        )
        .await;
        assert_eq!(reply.status, 405, "{method} {path}");
        assert_eq!(
            reply.error()["message"],
            format!("{path} does not take {method}")
        );
        assert!(reply.header("allow").is_some(), "{method} {path}");
    }
}
