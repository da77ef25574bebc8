//! Addresses of files, as a manifest names them.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use super::fetch::shown;

/// An `https` address, or an `http` one of this machine. It may hold a password or a signature,
/// which nothing shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

impl Address {
    /// Takes `text` if it is such an address.
    ///
    /// # Errors
    /// One clause that says what is wrong.
    pub fn new(text: &str) -> Result<Self, String> {
        // The text is not repeated: it may hold a password.
        let url = Url::parse(text).map_err(|error| format!("url is no address: {error}"))?;
        let host = url.host_str().unwrap_or_default();
        let number = host.trim_start_matches('[').trim_end_matches(']');
        let number = number.parse::<IpAddr>();
        let is_here = host == "localhost" || number.is_ok_and(|number| number.is_loopback());
        match url.scheme() {
            "https" if url.has_host() => Ok(Self(url)),
            "http" if is_here => Ok(Self(url)),
            _ => Err(format!(
                "url is {}: it should begin with https:// (http:// is for this machine alone)",
                shown(&url)
            )),
        }
    }

    /// All of it.
    pub(super) fn reveal(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_read_on_the_way_is_taken() {
        for text in [
            "https://h/a.gguf",
            "http://127.0.0.1:8/a",
            "http://[::1]/a",
            "http://localhost/a",
        ] {
            assert!(Address::new(text).is_ok(), "{text}");
        }
        for text in [
            "http://h/a",
            "http://127.0.0.1.h/a",
            "ftp://h/a",
            "file:///a",
            "a.gguf",
            "https://",
        ] {
            assert!(Address::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn passwords_and_signatures_are_not_shown() {
        let address = Address::new("https://me:word@h/a.gguf?sig=abc").unwrap();
        assert_eq!(
            format!("{address} {address:?}"),
            "https://h/a.gguf Address(https://h/a.gguf)"
        );
        let refused = Address::new("http://me:word@h/a?sig=abc").unwrap_err();
        assert!(
            !refused.contains("word") && !refused.contains("abc"),
            "{refused}"
        );
    }
}
