//! One model, described by data: a `models/<id>.toml`.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::checked::{
    Alias, Id, Member, PackageName, PackageVersion, Repo, Revision, Sha256, TemplateName,
};
use super::sources::RawSource;

/// A model the catalogue knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// What it is called for good.
    pub id: String,
    /// What it may be called as well.
    pub aliases: Vec<String>,
    /// What it is for.
    pub kind: Kind,
    /// The architecture its file should name.
    pub architecture: Option<String>,
    /// Where its files come from, tried in this order. Never empty.
    pub sources: Vec<Source>,
    /// The source of a chat template that takes the place of the file's.
    pub chat_template: Option<String>,
    /// What that template is called in messages, e.g. `llama3.jinja`.
    pub template_name: Option<String>,
    /// Texts of tokens that end an answer, beside those the file names.
    pub stop_tokens: Vec<String>,
    /// Tokens of one sequence at most, unless the configuration says otherwise.
    pub context_default: Option<u32>,
    /// The shape of its network, known before its file is here.
    pub network: Option<Network>,
    /// Under which terms it may be used.
    pub license: Option<License>,
}

/// The shape of a network, as its file's keys say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Transformer layers.
    pub n_layers: NonZeroU32,
    /// Values in a token's state.
    pub n_embd: NonZeroU32,
    /// Heads of queries.
    pub n_heads: NonZeroU32,
    /// Heads of keys and values.
    pub n_kv_heads: NonZeroU32,
    /// Values inside the feed-forward layer.
    pub n_ff: NonZeroU32,
    /// Tokens in the vocabulary.
    pub n_vocab: NonZeroU32,
    /// Tokens of context it was trained for.
    pub context_length: NonZeroU32,
    /// Bytes of all tensors.
    pub weights_bytes: NonZeroU64,
}

impl Network {
    /// Whether its heads share out what they have.
    pub(super) fn is_sound(&self) -> bool {
        let (n_embd, n_heads) = (self.n_embd.get(), self.n_heads.get());
        n_embd.is_multiple_of(n_heads) && n_heads.is_multiple_of(self.n_kv_heads.get())
    }
}

/// The terms of a model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct License {
    /// What they are called.
    pub name: String,
    /// Whether the hub asks for an account that accepted them.
    #[serde(default)]
    pub gated: bool,
}

/// What a model is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It answers.
    #[default]
    Chat,
    /// It turns texts into vectors.
    Embedding,
}

/// Where a model's files come from: all of them from one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A repository of the hub.
    Hub(HubSource),
    /// A package of the Python index, fetched with the machine's own pip.
    Package(PackageSource),
    /// Plain addresses.
    Url(UrlSource),
    /// What lies on this machine, used where it lies.
    File(LocalFile),
}

/// Files in a repository of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSource {
    /// Whose repository.
    pub repo: Repo,
    /// Which state of it.
    pub revision: Revision,
    /// Which files in it. Never empty.
    pub files: Vec<HubFile>,
}

/// A file in a repository of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFile {
    /// Which file in it.
    pub file: Member,
    /// Where it lies in the model's folder.
    pub name: Member,
    /// Its checksum. `None`: what the hub states is verified, and pinned on first use.
    pub sha256: Option<Sha256>,
    /// Its length.
    pub size_bytes: Option<u64>,
}

/// Files inside a wheel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageSource {
    /// Which package.
    pub name: PackageName,
    /// Which version of it.
    pub version: PackageVersion,
    /// Which files in its wheel. Never empty.
    pub members: Vec<PackageMember>,
}

/// A file inside a wheel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageMember {
    /// Which file in it.
    pub member: Member,
    /// Where it lies in the model's folder.
    pub name: Member,
    /// The file's checksum: nobody else states it, so it has to be here.
    pub sha256: Sha256,
    /// The file's length; no more is unpacked.
    pub size_bytes: u64,
}

/// Files at plain addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlSource {
    /// Which files. Never empty.
    pub files: Vec<UrlFile>,
}

/// A file at a plain address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlFile {
    /// Where it is.
    pub url: Address,
    /// Where it lies in the model's folder.
    pub name: Member,
    /// Its checksum: nobody else states it, so it has to be here.
    pub sha256: Sha256,
    /// Its length.
    pub size_bytes: Option<u64>,
}

/// What lies on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalFile {
    /// A GGUF file, the first of its shards, or a folder with a `config.json` and weights. A relative
    /// path begins at the manifest's folder.
    pub path: PathBuf,
}

impl LocalFile {
    /// Whether something is there that can be a model. Reads the disk.
    pub fn is_here(&self) -> bool {
        self.path.is_file() || self.path.join("config.json").is_file()
    }
}

impl HubSource {
    /// One line that names a file of it, and by which that is pinned.
    pub(super) fn line(&self, file: &HubFile) -> String {
        format!("hub {}@{}/{}", self.repo, self.revision, file.file)
    }
}

/// One line that names the source.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(hub) => match hub.files.as_slice() {
                [file] => f.write_str(&hub.line(file)),
                files => write!(
                    f,
                    "hub {}@{}, {} files",
                    hub.repo,
                    hub.revision,
                    files.len()
                ),
            },
            Self::Package(package) => {
                write!(f, "package {} {}, ", package.name, package.version)?;
                match package.members.as_slice() {
                    [member] => member.member.fmt(f),
                    members => write!(f, "{} files", members.len()),
                }
            }
            Self::Url(source) => match source.files.as_slice() {
                [file, others @ ..] if !others.is_empty() => {
                    write!(f, "url {} and {} more", file.url, others.len())
                }
                files => files
                    .iter()
                    .try_for_each(|file| write!(f, "url {}", file.url)),
            },
            Self::File(file) => write!(f, "file {}", file.path.display()),
        }
    }
}

/// What a source says of one file.
pub(super) struct Declared<'a> {
    /// Where it lies in the model's folder.
    pub(super) name: &'a Member,
    /// Where the source has it.
    pub(super) from: String,
    pub(super) sha256: Option<Sha256>,
}

impl Source {
    /// What the manifest says of each file; nothing where it is used in place.
    pub(super) fn declared(&self) -> Vec<Declared<'_>> {
        match self {
            Self::Hub(hub) => hub.files.iter().map(HubFile::declared).collect(),
            Self::Package(package) => package
                .members
                .iter()
                .map(PackageMember::declared)
                .collect(),
            Self::Url(source) => source.files.iter().map(UrlFile::declared).collect(),
            Self::File(_) => Vec::new(),
        }
    }
}

impl HubFile {
    fn declared(&self) -> Declared<'_> {
        Declared {
            name: &self.name,
            from: self.file.to_string(),
            sha256: self.sha256,
        }
    }
}

impl PackageMember {
    fn declared(&self) -> Declared<'_> {
        Declared {
            name: &self.name,
            from: self.member.to_string(),
            sha256: Some(self.sha256),
        }
    }
}

impl UrlFile {
    fn declared(&self) -> Declared<'_> {
        Declared {
            name: &self.name,
            from: self.url.to_string(),
            sha256: Some(self.sha256),
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
    pub(super) context_default: Option<NonZeroU32>,
    #[serde(default)]
    pub(super) kind: Kind,
    pub(super) sources: Vec<RawSource>,
    #[serde(default)]
    pub(super) text: RawText,
    pub(super) network: Option<Network>,
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
