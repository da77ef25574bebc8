//! Ollama's store: `manifests/<host>/<namespace>/<model>/<tag>`, each a JSON that lists layers by the
//! checksums under which they lie in `blobs/`.
//!
//! Source: a manifest is one of the Docker registry's, version 2; the media types are Ollama's.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Candidate, Contents};
use crate::catalog::checked::Sha256;
use crate::catalog::disk;
use crate::catalog::error::Error;

/// A manifest is a few hundred bytes.
const MANIFEST_BYTES_MOST: u64 = 1 << 20;
/// More models than this nobody has.
const MANIFESTS_MOST: usize = 10_000;
/// So much of a licence is read to find what it is called.
const LICENSE_BYTES: u64 = 4096;
/// So much of its first line is kept.
const LICENSE_CHARS: usize = 80;
const LAYER: &str = "application/vnd.ollama.image.";
/// What a name says where it names no host, and where no namespace.
const HOST: &str = "registry.ollama.ai";
const NAMESPACE: &str = "library";

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
}

/// What is in the store.
///
/// Errors: the folder of manifests cannot be read.
pub(super) fn contents(root: &Path) -> Result<Contents, Error> {
    let manifests = root.join("manifests");
    let mut found = Vec::new();
    walk(&manifests, &mut Vec::new(), &mut found)
        .map_err(|error| Error::io("reading", &manifests, error))?;
    let mut contents = Contents::default();
    for (parts, path) in found {
        let name = name(&parts);
        match candidate(root, name.clone(), &path) {
            Ok(candidate) => contents.candidates.push(candidate),
            Err(reason) => contents.refuse(name, reason),
        }
    }
    Ok(contents)
}

/// Finds the files that lie exactly four deep. Links are not followed.
fn walk(
    folder: &Path,
    parts: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, PathBuf)>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(part) = entry.file_name().into_string() else {
            continue;
        };
        if part.starts_with('.') || found.len() >= MANIFESTS_MOST {
            continue;
        }
        let kind = entry.file_type()?;
        parts.push(part);
        if kind.is_dir() && parts.len() < 4 {
            walk(&entry.path(), parts, found)?;
        } else if kind.is_file() && parts.len() == 4 {
            found.push((parts.clone(), entry.path()));
        }
        parts.pop();
    }
    Ok(())
}

/// What Ollama's users type.
fn name(parts: &[String]) -> String {
    match parts {
        [host, namespace, model, tag] if host == HOST && namespace == NAMESPACE => {
            format!("{model}:{tag}")
        }
        [host, namespace, model, tag] if host == HOST => format!("{namespace}/{model}:{tag}"),
        [host, namespace, model, tag] => format!("{host}/{namespace}/{model}:{tag}"),
        other => other.join("/"),
    }
}

fn candidate(root: &Path, name: String, manifest: &Path) -> Result<Candidate, String> {
    let layers = layers(manifest)?;
    let of = |kind: &str| {
        let kind = format!("{LAYER}{kind}");
        let is_it = move |layer: &&Layer| layer.media_type == kind;
        layers.iter().filter(is_it).collect::<Vec<_>>()
    };
    if !of("adapter").is_empty() {
        return Err("has an adapter, and Ingle applies none".to_owned());
    }
    let models = of("model");
    let model = match models.as_slice() {
        [model] => model,
        [] => return Err("holds no GGUF file".to_owned()),
        several => {
            return Err(format!(
                "holds {} GGUF files and is no one model",
                several.len()
            ));
        }
    };
    let (path, sha256) = blob(root, &model.digest)?;
    let meta = fs::metadata(&path).map_err(|error| {
        let path = disk::shown(&path);
        format!("its file {path} cannot be read ({error}): get it again with ollama pull {name}")
    })?;
    if !meta.is_file() || meta.len() != model.size {
        let (got, expected, path) = (meta.len(), model.size, disk::shown(&path));
        return Err(format!(
            "its file {path} is {got} bytes long and should be {expected}: get it again with ollama \
             pull {name}"
        ));
    }
    let license = of("license");
    let license = license
        .first()
        .and_then(|layer| license_name(root, &layer.digest));
    Ok(Candidate {
        name,
        files: vec![path],
        sha256: Some(sha256),
        license,
    })
}

fn layers(manifest: &Path) -> Result<Vec<Layer>, String> {
    let shown = disk::shown(manifest);
    let file = File::open(manifest).map_err(|error| format!("{shown}: {error}"))?;
    let mut bytes = Vec::new();
    file.take(MANIFEST_BYTES_MOST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{shown}: {error}"))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MANIFEST_BYTES_MOST) {
        return Err(format!(
            "its manifest {shown} is longer than {MANIFEST_BYTES_MOST} bytes"
        ));
    }
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|error| format!("its manifest {shown} is none of Ollama's: {error}"))?;
    Ok(manifest.layers)
}

/// Where a layer lies, and its checksum. What is no checksum becomes no path.
fn blob(root: &Path, digest: &str) -> Result<(PathBuf, Sha256), String> {
    let sha256 = digest.strip_prefix("sha256:").and_then(Sha256::parse);
    let sha256 =
        sha256.ok_or_else(|| format!("names the blob {digest:?}, and that is no sha256"))?;
    let blobs = root.join("blobs");
    // Its first versions wrote a colon.
    let (new, old) = (
        blobs.join(format!("sha256-{sha256}")),
        blobs.join(format!("sha256:{sha256}")),
    );
    let path = if !new.exists() && old.exists() {
        old
    } else {
        new
    };
    Ok((path, sha256))
}

/// The first line of a licence: what it is called, mostly.
fn license_name(root: &Path, digest: &str) -> Option<String> {
    let (path, _) = blob(root, digest).ok()?;
    if !fs::metadata(&path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(LICENSE_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    let plain = line.chars().filter(|letter| !letter.is_control());
    Some(plain.take(LICENSE_CHARS).collect())
}
