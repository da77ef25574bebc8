//! One file over HTTP into its partial file: goes on where an earlier try ended, and tries again
//! when a connection breaks.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE,
};
use reqwest::{Response, StatusCode, Url};

use crate::catalog::checked::Sha256;
use crate::catalog::disk;
use crate::catalog::progress::{FetchEvent, Meter, Progress};

use super::error::FetchError;
use super::http::{Http, innermost, shown, text};
use super::options::HubOptions;
use super::sink::Sink;
use super::{Fetcher, Workplace};

/// A server that asks for a longer wait is given up instead.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(20);

/// What is asked for.
pub(super) struct Wanted {
    pub(super) url: Url,
    pub(super) sha256: Sha256,
    /// Its length, where known.
    pub(super) size_bytes: Option<u64>,
}

/// Gets a file and verifies it; gives where it lies and its length.
///
/// Errors: as the last try's, or its bytes are others.
pub(super) async fn download_verified(
    fetcher: &Fetcher<'_>,
    http: &Http,
    wanted: &Wanted,
) -> Result<(PathBuf, u64), FetchError> {
    let had_begun = fetcher.workplace.part(wanted.sha256).exists();
    let path = download(fetcher, http, wanted).await?;
    let path = match fetcher.verify(path, wanted.sha256).await {
        // What an earlier try left may have been the spoilt part: the whole once more.
        Err(error @ FetchError::WrongChecksum { .. }) if had_begun => {
            let reason = error.to_string();
            fetcher.progress.event(FetchEvent::Retrying { reason });
            let path = download(fetcher, http, wanted).await?;
            fetcher.verify(path, wanted.sha256).await?
        }
        verified => verified?,
    };
    let meta = fs::metadata(&path).map_err(|error| FetchError::io("reading", &path, error))?;
    Ok((path, meta.len()))
}

/// Gets all bytes of a file. They are not verified yet.
///
/// Errors: as the last try's. The partial file stays, unless it is longer than the file.
async fn download(
    fetcher: &Fetcher<'_>,
    http: &Http,
    wanted: &Wanted,
) -> Result<PathBuf, FetchError> {
    let path = fetcher.workplace.part(wanted.sha256);
    let attempt = Attempt {
        http,
        wanted,
        path: &path,
        etag_path: &path.with_extension("etag"),
        workplace: &fetcher.workplace,
        progress: fetcher.progress,
    };
    let mut retries = Retries::new(fetcher.hub, fetcher.progress);
    let begun_at = attempt.bytes_here();
    loop {
        let before = attempt.bytes_here();
        let Err(error) = attempt.run(before).await else {
            return Ok(path);
        };
        let after = attempt.bytes_here();
        // A network that worked a moment ago may come back.
        let is_lost = matches!(error, FetchError::Unreachable { .. }) && after > begun_at;
        if after > before {
            retries.renew();
        }
        retries.wait_out(error, is_lost).await?;
    }
}

/// One request for what is missing.
struct Attempt<'a> {
    http: &'a Http,
    wanted: &'a Wanted,
    path: &'a Path,
    /// Holds the entity tag the partial file's bytes came with.
    etag_path: &'a Path,
    workplace: &'a Workplace,
    progress: &'a dyn Progress,
}

impl Attempt<'_> {
    fn bytes_here(&self) -> u64 {
        fs::metadata(self.path).map_or(0, |meta| meta.len())
    }

    async fn run(&self, here: u64) -> Result<(), FetchError> {
        match self.wanted.size_bytes {
            Some(size) if size == here => return Ok(()),
            Some(size) if size < here => {
                return self.start_over(format!("{here} bytes are too many"));
            }
            _ => {}
        }
        let response = self
            .http
            .get(&self.wanted.url, &self.conditions(here))
            .await?;
        let (start, total) = match response.status() {
            StatusCode::OK => (0, self.whole_length(&response)?),
            StatusCode::PARTIAL_CONTENT => match range(&response) {
                Some((start, total)) if start == here => (start, total),
                _ => return self.start_over("it sent another part than was asked for".to_owned()),
            },
            StatusCode::RANGE_NOT_SATISFIABLE if here > 0 => {
                return self.start_over("it has no such part of the file".to_owned());
            }
            _ => return Err(self.http.refusal(&response.url().clone(), &response)),
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
        let mut sink = Sink::open(self.workplace, self.path, start);
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

    /// An error of the disk, with numbers if it is full.
    fn full(&self, error: FetchError, total: u64) -> FetchError {
        match error {
            FetchError::Io { source, .. } if source.kind() == ErrorKind::StorageFull => {
                FetchError::NoSpace {
                    path: self.workplace.folder().to_owned(),
                    needed: total.saturating_sub(self.bytes_here()),
                    free: disk::free_bytes(self.workplace.folder()).unwrap_or(0),
                }
            }
            other => other,
        }
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
        let strong = text(response.headers(), &ETAG).filter(|tag| tag.starts_with('"'));
        let written = match strong {
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

/// Where a part begins and how long the whole is: `bytes 5-9/10`.
fn range(response: &Response) -> Option<(u64, u64)> {
    let stated = text(response.headers(), &CONTENT_RANGE)?.strip_prefix("bytes ")?;
    let (part, total) = stated.split_once('/')?;
    let (start, _) = part.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()?))
}

fn number(response: &Response, name: &HeaderName) -> Option<u64> {
    text(response.headers(), name)?.parse().ok()
}

/// Counts tries and waits between them.
pub(super) struct Retries<'a> {
    options: &'a HubOptions,
    progress: &'a dyn Progress,
    n_tries: u32,
}

impl<'a> Retries<'a> {
    pub(super) fn new(options: &'a HubOptions, progress: &'a dyn Progress) -> Self {
        Self {
            options,
            progress,
            n_tries: 0,
        }
    }

    /// Something arrived: the count begins anew.
    fn renew(&mut self) {
        self.n_tries = 0;
    }

    /// Waits until it is worth trying again after `error`.
    ///
    /// - `is_lost` — it may pass although its kind usually does not
    ///
    /// Errors: `error`, if it will not pass or did not for long.
    pub(super) async fn wait_out(
        &mut self,
        error: FetchError,
        is_lost: bool,
    ) -> Result<(), FetchError> {
        self.n_tries += 1;
        let asked = match &error {
            FetchError::Status {
                retry_after_seconds: Some(seconds),
                ..
            } => Duration::from_secs(*seconds),
            _ => Duration::ZERO,
        };
        let is_hopeless = !(is_lost || error.is_passing());
        if is_hopeless || self.n_tries >= self.options.tries_most || asked > RETRY_AFTER_MOST {
            return Err(error);
        }
        self.progress.event(FetchEvent::Retrying {
            reason: error.to_string(),
        });
        let doubled = self
            .options
            .retry_delay
            .saturating_mul(1 << (self.n_tries - 1).min(6));
        tokio::time::sleep(doubled.max(asked)).await;
        Ok(())
    }
}
