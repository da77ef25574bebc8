//! What is answered, step by step.

use std::time::Duration;

/// What a server does next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Bytes of the body.
    Send(Vec<u8>),
    /// As many of the answer's tokens have left with the bytes before.
    Told(u64),
    /// What it took has left too.
    Reported,
    Wait(Duration),
    /// Nothing more, for as long as the client waits.
    Stall,
    /// The connection breaks.
    Reset,
    /// The connection ends, whatever the headers promised.
    Close,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Chunked,
    /// By its length.
    Length,
    /// By the end of the connection.
    Close,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// Before the headers.
    pub(crate) latency: Duration,
    /// Absent: the connection is silent from the start.
    pub(crate) status: Option<u16>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) framing: Framing,
    pub(crate) steps: Vec<Step>,
}

impl Script {
    pub(crate) fn new(status: u16, content_type: &str, framing: Framing) -> Self {
        Self {
            latency: Duration::ZERO,
            status: Some(status),
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            framing,
            steps: Vec::new(),
        }
    }

    /// An answer that is there at once.
    pub(crate) fn whole(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut script = Self::new(status, content_type, Framing::Length);
        script.steps.push(Step::Send(body.into()));
        script
    }

    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::whole(status, "application/json", body.to_string())
    }

    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// All its bytes, in one step.
    pub(crate) fn body(&self) -> Vec<u8> {
        let bytes = self.steps.iter().filter_map(|step| match step {
            Step::Send(bytes) => Some(bytes.as_slice()),
            _ => None,
        });
        bytes.collect::<Vec<_>>().concat()
    }
}

/// Every case there is, as `fault:NAME`; a number after the last hyphen may be another.
pub(crate) const FAULTS: &[&str] = &[
    "silence",
    "headers-then-silence",
    "comments-forever",
    "roles-then-silence",
    "latency-200",
    "status-400",
    "status-401",
    "status-402",
    "status-403",
    "status-404",
    "status-408",
    "status-409",
    "status-413",
    "status-422",
    "status-429",
    "status-500",
    "status-502",
    "status-503",
    "status-504",
    "status-524",
    "status-529",
    "retry-after-1",
    "retry-after-120",
    "retry-date-60",
    "retry-ms-1500",
    "quota",
    "too-long",
    "guardrail",
    "redirect",
    "html",
    "empty-body",
    "invalid-json",
    "wrong-type",
    "truncated-json",
    "close-at-once",
    "empty-stream",
    "done-only",
    "error-first",
    "error-after-3",
    "finish-error",
    "finish-error-first",
    "cut-after-0",
    "cut-after-40",
    "cut-after-60",
    "reset-after-5",
    "ends-after-5",
    "stall-after-20",
    "malformed-after-3",
    "malformed-first",
    "done-without-finish",
    "finish-without-done",
    "usage-missing",
    "usage-zero",
    "usage-twice",
    "usage-first",
    "done-twice",
    "choices-empty",
    "slow-close",
    "whole",
    "whole-error",
    "split-utf8",
    "split-lines",
    "crlf",
    "multi-line",
    "comments",
    "gzip",
    "gzip-broken",
    "brotli",
    "long-line",
    "drip-bytes",
    "drip-tokens-100",
    "limit-at-500",
    "tool-call",
    "tool-call-cut",
    "tool-call-at-once",
    "no-content-type",
];
