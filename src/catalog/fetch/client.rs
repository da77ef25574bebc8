//! The client that files come through: its proxies, and whom it trusts.

use std::fs;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Certificate, Client, ClientBuilder, NoProxy, Proxy, Url};

use crate::egress::ModelFetch;
use crate::secret::Secret;

use super::error::FetchError;
use super::http::innermost;
use super::options::{CaFile, HttpOptions, ProxyOptions};

/// More certificates than any system has.
const CA_FILE_LARGEST: u64 = 16 << 20;

/// Makes a client. It takes the permit to leave the machine.
///
/// Errors: a proxy is no address, the file of certificates holds none, or the machine cannot do TLS.
pub(super) fn client(options: &HttpOptions, _permit: &ModelFetch) -> Result<Client, FetchError> {
    let made = client_builder(options)?.build();
    made.map_err(|error| no_client(options, &error))
}

/// How every client of this program begins: its proxies and certificates, no redirect followed, no
/// variable read. What it is built for is the caller's to have a permit for.
///
/// # Errors
/// A proxy is no address, or the file of certificates holds none.
pub fn client_builder(options: &HttpOptions) -> Result<ClientBuilder, FetchError> {
    // An error says that a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .connect_timeout(options.connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("ingle/", env!("CARGO_PKG_VERSION")))
        // Only the proxies that are named here.
        .no_proxy();
    for proxy in proxies(&options.proxies)? {
        builder = builder.proxy(proxy);
    }
    if let Some(file) = &options.ca_file {
        builder = builder.tls_certs_merge(certificates(file)?);
    }
    Ok(builder)
}

/// Why a builder made no client.
pub fn no_client(options: &HttpOptions, error: &reqwest::Error) -> FetchError {
    let reason = innermost(error);
    match &options.ca_file {
        Some(file) => file.wrong(reason),
        None => FetchError::Client(reason),
    }
}

/// The proxy on the way to an address, as a message may show it.
pub(super) fn proxy_for(options: &ProxyOptions, url: &Url) -> Option<String> {
    let revealed = |proxy: &Option<Secret>| {
        let proxy = proxy.as_ref().map(Secret::reveal);
        proxy.unwrap_or_default().to_owned()
    };
    let matcher = Matcher::builder()
        .all(revealed(&options.all))
        .http(revealed(&options.http))
        .https(revealed(&options.https))
        .no(options.none_for.clone().unwrap_or_default())
        .build();
    let uri = url.as_str().parse().ok()?;
    let proxy = matcher.intercept(&uri)?;
    Some(proxy.uri().authority()?.to_string())
}

fn proxies(options: &ProxyOptions) -> Result<Vec<Proxy>, FetchError> {
    type Make = fn(Url) -> reqwest::Result<Proxy>;
    let kinds: [(&str, &Option<Secret>, Make); 3] = [
        ("HTTPS_PROXY", &options.https, Proxy::https),
        ("HTTP_PROXY", &options.http, Proxy::http),
        ("ALL_PROXY", &options.all, Proxy::all),
    ];
    let none_for = options.none_for.as_deref().and_then(NoProxy::from_string);
    let mut made = Vec::new();
    for (variable, proxy, make) in kinds {
        let Some(proxy) = proxy else { continue };
        let wrong = |reason: String| FetchError::Proxy { variable, reason };
        let url = address(proxy.reveal()).map_err(wrong)?;
        let proxy = make(url).map_err(|error| wrong(innermost(&error)))?;
        made.push(proxy.no_proxy(none_for.clone()));
    }
    Ok(made)
}

/// A proxy's address; a bare `host:port` speaks HTTP.
fn address(text: &str) -> Result<Url, String> {
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url = Url::parse(&with_scheme).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" | "socks4" | "socks4a" | "socks5" | "socks5h" if url.has_host() => Ok(url),
        scheme => Err(format!(
            "it begins with {scheme}://, and a proxy with http://, https:// or socks5://"
        )),
    }
}

impl CaFile {
    fn wrong(&self, reason: String) -> FetchError {
        FetchError::Certificates {
            named_by: self.named_by.clone(),
            path: self.path.clone(),
            reason,
        }
    }
}

/// All certificates of a file.
fn certificates(file: &CaFile) -> Result<Vec<Certificate>, FetchError> {
    let wrong = |reason: String| file.wrong(reason);
    let meta = fs::metadata(&file.path).map_err(|error| wrong(error.to_string()))?;
    if !meta.is_file() || meta.len() > CA_FILE_LARGEST {
        return Err(wrong("it is no file of certificates".to_owned()));
    }
    let pem = fs::read(&file.path).map_err(|error| wrong(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(innermost(&error)))?;
    if found.is_empty() {
        return Err(wrong("it holds no certificate in PEM".to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_is_none_is_named_without_its_password() {
        for (text, reason) in [
            ("ftp://me:word@h", "begins with ftp://"),
            ("http://", "empty host"),
        ] {
            let options = ProxyOptions {
                https: Some(Secret::new(text)),
                ..ProxyOptions::default()
            };
            let said = proxies(&options).unwrap_err().to_string();
            assert!(
                said.contains("HTTPS_PROXY") && said.contains(reason),
                "{said}"
            );
            assert!(!said.contains("word"), "{said}");
        }
        assert_eq!(
            address("proxy:3128").unwrap().as_str(),
            "http://proxy:3128/"
        );
        assert!(address("socks5h://proxy:1080").is_ok());
    }

    #[test]
    fn the_proxy_on_the_way_is_shown_without_its_password() {
        let options = ProxyOptions {
            https: Some(Secret::new("http://me:word@proxy:3128")),
            none_for: Some("inside.example".to_owned()),
            ..ProxyOptions::default()
        };
        let shown = |url| proxy_for(&options, &Url::parse(url).unwrap());
        assert_eq!(shown("https://h/a").as_deref(), Some("proxy:3128"));
        assert_eq!(shown("https://inside.example/a"), None);
        assert_eq!(shown("http://h/a"), None);
    }

    #[test]
    fn a_file_that_holds_no_certificate_is_named_with_its_setting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let said = |text: Option<&str>| {
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            let named_by = "SSL_CERT_FILE".to_owned();
            let path = path.clone();
            certificates(&CaFile { named_by, path })
                .unwrap_err()
                .to_string()
        };
        for text in [
            None,
            Some("not PEM"),
            Some("-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n"),
        ] {
            let said = said(text);
            assert!(
                said.contains("SSL_CERT_FILE") && said.contains("ca.pem"),
                "{said}"
            );
        }
    }
}
