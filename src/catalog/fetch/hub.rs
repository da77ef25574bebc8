//! Files of the hub: ask what they are, settle which checksums count, get them, verify them.

use crate::catalog::checked::Sha256;
use crate::catalog::manifest::{HubFile, HubSource};
use crate::catalog::progress::FetchEvent;

use super::download::{Planned, Wanted, download_all};
use super::error::FetchError;
use super::http::{Facts, Http, Target, endpoint, on_hub, shown};
use super::retries::Retries;
use super::{Fetched, Fetcher};

/// A commit's name, in full.
const COMMIT_DIGITS: usize = 40;

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
    let endpoint = endpoint(fetcher.hub)?;
    let http = Http::new(fetcher.http, fetcher.permit)?.with_token(&endpoint, fetcher.hub)?;
    // All are asked for first: what cannot be had is known before gigabytes are.
    let mut planned = Vec::with_capacity(hub.files.len());
    let mut commit: Option<String> = None;
    for file in &hub.files {
        let target = on_hub(&endpoint, hub, file);
        let (wanted, stated) = settle(fetcher, &http, target, (hub, file)).await?;
        match (&commit, stated) {
            (Some(before), Some(now)) if *before != now => {
                let before = before.clone();
                return Err(FetchError::Moved { before, now });
            }
            (None, stated) => commit = stated,
            _ => {}
        }
        planned.push(Planned {
            wanted,
            name: file.name.clone(),
            from: file.file.to_string(),
        });
    }
    let files = download_all(fetcher, &http, planned).await?;
    Ok(Fetched { files, commit })
}

/// Asks the hub what a file is; gives what is wanted of it, and the commit it is from.
async fn settle(
    fetcher: &Fetcher<'_>,
    http: &Http,
    target: Target,
    (hub, file): (&HubSource, &HubFile),
) -> Result<(Wanted, Option<String>), FetchError> {
    let mut retries = Retries::new(fetcher.http, fetcher.progress);
    let facts = loop {
        match http.facts(&target).await {
            Ok(facts) => break facts,
            Err(error) => retries.wait_out(error, false).await?,
        }
    };
    let asked = hub.revision.as_str();
    if let Some(got) = &facts.commit
        && is_commit(asked)
        && !got.eq_ignore_ascii_case(asked)
    {
        return Err(FetchError::OtherCommit {
            asked: asked.to_owned(),
            got: got.clone(),
        });
    }
    let expected = expected_sha256(fetcher, file, &hub.line(file), &facts)?;
    let sha256 = expected.ok_or_else(|| FetchError::NoChecksum {
        url: shown(&target.url),
    })?;
    if let (Some(expected), Some(got)) = (file.size_bytes, facts.size_bytes)
        && expected != got
    {
        return Err(FetchError::Length { expected, got });
    }
    let size_bytes = file.size_bytes.or(facts.size_bytes);
    let wanted = Wanted {
        target,
        sha256,
        size_bytes,
    };
    Ok((wanted, facts.commit))
}

/// Whether a revision names one state for good: branches and tags may move.
fn is_commit(revision: &str) -> bool {
    revision.len() == COMMIT_DIGITS && revision.bytes().all(|digit| digit.is_ascii_hexdigit())
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
