//! Files over HTTP into their partial files: a download goes on where an earlier one ended, and is
//! tried again when a connection breaks.

use std::fs;
use std::path::PathBuf;

use crate::catalog::checked::{Member, Sha256};
use crate::catalog::progress::{FetchEvent, OneOfMany, Progress};

use super::error::FetchError;
use super::http::{Http, Target};
use super::one_stream::Attempt;
use super::retries::Retries;
use super::spread::{Outcome, Spread};
use super::{FetchedFile, Fetcher};

/// What is asked for.
pub(super) struct Wanted {
    pub(super) target: Target,
    pub(super) sha256: Sha256,
    /// Its length, where known.
    pub(super) size_bytes: Option<u64>,
}

/// A file of a model that is to be got.
pub(super) struct Planned {
    pub(super) wanted: Wanted,
    /// Where it belongs in the model's folder.
    pub(super) name: Member,
    /// Where the source has it.
    pub(super) from: String,
}

/// Gets all files of a model, one after the other, verified.
///
/// Errors: the disk is too small for all, or as the first that cannot be had.
pub(super) async fn download_all(
    fetcher: &Fetcher<'_>,
    http: &Http,
    planned: Vec<Planned>,
) -> Result<Vec<FetchedFile>, FetchError> {
    let sizes: Option<Vec<u64>> = planned.iter().map(|file| file.wanted.size_bytes).collect();
    let total = sizes.map(|sizes| sizes.into_iter().fold(0, u64::saturating_add));
    if let Some(total) = total {
        let needed = planned.iter().map(|file| file.wanted.sha256);
        fetcher.workplace.check_space_for(needed, total)?;
    }
    let count = planned.len();
    let mut files = Vec::with_capacity(count);
    let mut before = 0;
    for (idx, file) in planned.into_iter().enumerate() {
        if count > 1 {
            fetcher.progress.event(FetchEvent::File {
                name: file.name.to_string(),
                number: idx + 1,
                count,
                size_bytes: file.wanted.size_bytes,
            });
        }
        let progress = OneOfMany {
            progress: fetcher.progress,
            before,
            total,
        };
        let within: &dyn Progress = if count > 1 {
            &progress
        } else {
            fetcher.progress
        };
        let fetcher = Fetcher {
            progress: within,
            ..fetcher.clone()
        };
        let (path, size_bytes) = download_verified(&fetcher, http, &file.wanted).await?;
        before += size_bytes;
        files.push(FetchedFile {
            path,
            name: file.name,
            from: file.from,
            sha256: file.wanted.sha256,
            size_bytes,
        });
    }
    Ok(files)
}

/// Gets a file and verifies it; gives where it lies and its length.
///
/// Errors: as the last try's, or its bytes are others.
async fn download_verified(
    fetcher: &Fetcher<'_>,
    http: &Http,
    wanted: &Wanted,
) -> Result<(PathBuf, u64), FetchError> {
    let had_begun = fetcher.workplace.has_begun(wanted.sha256);
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
/// Errors: as the last try's. What arrived stays, unless it cannot be of this file.
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
    let spread = Spread::new(fetcher, http, wanted);
    let mut may_spread = spread.is_worth_it();
    let mut retries = Retries::new(fetcher.http, fetcher.progress);
    let begun_at = spread.bytes_here();
    loop {
        let before = spread.bytes_here();
        let tried = if may_spread {
            spread.run().await
        } else {
            spread.gather().map(|()| Outcome::OneStream)
        };
        let tried = match tried {
            Ok(Outcome::Whole) => return Ok(path),
            Ok(Outcome::OneStream) => {
                may_spread = false;
                let here = fs::metadata(&path).map_or(0, |meta| meta.len());
                attempt.run(here).await
            }
            Err(error) => Err(error),
        };
        let Err(error) = tried else {
            return Ok(path);
        };
        let after = spread.bytes_here();
        // A network that worked a moment ago may come back.
        let is_lost = matches!(error, FetchError::Unreachable { .. }) && after > begun_at;
        if after > before {
            retries.renew();
        }
        retries.wait_out(error, is_lost).await?;
    }
}
