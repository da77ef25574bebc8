//! HTTP as sources need it: redirects are followed by hand, because the token goes to the hub and to
//! no host the hub points at.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue,
    LOCATION, RETRY_AFTER,
};
use reqwest::{Client, Method, Response, StatusCode, Url};

use crate::catalog::checked::{Revision, Sha256};
use crate::catalog::manifest::{HubFile, HubSource};
use crate::egress::ModelFetch;

use super::error::FetchError;
use super::options::HubOptions;

const REDIRECTS_MOST: usize = 5;
/// What the hub says of a large file, while it redirects to where that lies.
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
const REPO_COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");

/// A client for one fetch.
pub(super) struct Http {
    client: Client,
    endpoint: Url,
    token: Option<HeaderValue>,
    connect_timeout: Duration,
    pub(super) stall_timeout: Duration,
}

/// What a server says of a file without sending it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) sha256: Option<Sha256>,
    pub(super) size_bytes: Option<u64>,
    pub(super) commit: Option<String>,
}

impl Http {
    /// Makes a client. It takes the permit to leave the machine.
    ///
    /// Errors: the endpoint is no address, the token no header, or the machine cannot do TLS.
    pub(super) fn new(options: &HubOptions, _permit: &ModelFetch) -> Result<Self, FetchError> {
        let wrong = |reason: &str| FetchError::Endpoint {
            value: options.endpoint.clone(),
            reason: reason.to_owned(),
        };
        let endpoint = Url::parse(&options.endpoint).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(endpoint.scheme(), "http" | "https") || !endpoint.has_host() {
            return Err(wrong("it should begin with https://"));
        }
        let token = options
            .token
            .as_ref()
            .map(|token| bearer(token.reveal()))
            .transpose()?;
        // An error says that a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(options.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("ingle/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| FetchError::Client(innermost(&error)))?;
        let (connect_timeout, stall_timeout) = (options.connect_timeout, options.stall_timeout);
        Ok(Self {
            client,
            endpoint,
            token,
            connect_timeout,
            stall_timeout,
        })
    }

    /// Where the hub has a file.
    pub(super) fn address(&self, hub: &HubSource, file: &HubFile) -> Url {
        let mut url = self.endpoint.clone();
        // Fails only for addresses without a host, which `new` refuses.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty()
                .extend(hub.repo.as_str().split('/'))
                .extend(["resolve", hub.revision.as_str()])
                .extend(file.file.as_str().split('/'));
        }
        url
    }

    /// Asks what a file is.
    ///
    /// Errors: nobody answers, or with an error.
    pub(super) async fn facts(&self, url: &Url) -> Result<Facts, FetchError> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS_MOST {
            let response = self.send(Method::HEAD, &url, HeaderMap::new()).await?;
            let headers = response.headers();
            let linked = Facts {
                sha256: text(headers, &LINKED_ETAG).and_then(sha256_in),
                size_bytes: text(headers, &LINKED_SIZE).and_then(|size| size.parse().ok()),
                commit: text(headers, &REPO_COMMIT)
                    .and_then(|commit| Revision::new(commit).ok())
                    .map(|commit| commit.to_string()),
            };
            if response.status().is_redirection() {
                if linked.sha256.is_some() {
                    return Ok(linked);
                }
                url = next_hop(&url, &response)?;
                continue;
            }
            if !response.status().is_success() {
                // A store behind the hub need not answer this question, only give the file.
                return if self.is_hub(&url) {
                    Err(self.refusal(&url, &response))
                } else {
                    Ok(linked)
                };
            }
            let length = text(headers, &CONTENT_LENGTH).and_then(|length| length.parse().ok());
            return Ok(Facts {
                sha256: linked
                    .sha256
                    .or_else(|| text(headers, &ETAG).and_then(sha256_in)),
                size_bytes: linked.size_bytes.or(length),
                commit: linked.commit,
            });
        }
        Err(too_many_redirects(&url))
    }

    /// Asks for a file, wherever the hub keeps it.
    ///
    /// Errors: nobody answers. An answer that is an error is the caller's to judge.
    pub(super) async fn get(&self, url: &Url, headers: &HeaderMap) -> Result<Response, FetchError> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS_MOST {
            let response = self.send(Method::GET, &url, headers.clone()).await?;
            let is_hop =
                response.status().is_redirection() && response.status() != StatusCode::NOT_MODIFIED;
            if !is_hop {
                return Ok(response);
            }
            url = next_hop(&url, &response)?;
        }
        Err(too_many_redirects(&url))
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
    ) -> Result<Response, FetchError> {
        if let Some(token) = self.token.as_ref().filter(|_| self.is_hub(url)) {
            headers.insert(AUTHORIZATION, token.clone());
        }
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let request = self
            .client
            .request(method, url.clone())
            .headers(headers)
            .send();
        let patience = self.connect_timeout + self.stall_timeout;
        match tokio::time::timeout(patience, request).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.failure(url, &error)),
            Err(_) => Err(FetchError::Stalled {
                seconds: patience.as_secs(),
            }),
        }
    }

    fn is_hub(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    fn failure(&self, url: &Url, error: &reqwest::Error) -> FetchError {
        if !error.is_connect() {
            return FetchError::Broken(innermost(error));
        }
        let reason = if error.is_timeout() {
            format!(
                "no connection within {} s",
                self.connect_timeout.as_secs_f32()
            )
        } else {
            innermost(error)
        };
        FetchError::Unreachable {
            host: host(url),
            reason,
        }
    }

    /// What an answer that is an error means, and what to do about it.
    pub(super) fn refusal(&self, url: &Url, response: &Response) -> FetchError {
        let status = response.status();
        let is_hub = self.is_hub(url);
        let advice = match (status.as_u16(), &self.token) {
            (401 | 403, _) if !is_hub => "the hub's link to its file store was refused: try again",
            (401 | 403, None) => {
                "the repository is private, gated or does not exist: accept its terms on the hub \
                 and set HF_TOKEN to a token of that account"
            }
            (401 | 403, Some(_)) => {
                "the token in HF_TOKEN may not read this repository: accept the repository's terms \
                 with that account, or use another token"
            }
            (404 | 410, _) => {
                "there is no such file: check repo, revision and file in the model's manifest"
            }
            (429, None) => "too many requests: wait, or set HF_TOKEN to be allowed more",
            (429, Some(_)) => "too many requests: wait and try again",
            (500..=599, _) => "the server has a problem of its own: try again later",
            _ => "this is not expected of a hub: check HF_ENDPOINT",
        };
        let retry_after = text(response.headers(), &RETRY_AFTER);
        FetchError::Status {
            url: shown(url),
            status: status.as_u16(),
            advice: advice.to_owned(),
            retry_after_seconds: retry_after.and_then(|seconds| seconds.parse().ok()),
        }
    }
}

fn bearer(token: &str) -> Result<HeaderValue, FetchError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
        FetchError::Client("HF_TOKEN holds characters that no token has".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Where a redirect leads, if it may be followed.
fn next_hop(url: &Url, response: &Response) -> Result<Url, FetchError> {
    leads_to(url, text(response.headers(), &LOCATION)).map_err(|reason| FetchError::Redirect {
        url: shown(url),
        reason,
    })
}

fn leads_to(url: &Url, location: Option<&str>) -> Result<Url, String> {
    let location = location.ok_or("without saying where to")?;
    let next = url
        .join(location)
        .map_err(|error| format!("to no address: {error}"))?;
    match (url.scheme(), next.scheme()) {
        ("https", "https") | ("http", "http" | "https") => Ok(next),
        (_, scheme) => Err(format!(
            "to {scheme}://{}: only https is followed",
            host(&next)
        )),
    }
}

fn too_many_redirects(url: &Url) -> FetchError {
    let reason = format!("again after {REDIRECTS_MOST} redirects");
    FetchError::Redirect {
        url: shown(url),
        reason,
    }
}

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The checksum an entity tag is, if it is one: `"<64 digits>"`, perhaps weak.
fn sha256_in(tag: &str) -> Option<Sha256> {
    Sha256::parse(tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"'))
}

/// An address for a message: a query may hold a signature, and the front a password.
pub(super) fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), host(url), url.path())
}

fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

/// The last link of the chain of causes, which says what happened.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut said = None;
    while let Some(error) = cause {
        said = Some(error.to_string());
        cause = error.source();
    }
    // The outermost text repeats the address, signature and all.
    said.unwrap_or_else(|| "the request could not be made".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_read_from_tags() {
        let digits = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
        for tag in [
            format!("\"{digits}\""),
            format!("W/\"{digits}\""),
            digits.to_owned(),
        ] {
            assert_eq!(sha256_in(&tag), Sha256::parse(digits));
        }
        assert_eq!(sha256_in("\"d41d8cd98f00b204e9800998ecf8427e\""), None);
    }

    #[test]
    fn redirects_lead_to_no_weaker_place() {
        let leads = |from: &str, to: Option<&str>| {
            leads_to(&Url::parse(from).unwrap(), to).map(|url| url.to_string())
        };
        assert_eq!(leads("https://h/a/b", Some("/c")).unwrap(), "https://h/c");
        assert_eq!(
            leads("https://h/a", Some("https://k/c")).unwrap(),
            "https://k/c"
        );
        for bad in ["http://h/c", "file:///etc/passwd", "ftp://h/c", "//:0"] {
            assert!(leads("https://h/a", Some(bad)).is_err(), "{bad}");
        }
        assert!(leads("http://h/a", Some("file:///etc/passwd")).is_err());
        assert!(leads("https://h/a", None).is_err());
    }

    #[test]
    fn messages_show_no_signature_and_no_password() {
        let url = Url::parse("https://me:word@cdn.example:8443/a/b?X-Signature=abc#d").unwrap();
        assert_eq!(shown(&url), "https://cdn.example:8443/a/b");
    }
}
