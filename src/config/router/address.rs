//! Addresses of providers, and whether they are ours.

use std::net::{IpAddr, SocketAddr};

use reqwest::Url;

/// The address of a provider, without a slash at its end: http or https, no password, nothing after the path.
///
/// Errors: one clause, without the text, which may hold a password.
pub(in crate::config) fn base(text: &str) -> Result<String, String> {
    let url = Url::parse(text.trim()).map_err(|error| format!("it is no address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("it must begin with https:// or http:// and name a host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a name or a password: a key belongs in api_key_file".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it must end with the path: leave ? and # and what follows out".to_owned());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Whether the host of `url` is in `hosts`, by name or by name and port.
pub(super) fn is_one_of(url: &str, hosts: &[String]) -> bool {
    let Ok(url) = Url::parse(url) else {
        return false;
    };
    let (Some(host), port) = (url.host_str(), url.port_or_known_default()) else {
        return false;
    };
    let with_port = port.map(|port| format!("{host}:{port}"));
    hosts.iter().any(|ours| {
        let ours = ours.trim().to_ascii_lowercase();
        ours == host
            || ours == host.trim_start_matches('[').trim_end_matches(']')
            || with_port.as_ref() == Some(&ours)
    })
}

/// Whether `url` leads to a server that listens at `listen` on this machine.
pub(super) fn is_listener(url: &str, listen: SocketAddr) -> bool {
    let Ok(url) = Url::parse(url) else {
        return false;
    };
    let host = url.host_str().unwrap_or_default();
    let number = host.trim_start_matches('[').trim_end_matches(']');
    let number = number.parse::<IpAddr>().ok();
    let is_loopback = host == "localhost" || number.is_some_and(|number| number.is_loopback());
    let hears_loopback = listen.ip().is_loopback() || listen.ip().is_unspecified();
    let same_host = number == Some(listen.ip())
        || number.is_some_and(|number| number.is_unspecified() && hears_loopback)
        || (is_loopback && hears_loopback);
    same_host && url.port_or_known_default() == Some(listen.port())
}
