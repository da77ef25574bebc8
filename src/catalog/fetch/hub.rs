//! A file of the hub: ask what it is, settle which checksum counts, get it, verify it.

use crate::catalog::checked::Sha256;
use crate::catalog::manifest::HubFile;
use crate::catalog::progress::FetchEvent;

use super::download::{Retries, Wanted, download};
use super::error::FetchError;
use super::http::{Facts, Http, shown};
use super::{Fetched, Fetcher};

/// Gets a file of the hub.
///
/// Errors: it cannot be had, or is not what was declared, pinned or stated.
pub(super) async fn fetch(
    fetcher: &Fetcher<'_>,
    file: &HubFile,
    source: &str,
) -> Result<Fetched, FetchError> {
    fetcher.progress.event(FetchEvent::Started {
        source: source.to_owned(),
        total: file.size_bytes,
    });
    let http = Http::new(fetcher.hub, fetcher.permit)?;
    let url = http.address(file);
    let mut retries = Retries::new(fetcher.hub, fetcher.progress);
    let facts = loop {
        match http.facts(&url).await {
            Ok(facts) => break facts,
            Err(error) => retries.wait_out(error, false).await?,
        }
    };
    let expected = expected_sha256(fetcher, file, source, &facts)?;
    let sha256 = expected.ok_or_else(|| FetchError::NoChecksum { url: shown(&url) })?;
    if let (Some(expected), Some(got)) = (file.size_bytes, facts.size_bytes)
        && expected != got
    {
        return Err(FetchError::Length { expected, got });
    }
    let size_bytes = file.size_bytes.or(facts.size_bytes);
    let wanted = Wanted {
        url,
        sha256,
        size_bytes,
    };
    let had_begun = fetcher.workplace.part(sha256).exists();
    let path = download(fetcher, &http, &wanted).await?;
    let path = match fetcher.verify(path, sha256).await {
        // What an earlier try left may have been the spoilt part: the whole once more.
        Err(error @ FetchError::WrongChecksum { .. }) if had_begun => {
            let reason = error.to_string();
            fetcher.progress.event(FetchEvent::Retrying { reason });
            let path = download(fetcher, &http, &wanted).await?;
            fetcher.verify(path, sha256).await?
        }
        verified => verified?,
    };
    let meta = std::fs::metadata(&path).map_err(|error| FetchError::io("reading", &path, error))?;
    Ok(Fetched {
        path,
        sha256,
        size_bytes: meta.len(),
        commit: facts.commit,
    })
}

/// The checksum that counts: all of the manifest's, the pinned and the hub's that are known have to
/// be the same.
fn expected_sha256(
    fetcher: &Fetcher<'_>,
    file: &HubFile,
    source: &str,
    facts: &Facts,
) -> Result<Option<Sha256>, FetchError> {
    if let (Some(declared), Some(stated)) = (file.sha256, facts.sha256)
        && declared != stated
    {
        return Err(FetchError::NotAsDeclared { stated, declared });
    }
    let expected = file.sha256.or(facts.sha256);
    let pinned = fetcher.pins.get(source).map(|pin| pin.sha256);
    match (expected, pinned) {
        // A manifest's checksum was chosen by a person; the pin is only what came first.
        (Some(stated), Some(pinned)) if stated != pinned && file.sha256.is_none() => {
            let pins = fetcher.pins.path().to_owned();
            Err(FetchError::NotAsPinned {
                stated,
                pinned,
                pins,
            })
        }
        _ => Ok(expected.or(pinned)),
    }
}
