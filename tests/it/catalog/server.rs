//! An HTTP server that does what a test says, down to cutting an answer short.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A slow answer comes in so many slices a second.
const SLICES_A_SECOND: usize = 50;

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

    /// Asks for a part of any file.
    pub(super) fn part(start: usize, end: usize) -> Self {
        let range = format!("bytes={start}-{}", end - 1);
        Self {
            method: "GET".to_owned(),
            path: String::new(),
            headers: BTreeMap::from([("range".to_owned(), range)]),
        }
    }

    /// Where the part of a file of this length that is asked for starts and ends.
    pub(super) fn range(&self, n_bytes: usize) -> Option<(usize, usize)> {
        let (start, last) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let end = last.parse().map_or(n_bytes, |last: usize| last + 1);
        Some((start.parse().ok()?, end.min(n_bytes)))
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
    /// No faster than this over this connection.
    pub(super) bytes_per_second: Option<u32>,
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

    pub(super) fn slowly(mut self, bytes_per_second: u32) -> Self {
        self.bytes_per_second = Some(bytes_per_second);
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
    let part = request.range(bytes.len()).filter(|_| is_same);
    let reply = match part {
        None => whole(),
        Some((start, _)) if start >= bytes.len() => Reply::status(416),
        Some((start, end)) => Reply {
            status: 206,
            body: bytes[start..end].to_vec(),
            ..Reply::default()
        }
        .header(
            "content-range",
            format!("bytes {start}-{}/{}", end - 1, bytes.len()),
        ),
    };
    reply.header("etag", etag)
}

/// A running server; it ends with the test's process.
pub(super) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    n_sent: Arc<AtomicUsize>,
}

/// What HTTP is spoken over.
pub(super) trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

impl Server {
    /// `answer` gets each request and how many of its method came before.
    pub(super) fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_over(|stream| Some(Box::new(stream) as Box<dyn Wire>), answer)
    }

    /// The same, with something between the sockets and HTTP, e.g. TLS.
    pub(super) fn start_over(
        wrap: impl Fn(TcpStream) -> Option<Box<dyn Wire>> + Send + Sync + 'static,
        answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let n_sent: Arc<AtomicUsize> = Arc::default();
        let (heard, answer, wrap) = (Arc::clone(&requests), Arc::new(answer), Arc::new(wrap));
        let sent = Arc::clone(&n_sent);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (heard, answer, wrap) =
                    (Arc::clone(&heard), Arc::clone(&answer), Arc::clone(&wrap));
                let sent = Arc::clone(&sent);
                std::thread::spawn(move || {
                    // A stalling answer ends when the client hangs up, or then.
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
                    let Some(mut stream) = wrap(stream) else {
                        return;
                    };
                    let Some(request) = read(&mut stream) else {
                        return;
                    };
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
                    let _ = write(&mut stream, &request, &answer(&request, n_before), &sent);
                });
            }
        });
        Self {
            address,
            requests,
            n_sent,
        }
    }

    /// Bytes of bodies that were sent so far.
    pub(super) fn n_sent(&self) -> usize {
        self.n_sent.load(Ordering::Relaxed)
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
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

fn read(stream: &mut dyn Wire) -> Option<Request> {
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

fn write(
    stream: &mut dyn Wire,
    request: &Request,
    reply: &Reply,
    n_sent: &AtomicUsize,
) -> std::io::Result<()> {
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
    let body = &reply.body[..end];
    let slice = reply
        .bytes_per_second
        .map_or(body.len(), |rate| rate as usize / SLICES_A_SECOND);
    for slice in body.chunks(slice.max(1)) {
        stream.write_all(slice)?;
        stream.flush()?;
        n_sent.fetch_add(slice.len(), Ordering::Relaxed);
        if reply.bytes_per_second.is_some() {
            std::thread::sleep(Duration::from_secs(1) / u32::try_from(SLICES_A_SECOND).unwrap());
        }
    }
    stream.flush()?;
    if reply.stalls {
        let _ = stream.read(&mut [0]);
    }
    Ok(())
}
