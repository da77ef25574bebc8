//! HTTP as sources need it: redirects are followed by hand, because the token goes to the hub and to
//! no host the hub points at.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName,
    HeaderValue, LOCATION,
};
use reqwest::{Client, Method, Response, StatusCode, Url};

use crate::catalog::checked::{Revision, Sha256};
use crate::catalog::manifest::{HubFile, HubSource};
use crate::egress::ModelFetch;

use super::advice::{Answerer, Asked, refusal};
use super::client::{client, proxy_for};
use super::error::FetchError;
use super::options::{HttpOptions, HubOptions, ProxyOptions};

const REDIRECTS_MOST: usize = 5;
/// What the hub says of a large file, while it redirects to where that lies.
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
const REPO_COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");

/// A client for one fetch.
pub(super) struct Http {
    client: Client,
    proxies: ProxyOptions,
    token: Option<(Url, HeaderValue)>,
    connect_timeout: Duration,
    pub(super) stall_timeout: Duration,
}

/// A file to ask for.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) asked: Asked,
}

/// What a server says of a file without sending it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) sha256: Option<Sha256>,
    pub(super) size_bytes: Option<u64>,
    pub(super) commit: Option<String>,
}

/// The hub's address.
///
/// Errors: it is none.
pub(super) fn endpoint(options: &HubOptions) -> Result<Url, FetchError> {
    let wrong = |reason: &str| FetchError::Endpoint {
        value: options.endpoint.clone(),
        reason: reason.to_owned(),
    };
    let endpoint = Url::parse(&options.endpoint).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(endpoint.scheme(), "http" | "https") || !endpoint.has_host() {
        return Err(wrong("it should begin with https://"));
    }
    Ok(endpoint)
}

/// Where the hub has a file.
pub(super) fn on_hub(endpoint: &Url, hub: &HubSource, file: &HubFile) -> Target {
    let mut url = endpoint.clone();
    // Fails only for addresses without a host, which `endpoint` refuses.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty()
            .extend(hub.repo.as_str().split('/'))
            .extend(["resolve", hub.revision.as_str()])
            .extend(file.file.as_str().split('/'));
    }
    let asked = Asked::Hub {
        endpoint: shown(endpoint),
        repo: hub.repo.to_string(),
        revision: hub.revision.to_string(),
        file: file.file.to_string(),
    };
    Target { url, asked }
}

impl Http {
    /// Makes a client without a token.
    ///
    /// Errors: as [`client`].
    pub(super) fn new(options: &HttpOptions, permit: &ModelFetch) -> Result<Self, FetchError> {
        let (connect_timeout, stall_timeout) = (options.connect_timeout, options.stall_timeout);
        Ok(Self {
            client: client(options, permit)?,
            proxies: options.proxies.clone(),
            token: None,
            connect_timeout,
            stall_timeout,
        })
    }

    /// With a token, which is sent to the host of `home` and to no other.
    ///
    /// Errors: it is no header.
    pub(super) fn with_token(
        mut self,
        home: &Url,
        options: &HubOptions,
    ) -> Result<Self, FetchError> {
        let token = options.token.as_ref();
        let token = token.map(|token| bearer(token.reveal())).transpose()?;
        self.token = token.map(|token| (home.clone(), token));
        Ok(self)
    }

    /// Asks what a file is.
    ///
    /// Errors: nobody answers, or with an error.
    pub(super) async fn facts(&self, target: &Target) -> Result<Facts, FetchError> {
        let mut url = target.url.clone();
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
                return if is_at_home(target, &url) {
                    Err(self.refusal(target, &response))
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
    pub(super) async fn get(
        &self,
        target: &Target,
        headers: &HeaderMap,
    ) -> Result<Response, FetchError> {
        let mut url = target.url.clone();
        for _ in 0..=REDIRECTS_MOST {
            let response = self.send(Method::GET, &url, headers.clone()).await?;
            let is_hop =
                response.status().is_redirection() && response.status() != StatusCode::NOT_MODIFIED;
            if is_hop {
                url = next_hop(&url, &response)?;
                continue;
            }
            let encoding = text(response.headers(), &CONTENT_ENCODING).unwrap_or("identity");
            if response.status().is_success() && !encoding.eq_ignore_ascii_case("identity") {
                return Err(FetchError::Encoded {
                    url: shown(&url),
                    encoding: encoding.to_owned(),
                });
            }
            return Ok(response);
        }
        Err(too_many_redirects(&url))
    }

    /// The error that an answer is.
    pub(super) fn refusal(&self, target: &Target, response: &Response) -> FetchError {
        let by = match (is_at_home(target, response.url()), &self.token) {
            (false, _) => Answerer::Elsewhere,
            (true, None) => Answerer::Home,
            (true, Some(_)) => Answerer::HomeWithToken,
        };
        refusal(response, &target.asked, by)
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
    ) -> Result<Response, FetchError> {
        if let Some((home, token)) = &self.token
            && home.origin() == url.origin()
        {
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
        let proxy = proxy_for(&self.proxies, url);
        let through = proxy.map_or_else(String::new, |proxy| format!(" through the proxy {proxy}"));
        FetchError::Unreachable {
            host: host(url) + &through,
            reason,
        }
    }
}

fn is_at_home(target: &Target, url: &Url) -> bool {
    target.url.origin() == url.origin()
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
pub(in crate::catalog) fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), host(url), url.path())
}

/// An address's host, and its port where that is not the usual one.
pub fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

/// The last link of the chain of causes, which says what happened.
pub fn innermost(error: &reqwest::Error) -> String {
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
