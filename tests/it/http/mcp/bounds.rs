//! What strangers may not do at `/mcp`, and how much others may.

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::super::wire::{self, Reply};
use super::super::{Options, Served};
use super::{ACCEPT, Client, VERSION, initialize, post};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_as_everywhere() {
    let open = initialize(VERSION).to_string();
    let served = Served::start(Options {
        keys: Some("alpha"),
        ..Options::default()
    })
    .await;
    for headers in ["", "authorization: Bearer beta\r\n"] {
        let request = post(&open, &format!("{ACCEPT}{headers}"));
        assert_eq!(wire::exchange(served.address, &request).await.status, 401);
    }
    let request = post(&open, &format!("{ACCEPT}authorization: Bearer alpha\r\n"));
    let request = request.replace("host: localhost", "host: ml.example");
    assert_eq!(wire::exchange(served.address, &request).await.status, 200);

    let served = Served::usual().await;
    let foreign = [
        post(&open, ACCEPT).replace("host: localhost", "host: evil.example.com"),
        post(
            &open,
            &format!("{ACCEPT}origin: https://evil.example.com\r\n"),
        ),
        post(&open, &format!("{ACCEPT}origin: null\r\n")),
    ];
    for request in foreign {
        assert_eq!(wire::exchange(served.address, &request).await.status, 403);
    }
    for host in ["127.0.0.1:1", "[::1]:1", "localhost:1"] {
        let origin = format!("{ACCEPT}origin: http://{host}\r\n");
        let request = post(&open, &origin).replace("host: localhost", &format!("host: {host}"));
        assert_eq!(
            wire::exchange(served.address, &request).await.status,
            200,
            "{host}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_is_an_error_object() {
    let served = Served::usual().await;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    let deep = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{{\"a\":{}{}}}}}",
        "[".repeat(5000),
        "]".repeat(5000)
    );
    for (body, status, code) in [
        ("", 400, -32700),
        ("{", 400, -32700),
        ("\u{feff}{}", 400, -32700),
        (&*deep, 400, -32700),
        (&*format!("[{ping},{ping}]"), 400, -32600),
        ("[]", 400, -32600),
        ("3", 400, -32600),
        ("null", 400, -32600),
        ("{}", 400, -32600),
        (
            "{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"ping\"}",
            400,
            -32600,
        ),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"ping\"}",
            400,
            -32600,
        ),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"ping\"}",
            400,
            -32600,
        ),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":3}", 400, -32600),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":[]}",
            400,
            -32600,
        ),
        // No session.
        (&*ping, 400, -32600),
    ] {
        let reply = wire::exchange(served.address, &post(body, ACCEPT)).await;
        assert_eq!(reply.status, status, "{body:.60}: {reply:?}");
        let error = reply.json();
        assert_eq!(
            (&error["jsonrpc"], &error["error"]["code"]),
            (&json!("2.0"), &json!(code)),
            "{body:.60}"
        );
    }
    let open = initialize(VERSION).to_string();
    let text =
        post(&open, ACCEPT).replace("content-type: application/json", "content-type: text/plain");
    assert_eq!(wire::exchange(served.address, &text).await.status, 415);
    for accept in [
        "",
        "accept: application/json\r\n",
        "accept: text/event-stream\r\n",
    ] {
        let reply = wire::exchange(served.address, &post(&open, accept)).await;
        assert_eq!(
            (reply.status, &reply.json()["jsonrpc"]),
            (406, &json!("2.0"))
        );
    }
    let long = post("", ACCEPT).replace("content-length: 0", "content-length: 99999999");
    let long = long + &" ".repeat(40 << 20);
    let answer = wire::raw(served.address, long.as_bytes()).await.unwrap();
    let reply = Reply::parse(&answer).unwrap();
    assert_eq!(reply.status, 413);
    assert_eq!(served.get("/health/live").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_known_until_it_is_ended() {
    let served = Served::usual().await;
    let client = Client::open(&served).await;
    let other = client.headers.replace(VERSION, "1999-01-01");
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}).to_string();
    let reply = wire::exchange(served.address, &post(&list, &other)).await;
    assert_eq!(
        (reply.status, &reply.json()["jsonrpc"]),
        (400, &json!("2.0"))
    );
    let head = |method: &str| {
        let headers = &client.headers;
        format!("{method} /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n")
    };
    // The stream outside of any request stays open, and ends with the session.
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(head("GET").as_bytes()).await.unwrap();
    wire::read_to(&mut stream, "text/event-stream").await;
    let ended = wire::exchange(served.address, &head("DELETE")).await;
    assert_eq!((ended.status, &*ended.body), (204, ""));
    wire::rest(&mut stream).await.unwrap();
    let reply = wire::exchange(served.address, &post(&list, &client.headers)).await;
    assert_eq!(
        (reply.status, &reply.json()["jsonrpc"]),
        (404, &json!("2.0"))
    );
    let put = wire::exchange(served.address, &head("PUT")).await;
    assert_eq!(put.status, 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_nobody_ends_do_not_add_up() {
    let served = Served::usual().await;
    let first = Client::open(&served).await;
    let used = Client::open(&served).await;
    let request = post(&initialize(VERSION).to_string(), ACCEPT);
    for _ in 0..255 {
        assert_eq!(wire::exchange(served.address, &request).await.status, 200);
        used.tool("unload_model", &json!({"model": "tiny"})).await;
    }
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    assert_eq!(first.send(&list).await.status, 404);
    assert_eq!(used.send(&list).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_nobody_waits_on_does_not_hold_up_the_end() {
    let served = Served::usual().await;
    let client = Client::open(&served).await;
    let headers = &client.headers;
    let head = format!("GET /mcp HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    wire::read_to(&mut stream, "text/event-stream").await;
    served.stop.cancel();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), served.running).await;
    assert_eq!(ended.expect("long before the drain is over").unwrap(), 0);
}
