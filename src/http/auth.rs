//! Who may ask: keys, and for a server without keys the browser's word about where it stands.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, Method, Request, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::caller::Caller;
use crate::keys::Keys;

/// The keys that open the server.
#[derive(Clone)]
pub struct ApiKeys {
    /// Hashes, so that comparing takes as long for every key.
    hashes: Vec<[u8; 32]>,
}

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeysError {
    /// No key in it.
    #[error("the file of keys holds none: write one key a line")]
    Empty,
    /// A key no header can carry.
    #[error("line {line} of the file of keys holds a character that no header can carry")]
    Unprintable {
        /// Its number, from 1.
        line: usize,
    },
}

impl ApiKeys {
    /// Reads keys, one a line; empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let mut hashes = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let key = line.trim();
            if key.is_empty() || key.starts_with('#') {
                continue;
            }
            if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(KeysError::Unprintable { line: number });
            }
            hashes.push(Sha256::digest(key).into());
        }
        if hashes.is_empty() {
            return Err(KeysError::Empty);
        }
        Ok(Self { hashes })
    }

    /// These and `others`.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        self.hashes.extend_from_slice(&others.hashes);
        self
    }

    fn open(&self, key: &str) -> bool {
        let hash: [u8; 32] = Sha256::digest(key).into();
        let matches = self.hashes.iter().map(|known| known.ct_eq(&hash));
        matches.fold(Choice::from(0), |any, one| any | one).into()
    }
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} API keys", self.hashes.len())
    }
}

/// Who may come in.
#[derive(Clone, Debug)]
pub(super) enum Door {
    /// Whoever has a key.
    Keys(ApiKeys),
    /// Programs of this machine: the server listens on a loopback address, without keys.
    Here,
    /// Everybody: the server listens where others reach it, and was told to do so without keys.
    Open,
}

/// What is wrong with a request's credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No key, or a header that carries none.
    MissingKey,
    /// A key that opens nothing.
    WrongKey,
    /// A page of another site, or another name for this machine.
    ForeignOrigin,
    /// A key that may not do that.
    NotAdmin,
}

/// Who sends a request: a key with a name, one of the plain file, or where there are no keys whoever may come in.
pub(super) fn admit(
    door: &Door,
    named: Option<&Keys>,
    headers: &HeaderMap,
) -> Result<Caller, Refusal> {
    let Some(named) = named.filter(|keys| !keys.is_empty()) else {
        return check(door, headers).map(|()| Caller::unnamed());
    };
    let key = key(headers).ok_or(Refusal::MissingKey)?;
    match (named.find(key), door) {
        (Some(caller), _) => Ok(caller),
        (None, Door::Keys(plain)) if plain.open(key) => Ok(Caller::unnamed()),
        (None, _) => Err(Refusal::WrongKey),
    }
}

/// Whether a request changes what the server holds, or asks what all teams have sent away.
pub(super) fn is_for_admins<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    path.starts_with("/v1/egress/")
        || (request.method() != Method::GET && path.starts_with("/api/"))
}

/// Checks a request against the keys or, where there are none, against pages of other sites.
pub(super) fn check(door: &Door, headers: &HeaderMap) -> Result<(), Refusal> {
    let keys = match door {
        Door::Keys(keys) => keys,
        Door::Here => return check_host(headers).and(check_origin(headers)),
        Door::Open => return check_origin(headers),
    };
    match key(headers) {
        None => Err(Refusal::MissingKey),
        Some(key) if keys.open(key) => Ok(()),
        Some(_) => Err(Refusal::WrongKey),
    }
}

/// The key a request carries, as Bearer or in `x-api-key`.
fn key(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    let plain = || {
        headers
            .get("x-api-key")
            .and_then(|value| value.to_str().ok())
    };
    bearer.or_else(plain).filter(|key| !key.is_empty())
}

/// A page that had its own name resolved to a loopback address sends that name.
fn check_host(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_here = |host: &HeaderValue| host.to_str().is_ok_and(is_here);
    match headers.get(header::HOST) {
        Some(host) if !is_here(host) => Err(Refusal::ForeignOrigin),
        _ => Ok(()),
    }
}

/// A page sends its origin: pages of this machine may ask.
fn check_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_here = |origin: &HeaderValue| {
        let origin = origin.to_str().unwrap_or_default();
        let page = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        page.is_some_and(is_here)
    };
    match headers.get(header::ORIGIN) {
        Some(origin) if !is_here(origin) => Err(Refusal::ForeignOrigin),
        _ => Ok(()),
    }
}

/// Whether an authority (`host` or `host:port`) cannot be a name that a stranger owns.
fn is_here(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    // An address was not looked up, so nobody could have bent it.
    host.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{self, Key};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn keys_are_read_one_a_line() {
        let keys = ApiKeys::parse("# team a\nalpha\n\n  beta \r\n").unwrap();
        let door = Door::Keys(keys.clone());
        for (header, value) in [
            ("authorization", "Bearer alpha"),
            ("authorization", "bearer beta"),
            ("x-api-key", "beta"),
        ] {
            assert_eq!(check(&door, &headers(&[(header, value)])), Ok(()));
        }
        let refused = |pairs: &[_]| check(&door, &headers(pairs)).unwrap_err();
        assert_eq!(refused(&[]), Refusal::MissingKey);
        assert_eq!(
            refused(&[("authorization", "Basic alpha")]),
            Refusal::MissingKey
        );
        assert_eq!(
            refused(&[("authorization", "Bearer ")]),
            Refusal::MissingKey
        );
        assert_eq!(
            refused(&[("authorization", "Bearer alphab")]),
            Refusal::WrongKey
        );
        assert_eq!(refused(&[("x-api-key", "# team a")]), Refusal::WrongKey);
        assert_eq!(format!("{keys:?}"), "2 API keys");
    }

    #[test]
    fn a_key_with_a_name_says_who_asks_and_once_there_was_one_nobody_enters_without() {
        let home = tempfile::tempdir().unwrap();
        let none = Keys::open(home.path()).unwrap();
        let unnamed = Ok(Caller::unnamed());
        assert_eq!(admit(&Door::Here, Some(&none), &headers(&[])), unnamed);
        let secret = keys::add(home.path(), Key::new("alice", "")).unwrap();
        let named = Keys::open(home.path()).unwrap();
        let bearer = format!("Bearer {secret}");
        for pair in [("authorization", &*bearer), ("x-api-key", &*secret)] {
            let caller = admit(&Door::Here, Some(&named), &headers(&[pair])).unwrap();
            assert_eq!(caller.key.unwrap().as_str(), "alice");
            assert!(!caller.is_admin);
        }
        let refused = |pairs: &[_]| admit(&Door::Here, Some(&named), &headers(pairs)).unwrap_err();
        assert_eq!(refused(&[]), Refusal::MissingKey);
        assert_eq!(refused(&[("x-api-key", "alice")]), Refusal::WrongKey);
        // The plain file's keys still open, and may everything.
        let plain = Door::Keys(ApiKeys::parse("old\n").unwrap());
        let old = headers(&[("x-api-key", "old")]);
        assert_eq!(admit(&plain, Some(&named), &old), unnamed);
        keys::revoke(home.path(), "alice", "").unwrap();
        named.refresh();
        assert_eq!(refused(&[("x-api-key", &secret)]), Refusal::WrongKey);
        assert_eq!(refused(&[]), Refusal::MissingKey);
    }

    #[test]
    fn only_administrators_change_which_models_there_are_and_see_what_left() {
        for (method, path, expected) in [
            ("GET", "/api/models", false),
            ("GET", "/api/models/m", false),
            ("DELETE", "/api/models/m", true),
            ("POST", "/api/models/m/load", true),
            ("POST", "/api/models/m/pull", true),
            ("POST", "/v1/chat/completions", false),
            ("GET", "/v1/egress/proof", true),
        ] {
            let request = Request::builder().method(method).uri(path).body(());
            assert_eq!(
                is_for_admins(&request.unwrap()),
                expected,
                "{method} {path}"
            );
        }
    }

    #[test]
    fn a_server_for_others_is_called_by_any_name_but_not_by_their_pages() {
        let named = ("host", "ml-server.example:11434");
        assert_eq!(check(&Door::Open, &headers(&[named])), Ok(()));
        let page = ("origin", "https://evil.example.com");
        let refused = check(&Door::Open, &headers(&[named, page]));
        assert_eq!(refused, Err(Refusal::ForeignOrigin));
    }

    #[test]
    fn a_file_without_keys_opens_nothing() {
        assert_eq!(ApiKeys::parse("# none\n\n").unwrap_err(), KeysError::Empty);
        let error = ApiKeys::parse("good\nnot good\n").unwrap_err();
        assert_eq!(error, KeysError::Unprintable { line: 2 });
    }

    #[test]
    fn without_keys_pages_of_other_sites_are_refused() {
        let allowed: [&[(&'static str, &str)]; 7] = [
            &[],
            &[("host", "127.0.0.1:11434")],
            &[("host", "[::1]:11434")],
            &[
                ("host", "localhost:11434"),
                ("origin", "http://localhost:3000"),
            ],
            &[("host", "LOCALHOST")],
            &[("host", "app.localhost:80")],
            &[("host", "10.1.2.3:11434")],
        ];
        for pairs in allowed {
            assert_eq!(check(&Door::Here, &headers(pairs)), Ok(()), "{pairs:?}");
        }
        let refused: [&[(&'static str, &str)]; 6] = [
            &[("host", "evil.example.com")],
            &[("host", "evil.example.com:11434")],
            &[("host", "localhost.evil.example.com")],
            &[
                ("host", "localhost"),
                ("origin", "https://evil.example.com"),
            ],
            &[("host", "localhost"), ("origin", "null")],
            &[("host", "127.0.0.1.evil.example.com")],
        ];
        for pairs in refused {
            assert_eq!(
                check(&Door::Here, &headers(pairs)),
                Err(Refusal::ForeignOrigin),
                "{pairs:?}"
            );
        }
    }
}
