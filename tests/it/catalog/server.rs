//! An HTTP server that does what a test says, down to cutting an answer short.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What was asked.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// By lower-case name.
    pub(super) headers: BTreeMap<String, String>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is answered.
#[derive(Clone, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// So many bytes of the body are sent, then the connection ends.
    pub(super) cut_at: Option<usize>,
    /// Before it ends so, nothing is sent for as long as the client waits.
    pub(super) stalls: bool,
}

impl Reply {
    pub(super) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(super) fn header(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(super) fn cut_at(mut self, n_bytes: usize) -> Self {
        self.cut_at = Some(n_bytes);
        self
    }

    pub(super) fn stalling_at(mut self, n_bytes: usize) -> Self {
        self.cut_at = Some(n_bytes);
        self.stalls = true;
        self
    }
}

/// A file as a good server gives it: whole, or the part that was asked for if it is still the same.
pub(super) fn file(request: &Request, bytes: &[u8], etag: &str) -> Reply {
    let etag = format!("\"{etag}\"");
    let whole = || Reply {
        status: 200,
        body: bytes.to_vec(),
        ..Reply::default()
    };
    let is_same = request.header("if-range").is_none_or(|tag| tag == etag);
    let start = request
        .header("range")
        .and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        })
        .filter(|_| is_same);
    let reply = match start {
        None => whole(),
        Some(start) if start >= bytes.len() => Reply::status(416),
        Some(start) => Reply {
            status: 206,
            body: bytes[start..].to_vec(),
            ..Reply::default()
        }
        .header(
            "content-range",
            format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()),
        ),
    };
    reply.header("etag", etag)
}

/// A running server; it ends with the test's process.
pub(super) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `answer` gets each request and how many of its method came before.
    pub(super) fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (heard, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (heard, answer) = (Arc::clone(&heard), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    let n_before = {
                        let mut heard = heard.lock().unwrap();
                        let n_before = heard
                            .iter()
                            .filter(|other| other.method == request.method)
                            .count();
                        heard.push(request.clone());
                        n_before
                    };
                    // The client may hang up at any time.
                    let _ = write(&stream, &request, &answer(&request, n_before));
                });
            }
        });
        Self { address, requests }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The same server, under another name.
    pub(super) fn other_url(&self) -> String {
        format!("http://localhost:{}", self.address.port())
    }

    pub(super) fn requests(&self, method: &str) -> Vec<Request> {
        let all = self.requests.lock().unwrap();
        all.iter()
            .filter(|request| request.method == method)
            .cloned()
            .collect()
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let line = lines.next()?.ok()?;
        if line.is_empty() {
            return Some(Request {
                method,
                path,
                headers,
            });
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
}

fn write(mut stream: &TcpStream, request: &Request, reply: &Reply) -> std::io::Result<()> {
    let mut head = Vec::new();
    write!(
        head,
        "HTTP/1.1 {} Said\r\nconnection: close\r\n",
        reply.status
    )?;
    for (name, value) in &reply.headers {
        write!(head, "{name}: {value}\r\n")?;
    }
    if !reply
        .headers
        .iter()
        .any(|(name, _)| name == "content-length")
    {
        write!(head, "content-length: {}\r\n", reply.body.len())?;
    }
    head.extend(b"\r\n");
    stream.write_all(&head)?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let end = reply
        .cut_at
        .unwrap_or(reply.body.len())
        .min(reply.body.len());
    stream.write_all(&reply.body[..end])?;
    stream.flush()?;
    if reply.stalls {
        // Ends when the client hangs up.
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let _ = std::io::Read::read(&mut stream, &mut [0]);
    }
    Ok(())
}
