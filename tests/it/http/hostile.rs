//! Bytes no client should send. The process answers or hangs up, and lives on.

use std::time::{Duration, Instant};

use ingle::http::Limits;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::wire::{self, Reply, request};
use super::{Options, Served, ask};

/// A server that has little patience.
async fn hasty() -> Served {
    Served::start(Options {
        limits: Limits {
            head_time: Duration::from_millis(300),
            body_pause: Duration::from_millis(300),
            body_time: Duration::from_millis(900),
            body_bytes: 100_000,
            ..Limits::default()
        },
        ..Options::default()
    })
    .await
}

async fn assert_alive(served: &Served) {
    assert_eq!(served.get("/health").await.status, 200);
    assert_eq!(served.post(&ask(2)).await.status, 200);
}

#[test]
fn nobody_holds_a_connection_for_long_by_default() {
    let limits = Limits::default();
    assert!(limits.head_time <= Duration::from_secs(10));
    assert!(limits.body_pause <= Duration::from_secs(10));
    assert!(limits.body_time <= Duration::from_mins(2));
    assert!(limits.write_stall <= Duration::from_mins(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_drips_is_given_up() {
    let served = hasty().await;
    let began = Instant::now();
    let mut client = TcpStream::connect(served.address).await.unwrap();
    let (mut read, mut write) = client.split();
    let drip = async {
        for byte in "GET /health HTTP/1.1\r\nhost: localhost\r\nx-a: b\r\n"
            .bytes()
            .cycle()
        {
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = async {
        let mut answer = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut answer).await;
        answer
    };
    let answer = tokio::select! {
        () = drip => panic!("the drip ended first"),
        answer = ended => answer,
    };
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
        "{answer}"
    );
    assert_alive(&served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_are_closed() {
    let served = hasty().await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(served.address).await.unwrap());
    }
    assert_alive(&served).await;
    for client in &mut idle {
        assert!(wire::rest(client).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_pauses_or_drips_is_given_up() {
    let served = hasty().await;
    let whole = request(&ask(2).to_string());
    let (head, body) = whole.split_once("\r\n\r\n").unwrap();
    for pause in [5000, 100] {
        let began = Instant::now();
        let client = TcpStream::connect(served.address).await.unwrap();
        let (mut read, mut write) = client.into_split();
        write
            .write_all(format!("{head}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let body = body.as_bytes().to_vec();
        let drip = tokio::spawn(async move {
            for byte in body {
                if write.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        });
        let mut answer = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut answer).await;
        drip.abort();
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        let reply = Reply::parse(&answer).unwrap();
        assert_eq!(reply.status, 408, "a byte every {pause} ms");
        reply.error();
    }
    assert_alive(&served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_has_bounds() {
    let served = Served::usual().await;
    let long = format!(
        "GET /health HTTP/1.1\r\nx-long: {}\r\n\r\n",
        "a".repeat(10 << 20)
    );
    let many = format!(
        "GET /health HTTP/1.1\r\n{}\r\n",
        "x-a: b\r\n".repeat(10_000)
    );
    let path = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(200_000));
    for bytes in [long, many, path] {
        let answer = wire::raw(served.address, bytes.as_bytes()).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let refused = ["HTTP/1.1 431", "HTTP/1.1 414", "HTTP/1.1 400"];
        let is_refused = refused.iter().any(|status| answer.starts_with(status));
        assert!(is_refused || answer.is_empty(), "{answer}");
    }
    assert_alive(&served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_has_a_bound_with_and_without_a_length() {
    let served = hasty().await;
    let body = "x".repeat(100_001);
    let told = wire::exchange(served.address, &request(&body)).await;
    let head = request("").replace("content-length: 0", "transfer-encoding: chunked");
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let untold = wire::exchange(served.address, &(head + &chunks)).await;
    for reply in [told, untold] {
        assert_eq!(reply.status, 413, "{reply:?}");
        let error = reply.error();
        assert_eq!(error["message"], "the body is longer than 100000 bytes");
    }
    assert_alive(&served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_json_is_named() {
    let served = Served::usual().await;
    let deep = "[".repeat(100_000);
    let cases = [
        ("", "EOF"),
        ("{", "EOF"),
        ("{\"model\": }", "expected value"),
        ("{} {}", "trailing"),
        ("\u{feff}{}", "expected value"),
        (deep.as_str(), "recursion limit"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
    ];
    for (body, part) in cases {
        let reply = wire::exchange(served.address, &request(body)).await;
        assert_eq!(reply.status, 400, "{reply:?}");
        let error = reply.error();
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
    }
    assert_alive(&served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_framing_is_never_two_requests() {
    let served = Served::usual().await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n\
                content-type: application/json\r\n";
    let smuggled = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let n = smuggled.len();
    let cases = [
        format!(
            "{head}content-length: {n}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!("{head}content-length: 0\r\ncontent-length: {n}\r\n\r\n{smuggled}"),
        format!("{head}content-length: -1\r\n\r\n{smuggled}"),
        format!("{head}content-length: +5\r\n\r\n{smuggled}"),
        format!("{head}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{head}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{smuggled}"),
        format!("{head}x: y\r\n folded\r\ncontent-length: 0\r\n\r\n{smuggled}"),
        format!("{head}x\0y: z\r\n\r\n{smuggled}"),
        smuggled.replace(" HTTP/1.1", " HTTP/9.9"),
        "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03".to_owned(),
    ];
    for bytes in cases {
        let answer = wire::raw(served.address, bytes.as_bytes()).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            !answer.contains("\"object\":\"list\""),
            "{bytes:?} smuggled: {answer}"
        );
        assert!(!answer.contains("HTTP/1.1 200"), "{bytes:?}: {answer}");
        assert!(!answer.contains("HTTP/1.1 5"), "{bytes:?}: {answer}");
    }
    assert_alive(&served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_breaks_off_hurts_nobody() {
    let served = Served::usual().await;
    let whole = request(&ask(2).to_string());
    for cut in [1, 20, whole.len() - 1] {
        let mut client = TcpStream::connect(served.address).await.unwrap();
        client.write_all(&whole.as_bytes()[..cut]).await.unwrap();
        client.shutdown().await.unwrap();
        let answer = wire::rest(&mut client).await.unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "cut at {cut}");
    }
    assert_alive(&served).await;
}
