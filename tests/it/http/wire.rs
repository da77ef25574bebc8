//! HTTP/1.1 by hand, so that a test can say what no client would.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing here takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        let parsed = serde_json::from_str(&self.body);
        parsed.unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The error it holds, after checking that it has all fields and nothing else.
    pub(crate) fn error(&self) -> Value {
        let body = self.json();
        let keys: Vec<&String> = body["error"]
            .as_object()
            .expect("an error")
            .keys()
            .collect();
        assert_eq!(keys, ["message", "type", "param", "code"], "{self:?}");
        assert_eq!(body.as_object().unwrap().len(), 1);
        body["error"].clone()
    }

    /// The data of a stream's events, after checking how they are framed.
    pub(crate) fn events(&self) -> Vec<String> {
        assert_eq!(self.header("content-type"), Some("text/event-stream"));
        let events = self.body.strip_suffix("\n\n").expect("a whole last event");
        let events = events.split("\n\n").filter(|event| !event.starts_with(':'));
        events
            .map(|event| event.strip_prefix("data: ").unwrap().to_owned())
            .collect()
    }

    /// Reads an answer from its bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let is_chunked = headers.iter().any(|(name, _)| name == "transfer-encoding");
        let body = &bytes[end + 4..];
        let body = if is_chunked {
            unchunk(body)
        } else {
            body.to_vec()
        };
        Some(Self {
            status,
            headers,
            body: String::from_utf8(body).unwrap(),
        })
    }
}

/// Takes chunks apart, as far as they go.
fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let rest = &bytes[end + 2..];
        whole.extend_from_slice(&rest[..size.min(rest.len())]);
        let Some(next) = rest.get(size + 2..) else {
            break;
        };
        bytes = next;
    }
    whole
}

/// A chat completion's bytes; the connection is closed after it.
pub(crate) fn request(body: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends `bytes` and reads to the connection's end.
pub(crate) async fn exchange(address: SocketAddr, bytes: &str) -> Reply {
    let answer = raw(address, bytes.as_bytes()).await.unwrap();
    Reply::parse(&answer).unwrap_or_else(|| panic!("no answer but {answer:?}"))
}

/// Sends `bytes` and returns all that comes back until the connection ends.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    // A server that has enough may close before all is sent.
    let _ = stream.write_all(bytes).await;
    rest(&mut stream).await
}

/// All that still comes. A reset after an answer is an end like any other.
pub(crate) async fn rest(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let read = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(n) => answer.extend_from_slice(&buffer[..n]),
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, read).await;
    ended.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
    Ok(answer)
}

/// Reads until `mark` came.
pub(crate) async fn read_to(stream: &mut TcpStream, mark: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = async {
        let mut buffer = vec![0; 4096];
        while !answer
            .windows(mark.len())
            .any(|window| window == mark.as_bytes())
        {
            let n = stream.read(&mut buffer).await.unwrap();
            assert!(
                n > 0,
                "ended before {mark:?}: {}",
                String::from_utf8_lossy(&answer)
            );
            answer.extend_from_slice(&buffer[..n]);
        }
    };
    let read = tokio::time::timeout(PATIENCE, read).await;
    read.unwrap_or_else(|_| panic!("{mark:?} did not come"));
    answer
}
