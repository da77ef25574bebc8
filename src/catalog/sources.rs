//! A manifest's sources as they stand in its file, and the rules a model's files keep together.
//!
//! A source gives one file (`hub.file`) or several (`hub.files`), never both.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use super::address::Address;
use super::checked::{Id, Member, PackageName, PackageVersion, Repo, Revision, Sha256};
use super::manifest::{
    HubFile, HubSource, LocalFile, PackageMember, PackageSource, Source, UrlFile, UrlSource,
};

/// So many files a model may have.
const FILES_MOST: usize = 1000;

/// A source as it stands in a manifest.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawSource {
    Hub(RawHub),
    Package(RawPackage),
    Url(RawUrl),
    File(LocalFile),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHub {
    repo: Repo,
    revision: Revision,
    file: Option<Member>,
    sha256: Option<Sha256>,
    size_bytes: Option<u64>,
    files: Option<Vec<RawHubFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHubFile {
    file: Member,
    name: Option<Member>,
    sha256: Option<Sha256>,
    size_bytes: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPackage {
    name: PackageName,
    version: PackageVersion,
    member: Option<Member>,
    sha256: Option<Sha256>,
    size_bytes: Option<u64>,
    members: Option<Vec<RawMember>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMember {
    member: Member,
    name: Option<Member>,
    sha256: Sha256,
    size_bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUrl {
    // Checked later: an error of the parser would show the whole line, password and all.
    url: Option<String>,
    sha256: Option<Sha256>,
    size_bytes: Option<u64>,
    files: Option<Vec<RawUrlFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUrlFile {
    url: String,
    name: Option<Member>,
    sha256: Sha256,
    size_bytes: Option<u64>,
}

impl RawSource {
    /// The source, if its files keep the rules.
    ///
    /// - `id` — the model's, by which a single file is called
    /// - `folder` — where relative paths begin
    ///
    /// Errors: one clause that names the key and what to do.
    pub(super) fn checked(self, id: &Id, folder: &Path) -> Result<Source, String> {
        let source = match self {
            Self::Hub(raw) => Source::Hub(raw.checked(id)?),
            Self::Package(raw) => Source::Package(raw.checked(id)?),
            Self::Url(raw) => Source::Url(raw.checked(id)?),
            Self::File(file) => {
                return Ok(Source::File(LocalFile {
                    path: folder.join(file.path),
                }));
            }
        };
        let declared = source.declared();
        let names: Vec<&Member> = declared.iter().map(|file| file.name).collect();
        check_together(&names)?;
        drop(declared);
        Ok(source)
    }
}

impl RawHub {
    fn checked(self, id: &Id) -> Result<HubSource, String> {
        let files = match (self.file, self.files) {
            (Some(file), None) => vec![HubFile {
                name: only_name(id, &file, "hub.file")?,
                file,
                sha256: self.sha256,
                size_bytes: self.size_bytes,
            }],
            (None, Some(files)) if self.sha256.is_none() && self.size_bytes.is_none() => {
                let file = |raw: RawHubFile| {
                    Ok(HubFile {
                        name: name_of(raw.name, raw.file.as_str())?,
                        file: raw.file,
                        sha256: raw.sha256,
                        size_bytes: raw.size_bytes,
                    })
                };
                files.into_iter().map(file).collect::<Result<_, String>>()?
            }
            _ => {
                return Err(
                    "a hub source has either file (with sha256 and size_bytes, if known) \
                            or files = [{ file = … }, …]"
                        .to_owned(),
                );
            }
        };
        Ok(HubSource {
            repo: self.repo,
            revision: self.revision,
            files,
        })
    }
}

impl RawPackage {
    fn checked(self, id: &Id) -> Result<PackageSource, String> {
        let members = match (self.member, self.sha256, self.size_bytes, self.members) {
            (Some(member), Some(sha256), Some(size_bytes), None) => vec![PackageMember {
                name: only_name(id, &member, "package.member")?,
                member,
                sha256,
                size_bytes,
            }],
            (None, None, None, Some(members)) => {
                let member = |raw: RawMember| {
                    Ok(PackageMember {
                        name: name_of(raw.name, raw.member.as_str())?,
                        member: raw.member,
                        sha256: raw.sha256,
                        size_bytes: raw.size_bytes,
                    })
                };
                members
                    .into_iter()
                    .map(member)
                    .collect::<Result<_, String>>()?
            }
            _ => {
                return Err(
                    "a package source has either member, sha256 and size_bytes, or \
                            members = [{ member = …, sha256 = …, size_bytes = … }, …]"
                        .to_owned(),
                );
            }
        };
        Ok(PackageSource {
            name: self.name,
            version: self.version,
            members,
        })
    }
}

impl RawUrl {
    fn checked(self, id: &Id) -> Result<UrlSource, String> {
        let files = match (self.url, self.sha256, self.size_bytes, self.files) {
            (Some(url), Some(sha256), size_bytes, None) => vec![UrlFile {
                url: Address::new(&url)?,
                name: Member::new(format!("{id}.gguf"))?,
                sha256,
                size_bytes,
            }],
            (None, None, None, Some(files)) => {
                let file = |raw: RawUrlFile| {
                    let url = Address::new(&raw.url)?;
                    Ok(UrlFile {
                        name: name_of(raw.name, url.reveal().path())?,
                        url,
                        sha256: raw.sha256,
                        size_bytes: raw.size_bytes,
                    })
                };
                files.into_iter().map(file).collect::<Result<_, String>>()?
            }
            _ => {
                return Err(
                    "a url source has either url and sha256 (with size_bytes, if known) or \
                            files = [{ url = …, sha256 = … }, …]"
                        .to_owned(),
                );
            }
        };
        Ok(UrlSource { files })
    }
}

/// What the only file of a model is called.
fn only_name(id: &Id, from: &Member, key: &str) -> Result<Member, String> {
    if !is_gguf(from) {
        return Err(format!(
            "{key} is {:?}: a model of one file is a .gguf; list several as {key}s",
            from.as_str()
        ));
    }
    Member::new(format!("{id}.gguf"))
}

/// What a file of several is called: as the manifest says, else as the last part of where it lies.
fn name_of(name: Option<Member>, from: &str) -> Result<Member, String> {
    let last = from.rsplit('/').next().unwrap_or(from);
    name.map_or_else(|| Member::new(last), Ok)
}

/// Checks that the files of one model can lie in one folder and are one model: a GGUF file, all
/// shards of one, or weights as safetensors.
fn check_together(names: &[&Member]) -> Result<(), String> {
    if names.is_empty() || names.len() > FILES_MOST {
        let n_files = names.len();
        return Err(format!(
            "it lists {n_files} files: a model has 1 to {FILES_MOST}"
        ));
    }
    // Some file systems take capitals and small letters for the same.
    let folded: BTreeSet<String> = names
        .iter()
        .map(|name| name.as_str().to_ascii_lowercase())
        .collect();
    if folded.len() < names.len() {
        return Err("two of its files have the same name: give one another with name".to_owned());
    }
    for name in &folded {
        let mut folders = name.match_indices('/').filter_map(|(at, _)| name.get(..at));
        if let Some(folder) = folders.find(|folder| folded.contains(*folder)) {
            return Err(format!("{folder} is both a file and a folder of it"));
        }
    }
    let ggufs: BTreeSet<&str> = names
        .iter()
        .filter(|name| is_gguf(name))
        .map(|name| name.as_str())
        .collect();
    if ggufs.len() > 1 && !is_whole_split(&ggufs) {
        return Err(
            "its .gguf files are not all shards of one model, named …-00001-of-0000N.gguf \
             and so on"
                .to_owned(),
        );
    }
    let is_safetensors = |name: &&Member| name.ending() == "safetensors";
    if ggufs.is_empty() && !names.iter().any(is_safetensors) {
        return Err("none of its files is a .gguf or a .safetensors".to_owned());
    }
    Ok(())
}

/// Whether these, in the order of their names, are all shards of one model.
fn is_whole_split(names: &BTreeSet<&str>) -> bool {
    let count = names.len();
    let first = names.iter().next().copied().unwrap_or_default();
    let Some(stem) = first.strip_suffix(&format!("-00001-of-{count:05}.gguf")) else {
        return false;
    };
    let expected = (1..=count).map(|number| format!("{stem}-{number:05}-of-{count:05}.gguf"));
    !stem.is_empty() && names.iter().copied().eq(expected)
}

pub(super) fn is_gguf(name: &Member) -> bool {
    name.ending() == "gguf"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn together(names: &[&str]) -> Result<(), String> {
        let names: Vec<Member> = names
            .iter()
            .map(|name| Member::new(*name).unwrap())
            .collect();
        check_together(&names.iter().collect::<Vec<_>>())
    }

    #[test]
    fn files_that_are_one_model_are_taken() {
        together(&["a.gguf"]).unwrap();
        together(&["q/a-00002-of-00002.gguf", "q/a-00001-of-00002.gguf"]).unwrap();
        together(&["config.json", "1_Pooling/config.json", "model.safetensors"]).unwrap();
    }

    #[test]
    fn files_that_are_not_are_refused_with_the_reason() {
        for (names, expected) in [
            (&[][..], "lists 0 files"),
            (&["a.gguf", "A.gguf"], "same name"),
            (&["a.json", "a.json/b.gguf"], "both a file and a folder"),
            (&["a.gguf", "b.gguf"], "not all shards"),
            (
                &["a-00001-of-00002.gguf", "a-00003-of-00002.gguf"],
                "not all shards",
            ),
            (
                &["a-00001-of-00003.gguf", "a-00002-of-00003.gguf"],
                "not all shards",
            ),
            (
                &["a-00001-of-00002.gguf", "b-00002-of-00002.gguf"],
                "not all shards",
            ),
            (&["config.json"], "none of its files"),
        ] {
            let said = together(names).unwrap_err();
            assert!(said.contains(expected), "{names:?}: {said}");
        }
    }
}
