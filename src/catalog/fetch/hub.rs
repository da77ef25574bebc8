//! Files of the hub: ask what they are, settle which checksums count, get them, verify them.

use crate::catalog::checked::Sha256;
use crate::catalog::manifest::{HubFile, HubSource};
use crate::catalog::progress::{FetchEvent, OneOfMany};

use super::download::{Retries, Wanted, download_verified};
use super::error::FetchError;
use super::http::{Facts, Http, shown};
use super::{Fetched, FetchedFile, Fetcher};

/// Gets files of the hub.
///
/// Errors: one of them cannot be had, or is not what was declared, pinned or stated.
pub(super) async fn fetch(
    fetcher: &Fetcher<'_>,
    hub: &HubSource,
    source: &str,
) -> Result<Fetched, FetchError> {
    let declared: Option<Vec<u64>> = hub.files.iter().map(|file| file.size_bytes).collect();
    fetcher.progress.event(FetchEvent::Started {
        source: source.to_owned(),
        total: declared.map(|sizes| sizes.iter().sum()),
    });
    let http = Http::new(fetcher.hub, fetcher.permit)?;
    // All are asked for first: what cannot be had is known before gigabytes are.
    let mut wanted = Vec::with_capacity(hub.files.len());
    let mut commit: Option<String> = None;
    for file in &hub.files {
        let (wants, stated) = settle(fetcher, &http, hub, file).await?;
        match (&commit, stated) {
            (Some(before), Some(now)) if *before != now => {
                let before = before.clone();
                return Err(FetchError::Moved { before, now });
            }
            (None, stated) => commit = stated,
            _ => {}
        }
        wanted.push(wants);
    }
    let sizes: Option<Vec<u64>> = wanted.iter().map(|wanted| wanted.size_bytes).collect();
    let total = sizes.map(|sizes| sizes.into_iter().fold(0, u64::saturating_add));
    if let Some(total) = total {
        fetcher.check_space_for(&wanted, total)?;
    }
    let mut files = Vec::with_capacity(wanted.len());
    let mut before = 0;
    for (file, wanted) in hub.files.iter().zip(&wanted) {
        let progress = OneOfMany {
            progress: fetcher.progress,
            before,
            total,
        };
        let fetcher = Fetcher {
            progress: &progress,
            ..fetcher.clone()
        };
        let (path, size_bytes) = download_verified(&fetcher, &http, wanted).await?;
        before += size_bytes;
        files.push(FetchedFile {
            path,
            name: file.name.clone(),
            from: file.file.to_string(),
            sha256: wanted.sha256,
            size_bytes,
        });
    }
    Ok(Fetched { files, commit })
}

/// Asks the hub what a file is; gives what is wanted of it, and the commit it is from.
async fn settle(
    fetcher: &Fetcher<'_>,
    http: &Http,
    hub: &HubSource,
    file: &HubFile,
) -> Result<(Wanted, Option<String>), FetchError> {
    let url = http.address(hub, file);
    let mut retries = Retries::new(fetcher.hub, fetcher.progress);
    let facts = loop {
        match http.facts(&url).await {
            Ok(facts) => break facts,
            Err(error) => retries.wait_out(error, false).await?,
        }
    };
    let expected = expected_sha256(fetcher, file, &hub.line(file), &facts)?;
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
    Ok((wanted, facts.commit))
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
