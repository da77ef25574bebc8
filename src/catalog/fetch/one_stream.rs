//! A file over one connection: a request for what is missing, and its answer into the partial file.

use std::fs;
use std::path::Path;

use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE,
};
use reqwest::{Response, StatusCode};

use crate::catalog::disk;
use crate::catalog::progress::{Meter, Progress};

use super::Workplace;
use super::download::Wanted;
use super::error::FetchError;
use super::http::{Http, innermost, shown, text};
use super::sink::{Behind, Sink};

/// One request for what is missing.
pub(super) struct Attempt<'a> {
    pub(super) http: &'a Http,
    pub(super) wanted: &'a Wanted,
    pub(super) path: &'a Path,
    /// Holds the entity tag the partial file's bytes came with.
    pub(super) etag_path: &'a Path,
    pub(super) workplace: &'a Workplace,
    pub(super) progress: &'a dyn Progress,
}

impl Attempt<'_> {
    fn bytes_here(&self) -> u64 {
        fs::metadata(self.path).map_or(0, |meta| meta.len())
    }

    /// Asks once.
    ///
    /// - `here` — bytes of the partial file
    ///
    /// Errors: what became of it. The partial file stays, unless it is longer than the file.
    pub(super) async fn run(&self, here: u64) -> Result<(), FetchError> {
        match self.wanted.size_bytes {
            Some(size) if size == here => return Ok(()),
            Some(size) if size < here => {
                return self.start_over(format!("{here} bytes are too many"));
            }
            _ => {}
        }
        let response = self
            .http
            .get(&self.wanted.target, &self.conditions(here))
            .await?;
        let (start, total) = match response.status() {
            StatusCode::OK => (0, self.whole_length(&response)?),
            StatusCode::PARTIAL_CONTENT => match range(&response) {
                Some(part) if part.start == here => (here, part.total),
                _ => return self.start_over("it sent another part than was asked for".to_owned()),
            },
            StatusCode::RANGE_NOT_SATISFIABLE if here > 0 => {
                return self.start_over("it has no such part of the file".to_owned());
            }
            _ => return Err(self.http.refusal(&self.wanted.target, &response)),
        };
        if let Some(expected) = self.wanted.size_bytes.filter(|size| *size != total) {
            return Err(FetchError::Length {
                expected,
                got: total,
            });
        }
        self.workplace.check_space(total.saturating_sub(start))?;
        self.remember_tag(&response)?;
        self.read(response, start, total).await
    }

    /// Reads the body into the file. Whatever arrived is on the disk when this returns.
    async fn read(&self, mut body: Response, start: u64, total: u64) -> Result<(), FetchError> {
        let mut meter = Meter::new(self.progress, Some(total));
        let mut sink = Sink::open(self.workplace, self.path, start, Behind::Cut);
        let mut done = start;
        let outcome = loop {
            let chunk = match tokio::time::timeout(self.http.stall_timeout, body.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) if done == total => break Ok(()),
                Ok(Ok(None)) => break Err(FetchError::Truncated { got: done, total }),
                Ok(Err(error)) => break Err(FetchError::Broken(innermost(&error))),
                Err(_) => {
                    let seconds = self.http.stall_timeout.as_secs();
                    break Err(FetchError::Stalled { seconds });
                }
            };
            done = done.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            if done > total {
                break Err(FetchError::Length {
                    expected: total,
                    got: done,
                });
            }
            if let Err(error) = sink.write(chunk).await {
                return Err(self.full(error, total));
            }
            meter.at(done);
        };
        sink.close()
            .await
            .map_err(|error| self.full(error, total))?;
        if matches!(outcome, Err(FetchError::Length { .. })) {
            self.discard()?;
        }
        outcome
    }

    fn full(&self, error: FetchError, total: u64) -> FetchError {
        self.workplace.full(error, total, self.bytes_here())
    }

    /// Asks only for what is missing, and only if the file is still the same.
    fn conditions(&self, here: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if here == 0 {
            return headers;
        }
        if let Ok(range) = HeaderValue::from_str(&format!("bytes={here}-")) {
            headers.insert(RANGE, range);
            let tag = fs::read_to_string(self.etag_path).ok();
            // Without a tag the range is asked for all the same: the checksum is the last word.
            if let Some(Ok(tag)) = tag.map(|tag| HeaderValue::from_str(&tag)) {
                headers.insert(IF_RANGE, tag);
            }
        }
        headers
    }

    fn remember_tag(&self, response: &Response) -> Result<(), FetchError> {
        let written = match strong_tag(response) {
            Some(tag) => fs::write(self.etag_path, tag),
            None => disk::remove_all(self.etag_path),
        };
        written.map_err(|error| FetchError::io("writing", self.etag_path, error))
    }

    fn whole_length(&self, response: &Response) -> Result<u64, FetchError> {
        number(response, &CONTENT_LENGTH)
            .or(self.wanted.size_bytes)
            .ok_or_else(|| FetchError::NoLength {
                url: shown(response.url()),
            })
    }

    fn discard(&self) -> Result<(), FetchError> {
        for path in [self.path, self.etag_path] {
            disk::remove_all(path).map_err(|error| FetchError::io("removing", path, error))?;
        }
        Ok(())
    }

    /// Throws the partial file away; the next try asks for the whole.
    fn start_over(&self, reason: String) -> Result<(), FetchError> {
        self.discard()?;
        Err(FetchError::Broken(reason))
    }
}

/// Which part of a file an answer is: `bytes 5-9/10`.
pub(super) struct Part {
    pub(super) start: u64,
    /// Behind its last byte.
    pub(super) end: u64,
    pub(super) total: u64,
}

pub(super) fn range(response: &Response) -> Option<Part> {
    let stated = text(response.headers(), &CONTENT_RANGE)?.strip_prefix("bytes ")?;
    let (part, total) = stated.split_once('/')?;
    let (start, last) = part.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    Some(Part {
        start: number(start)?,
        end: number(last)?.checked_add(1)?,
        total: number(total)?,
    })
}

/// The entity tag that stands for these very bytes, if there is one.
pub(super) fn strong_tag(response: &Response) -> Option<&str> {
    text(response.headers(), &ETAG).filter(|tag| tag.starts_with('"'))
}

fn number(response: &Response, name: &HeaderName) -> Option<u64> {
    text(response.headers(), name)?.parse().ok()
}
