//! A large file over several connections, each asking for one piece after another.
//!
//! Only where the server answers with the very part that was asked for, of a file of the stated
//! length, under one strong entity tag; else the file comes over one connection. What is here is
//! noted beside the file, after it was written to the disk.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::header::{HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use tokio::task::JoinHandle;

use crate::catalog::disk;
use crate::catalog::progress::{Meter, Progress};

use super::download::Wanted;
use super::error::FetchError;
use super::http::{Http, innermost};
use super::one_stream::{range, strong_tag};
use super::options::HttpOptions;
use super::pieces::{Board, Journal, Span, Spans};
use super::retries::Retries;
use super::sink::{Behind, Sink};
use super::{Fetcher, Workplace, blocking};

/// So often it is looked how far all are.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// So often what is here is noted: a process that is killed loses that much.
const NOTE_EVERY: Duration = Duration::from_secs(2);
/// So often it is looked whether the last bytes are written.
const SETTLE_EVERY: Duration = Duration::from_millis(2);

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All bytes are in the partial file.
    Whole,
    /// The server does not give parts: it has to come over one connection.
    OneStream,
}

/// Why a connection brings no more.
enum Trouble {
    Fetch(FetchError),
    /// The server does not give this part.
    NoPart,
    /// The part is of another file than the ones before.
    OtherFile,
}

impl From<FetchError> for Trouble {
    fn from(error: FetchError) -> Self {
        Self::Fetch(error)
    }
}

/// One file that several connections bring.
pub(super) struct Spread<'a> {
    http: &'a Http,
    wanted: &'a Wanted,
    options: &'a HttpOptions,
    workplace: &'a Workplace,
    progress: &'a dyn Progress,
    /// The file, when it is whole or has come over one connection.
    part: PathBuf,
    etag: PathBuf,
    /// The file with gaps.
    pieces: PathBuf,
    /// What of it is here.
    journal: PathBuf,
}

impl<'a> Spread<'a> {
    pub(super) fn new(fetcher: &'a Fetcher<'_>, http: &'a Http, wanted: &'a Wanted) -> Self {
        let part = fetcher.workplace.part(wanted.sha256);
        let pieces = fetcher.workplace.pieces(wanted.sha256);
        Self {
            http,
            wanted,
            options: fetcher.http,
            workplace: &fetcher.workplace,
            progress: fetcher.progress,
            etag: part.with_extension("etag"),
            part,
            journal: pieces.with_extension("here"),
            pieces,
        }
    }

    /// Whether the file is large enough to be shared.
    pub(super) fn is_worth_it(&self) -> bool {
        let least = self.options.segment_bytes.saturating_mul(2);
        self.options.connections.get() > 1
            && self.wanted.size_bytes.is_some_and(|size| size >= least)
    }

    /// Bytes of the file that are here.
    pub(super) fn bytes_here(&self) -> u64 {
        let in_part = fs::metadata(&self.part).map_or(0, |meta| meta.len());
        in_part.max(self.in_pieces().map_or(0, |(spans, _)| spans.n_bytes()))
    }

    /// What several connections brought without a gap becomes what one connection goes on from.
    ///
    /// Errors: the disk does not do it.
    pub(super) fn gather(&self) -> Result<(), FetchError> {
        if let Some((spans, tag)) = self.in_pieces() {
            let n_first = spans.n_first();
            let in_part = fs::metadata(&self.part).map_or(0, |meta| meta.len());
            if n_first > in_part {
                let writing = |error| FetchError::io("writing", &self.pieces, error);
                let file = File::options().write(true).open(&self.pieces);
                file.and_then(|file| file.set_len(n_first))
                    .map_err(writing)?;
                match tag {
                    Some(tag) => fs::write(&self.etag, tag).map_err(writing)?,
                    None => remove(&[&self.etag])?,
                }
                fs::rename(&self.pieces, &self.part).map_err(writing)?;
            }
        }
        remove(&[&self.pieces, &self.journal])
    }

    /// Asks for what is missing over several connections.
    ///
    /// Errors: as the last connection's. What arrived stays.
    pub(super) async fn run(&self) -> Result<Outcome, FetchError> {
        let Some(total) = self.wanted.size_bytes else {
            return Ok(Outcome::OneStream);
        };
        let (here, known_tag) = self.adopt(total)?;
        let n_missing = total.saturating_sub(here.n_bytes());
        let board = Arc::new(Board::new(here, total, self.options.segment_bytes));
        let Some(first) = board.take() else {
            return self.finish(total).await;
        };
        self.workplace.check_space(n_missing)?;
        // The first answer shows what the server can do.
        let response = self.ask(first, known_tag.as_deref()).await?;
        let tag = match self.tag_of(&response, first, known_tag.as_deref()) {
            Ok(tag) => tag,
            Err(trouble) => return self.give_up(trouble),
        };
        let ended = self.share(&board, &tag, (first, response), total).await;
        self.settle(&board).await;
        self.note(&board, &tag, total).await?;
        match ended {
            Ok(()) => self.finish(total).await,
            Err(Trouble::Fetch(error)) => {
                Err(self.workplace.full(error, total, board.here().n_bytes()))
            }
            Err(trouble) => self.give_up(trouble),
        }
    }

    /// Lets all connections work until all is here or none goes on.
    async fn share(
        &self,
        board: &Arc<Board>,
        tag: &str,
        first: (Span, Response),
        total: u64,
    ) -> Result<(), Trouble> {
        let mut meter = Meter::new(self.progress, Some(total));
        let n_workers = self.options.connections.get().min(1 + board.n_waiting());
        let mut workers = FuturesUnordered::new();
        workers.push(Box::pin(self.work(board, tag, Some(first))));
        for _ in 1..n_workers {
            workers.push(Box::pin(self.work(board, tag, None)));
        }
        let mut clock = tokio::time::interval(LOOK_EVERY);
        let (mut noted, mut noted_at) = (board.here().n_bytes(), Instant::now());
        let mut noting: Option<JoinHandle<Result<(), FetchError>>> = None;
        let mut last = None;
        let ended = loop {
            tokio::select! {
                ended = workers.next() => match ended {
                    None => break last.map_or(Ok(()), Err),
                    Some(Ok(())) => {}
                    // The others may be luckier.
                    Some(Err(Trouble::Fetch(error))) if may_pass(&error) => {
                        last = Some(Trouble::Fetch(error));
                    }
                    Some(Err(trouble)) => break Err(trouble),
                },
                _ = clock.tick() => {
                    let done = board.here().n_bytes();
                    meter.at(done);
                    let is_much = done - noted >= self.options.segment_bytes;
                    let is_due = done > noted && (is_much || noted_at.elapsed() >= NOTE_EVERY);
                    if is_due && noting.as_ref().is_none_or(JoinHandle::is_finished) {
                        (noted, noted_at) = (done, Instant::now());
                        noting = Some(tokio::task::spawn_blocking(self.noting(board, tag, total)));
                    }
                }
            }
        };
        drop(workers);
        if let Some(noting) = noting {
            // It is written once more, and then an error counts.
            let _ = noting.await;
        }
        let done = board.here().n_bytes();
        meter.at(done);
        // One that gave up leaves its piece to the others.
        if done == total { Ok(()) } else { ended }
    }

    /// One connection: piece after piece.
    async fn work(
        &self,
        board: &Arc<Board>,
        tag: &str,
        mut first: Option<(Span, Response)>,
    ) -> Result<(), Trouble> {
        let mut retries = Retries::new(self.options, self.progress);
        loop {
            let (mut span, mut response) = match first.take() {
                Some((span, response)) => (span, Some(response)),
                None => match board.take() {
                    Some(span) => (span, None),
                    None => return Ok(()),
                },
            };
            while span.len() > 0 {
                let brought = self.bring(board, tag, span, response.take()).await;
                let rest = board.rest(span);
                if rest.len() < span.len() {
                    retries.renew();
                }
                span = rest;
                match brought {
                    Ok(()) => {}
                    Err(Trouble::Fetch(error)) => {
                        let is_lost = may_pass(&error);
                        if let Err(error) = retries.wait_out(error, is_lost).await {
                            board.give_back(span);
                            return Err(error.into());
                        }
                    }
                    Err(trouble) => return Err(trouble),
                }
            }
        }
    }

    /// Brings one piece. Whatever arrived is in the file when this returns.
    async fn bring(
        &self,
        board: &Arc<Board>,
        tag: &str,
        span: Span,
        response: Option<Response>,
    ) -> Result<(), Trouble> {
        let mut body = if let Some(response) = response {
            response
        } else {
            let response = self.ask(span, Some(tag)).await?;
            self.tag_of(&response, span, Some(tag))?;
            response
        };
        let (board, mut at) = (Arc::clone(board), span.start);
        let written = move |n_bytes| {
            let end = at + n_bytes;
            board.wrote(Span { start: at, end });
            at = end;
        };
        let (workplace, pieces) = (self.workplace, &self.pieces);
        let mut sink = Sink::telling(workplace, pieces, span.start, Behind::Keep, written);
        let mut missing = usize::try_from(span.len()).unwrap_or(usize::MAX);
        let outcome = loop {
            let mut chunk = match tokio::time::timeout(self.http.stall_timeout, body.chunk()).await
            {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => {
                    let (got, total) = (span.len() - missing as u64, span.len());
                    break Err(FetchError::Truncated { got, total });
                }
                Ok(Err(error)) => break Err(FetchError::Broken(innermost(&error))),
                Err(_) => {
                    let seconds = self.http.stall_timeout.as_secs();
                    break Err(FetchError::Stalled { seconds });
                }
            };
            chunk.truncate(missing);
            missing -= chunk.len();
            sink.write(chunk).await?;
            if missing == 0 {
                // The end of the answer frees the connection for the next piece.
                let _ = tokio::time::timeout(LOOK_EVERY, body.chunk()).await;
                break Ok(());
            }
        };
        sink.close().await?;
        Ok(outcome?)
    }

    async fn ask(&self, span: Span, tag: Option<&str>) -> Result<Response, FetchError> {
        let mut headers = HeaderMap::new();
        let last = span.end.saturating_sub(1);
        if let Ok(range) = HeaderValue::from_str(&format!("bytes={}-{last}", span.start)) {
            headers.insert(RANGE, range);
        }
        if let Some(Ok(tag)) = tag.map(HeaderValue::from_str) {
            headers.insert(IF_RANGE, tag);
        }
        self.http.get(&self.wanted.target, &headers).await
    }

    /// The entity tag of an answer, if that is the part that was asked for.
    fn tag_of(
        &self,
        response: &Response,
        span: Span,
        known: Option<&str>,
    ) -> Result<String, Trouble> {
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {}
            StatusCode::OK | StatusCode::RANGE_NOT_SATISFIABLE => return Err(Trouble::NoPart),
            _ => return Err(self.http.refusal(&self.wanted.target, response).into()),
        }
        let part = range(response).ok_or(Trouble::NoPart)?;
        if let Some(expected) = self.wanted.size_bytes.filter(|size| *size != part.total) {
            let got = part.total;
            return Err(FetchError::Length { expected, got }.into());
        }
        let tag = strong_tag(response).ok_or(Trouble::NoPart)?;
        if known.is_some_and(|known| known != tag) {
            return Err(Trouble::OtherFile);
        }
        if (part.start, part.end) != (span.start, span.end) {
            return Err(Trouble::NoPart);
        }
        Ok(tag.to_owned())
    }

    /// Leaves the rest to one connection.
    fn give_up(&self, trouble: Trouble) -> Result<Outcome, FetchError> {
        match trouble {
            Trouble::Fetch(error) => return Err(error),
            Trouble::NoPart => self.gather()?,
            Trouble::OtherFile => {
                remove(&[&self.part, &self.etag, &self.pieces, &self.journal])?;
            }
        }
        Ok(Outcome::OneStream)
    }

    /// Takes over what an earlier try left, over however many connections; gives what that is, and
    /// the entity tag it came with.
    fn adopt(&self, total: u64) -> Result<(Spans, Option<String>), FetchError> {
        let in_part = fs::metadata(&self.part).map_or(0, |meta| meta.len());
        let (spans, tag) = self.in_pieces().unwrap_or_default();
        if spans.n_bytes() >= in_part || in_part > total {
            remove(&[&self.part, &self.etag])?;
            return Ok((spans, tag));
        }
        // Noted first: until the file is renamed there is none that the note could be of.
        remove(&[&self.pieces])?;
        let (spans, tag) = (Spans::prefix(in_part), fs::read_to_string(&self.etag).ok());
        let journal = Journal::new(total, tag.clone(), &spans);
        let writing = |error| FetchError::io("writing", &self.journal, error);
        journal.write(&self.journal).map_err(writing)?;
        fs::rename(&self.part, &self.pieces).map_err(writing)?;
        Ok((spans, tag))
    }

    /// What the note says is here, and under which tag; `None` if there is no such file.
    fn in_pieces(&self) -> Option<(Spans, Option<String>)> {
        let on_disk = fs::metadata(&self.pieces).ok()?.len();
        let journal = Journal::read(&self.journal)?;
        let spans = journal.spans(self.wanted.size_bytes, on_disk)?;
        Some((spans, journal.tag().map(str::to_owned)))
    }

    /// Waits until the disk has what it was given: nobody writes to the file afterwards.
    async fn settle(&self, board: &Arc<Board>) {
        while Arc::strong_count(board) > 1 {
            tokio::time::sleep(SETTLE_EVERY).await;
        }
    }

    async fn note(&self, board: &Arc<Board>, tag: &str, total: u64) -> Result<(), FetchError> {
        blocking(self.noting(board, tag, total)).await
    }

    /// Writes down what is here by now, after the disk has it.
    fn noting(
        &self,
        board: &Arc<Board>,
        tag: &str,
        total: u64,
    ) -> impl FnOnce() -> Result<(), FetchError> + Send + 'static {
        let (workplace, pieces) = (self.workplace.clone(), self.pieces.clone());
        let here = board.here();
        let (journal, path) = (
            Journal::new(total, Some(tag.to_owned()), &here),
            self.journal.clone(),
        );
        move || {
            let written = File::open(&pieces).and_then(|file| file.sync_data());
            let noted = match written {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => journal.write(&path),
            };
            noted.map_err(|error| {
                workplace.full(
                    FetchError::io("writing", &path, error),
                    total,
                    here.n_bytes(),
                )
            })
        }
    }

    /// Makes what is whole the partial file that is verified next.
    async fn finish(&self, total: u64) -> Result<Outcome, FetchError> {
        let workplace = self.workplace.clone();
        let (pieces, part, journal) =
            (self.pieces.clone(), self.part.clone(), self.journal.clone());
        blocking(move || {
            let _held = workplace;
            let place = || {
                let file = File::options().write(true).open(&pieces)?;
                file.set_len(total)?;
                file.sync_all()?;
                fs::rename(&pieces, &part)?;
                disk::remove_all(&journal)
            };
            place().map_err(|error| FetchError::io("writing", &pieces, error))?;
            Ok(Outcome::Whole)
        })
        .await
    }
}

fn remove(paths: &[&PathBuf]) -> Result<(), FetchError> {
    for path in paths {
        disk::remove_all(path).map_err(|error| FetchError::io("removing", path, error))?;
    }
    Ok(())
}

/// Whether another connection, or the same one later, may do better.
fn may_pass(error: &FetchError) -> bool {
    error.is_passing() || matches!(error, FetchError::Unreachable { .. })
}
