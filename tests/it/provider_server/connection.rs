//! A connection: requests read, scripts played.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::answers::{Planned, Price, answer};
use super::script::{Framing, Script, Step};
use super::{Recorded, Seen};

const HEADERS_MOST: usize = 64 << 10;

pub(super) async fn serve(mut stream: TcpStream, seen: Arc<Seen>) {
    let _ = stream.set_nodelay(true);
    let mut read = Vec::new();
    while let Ok(Some(mut request)) = next_request(&mut stream, &mut read).await {
        let Planned { script, bill } = answer(&request, &seen);
        request.generation = bill.as_ref().map(|(id, _)| id.clone());
        seen.requests.lock().unwrap().push(request);
        match play(&mut stream, script, bill, &seen).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => {
                seen.n_gone.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
    }
}

/// Reads a request; none where the client has left.
async fn next_request(stream: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<Option<Recorded>> {
    let end = loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(read).await? == 0 || read.len() > HEADERS_MOST {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    while read.len() < end + length {
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
    let body = serde_json::from_slice(&read[end..end + length]).unwrap_or(Value::Null);
    read.drain(..end + length);
    Ok(Some(Recorded {
        method: first.next().unwrap_or_default().to_owned(),
        path: first.next().unwrap_or_default().to_owned(),
        headers,
        body,
        generation: None,
    }))
}

/// Plays an answer. Whether another request may follow.
///
/// Errors: the client left.
async fn play(
    stream: &mut TcpStream,
    script: Script,
    bill: Option<(String, Price)>,
    seen: &Seen,
) -> io::Result<bool> {
    tokio::time::sleep(script.latency).await;
    let Some(status) = script.status else {
        if script.framing == Framing::Close {
            return Ok(false);
        }
        stall(stream).await?;
        return Ok(false);
    };
    let body_length = script.body().len();
    let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in &script.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    match script.framing {
        Framing::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
        Framing::Length => {
            let _ = write!(head, "content-length: {body_length}\r\n");
        }
        Framing::Close => head.push_str("connection: close\r\n"),
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    let (mut told, mut was_reported) = (0, false);
    let record = |told, was_reported| {
        if let Some((id, price)) = &bill {
            let bill = price.bill(told, was_reported);
            seen.bills.lock().unwrap().insert(id.clone(), bill);
        }
    };
    if status == 200 {
        record(0, false);
    }
    for step in script.steps {
        match step {
            Step::Send(bytes) if bytes.is_empty() => {}
            Step::Send(bytes) if script.framing == Framing::Chunked => {
                let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                chunk.extend(bytes);
                chunk.extend(b"\r\n");
                stream.write_all(&chunk).await?;
            }
            Step::Send(bytes) => stream.write_all(&bytes).await?,
            Step::Told(n) => {
                told = n;
                record(told, was_reported);
            }
            Step::Reported => {
                was_reported = true;
                record(told, was_reported);
            }
            Step::Wait(time) => wait(stream, time).await?,
            Step::Stall => {
                stall(stream).await?;
                return Ok(false);
            }
            Step::Reset => {
                // What is buffered arrives first; then the break.
                tokio::time::sleep(Duration::from_millis(20)).await;
                stream.set_zero_linger()?;
                return Ok(false);
            }
            Step::Close => return Ok(false),
        }
    }
    if script.framing == Framing::Chunked {
        stream.write_all(b"0\r\n\r\n").await?;
    }
    Ok(script.framing != Framing::Close)
}

/// Waits, unless the client leaves first.
async fn wait(stream: &TcpStream, time: Duration) -> io::Result<()> {
    if time < Duration::from_millis(1) {
        tokio::time::sleep(time).await;
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(time) => Ok(()),
        left = gone(stream) => left,
    }
}

/// Says nothing until the client leaves.
///
/// Errors: always, in the end.
async fn stall(stream: &TcpStream) -> io::Result<()> {
    gone(stream).await
}

async fn gone(stream: &TcpStream) -> io::Result<()> {
    let mut byte = [0];
    loop {
        match stream.peek(&mut byte).await {
            Ok(0) => return Err(io::ErrorKind::ConnectionReset.into()),
            Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => return Err(error),
        }
    }
}
