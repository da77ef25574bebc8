//! Files at plain addresses. Nobody but the manifest says what they are.

use crate::catalog::manifest::UrlSource;
use crate::catalog::progress::FetchEvent;

use super::advice::Asked;
use super::download::{Planned, Wanted, download_all};
use super::error::FetchError;
use super::http::{Http, Target};
use super::retries::Retries;
use super::{Fetched, Fetcher};

/// Gets files from their addresses.
///
/// Errors: one of them cannot be had, or is not what was declared.
pub(super) async fn fetch(
    fetcher: &Fetcher<'_>,
    source: &UrlSource,
    line: &str,
) -> Result<Fetched, FetchError> {
    let declared: Option<Vec<u64>> = source.files.iter().map(|file| file.size_bytes).collect();
    fetcher.progress.event(FetchEvent::Started {
        source: line.to_owned(),
        total: declared.map(|sizes| sizes.into_iter().fold(0, u64::saturating_add)),
    });
    let http = Http::new(fetcher.http, fetcher.permit)?;
    let mut planned = Vec::with_capacity(source.files.len());
    for file in &source.files {
        let target = Target {
            url: file.url.reveal().clone(),
            asked: Asked::Address,
        };
        let size_bytes = match file.size_bytes {
            Some(size_bytes) => Some(size_bytes),
            None => stated_size(fetcher, &http, &target).await?,
        };
        planned.push(Planned {
            wanted: Wanted {
                target,
                sha256: file.sha256,
                size_bytes,
            },
            name: file.name.clone(),
            from: file.url.to_string(),
        });
    }
    let files = download_all(fetcher, &http, planned).await?;
    let commit = None;
    Ok(Fetched { files, commit })
}

/// How long the server says the file is. Many answer this question with an error and give the file
/// all the same.
async fn stated_size(
    fetcher: &Fetcher<'_>,
    http: &Http,
    target: &Target,
) -> Result<Option<u64>, FetchError> {
    let mut retries = Retries::new(fetcher.http, fetcher.progress);
    loop {
        match http.facts(target).await {
            Ok(facts) => return Ok(facts.size_bytes.filter(|&size| size > 0)),
            Err(FetchError::Status { .. }) => return Ok(None),
            Err(error) => retries.wait_out(error, false).await?,
        }
    }
}
