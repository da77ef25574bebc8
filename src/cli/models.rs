//! `ingle pull`, `ingle list`, `ingle rm`: which model files are here.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::bail;
use indicatif::DecimalBytes;

use super::{app, node, table};
use crate::catalog::{Catalog, InstalledModel, Manifest, Origin, Progress, Store};
use crate::config::Config;
use crate::egress::Egress;
use crate::pool::check_file;

/// So many aliases of a model are listed.
const ALIASES_SHOWN: usize = 4;

/// Fetches a model unless it is here, and says where it lies.
///
/// - `name` — an id or alias of the catalogue
/// - `progress` — hears how the download goes, e.g. a [`FetchBar`](super::fetch_bar::FetchBar)
///
/// Errors: nothing has this name; it is not here and this is offline mode; no source gave it; `out`
/// does not take more.
pub(crate) async fn pull(
    name: &str,
    (catalog, store): (&Catalog, &Store),
    egress: Egress,
    progress: &dyn Progress,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    if let Some(model) = store.local(name)? {
        model.facts()?;
        writeln!(out, "{} is in {}", model.name, model.path.display())?;
        return Ok(());
    }
    let manifest = catalog.find(name)?;
    let path = match store.installed(manifest) {
        Some(path) => path,
        None => {
            store
                .fetch(manifest, &egress.model_fetch()?, progress)
                .await?
        }
    };
    writeln!(out, "{} is in {}", manifest.id, path.display())?;
    Ok(())
}

/// Lists the models of the catalogue and those that are here.
///
/// Errors: the store cannot be read; `out` does not take more.
pub(crate) fn list(catalog: &Catalog, store: &Store, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut fetched: BTreeMap<String, InstalledModel> = store
        .installed_models()?
        .into_iter()
        .map(|model| (model.id.clone(), model))
        .collect();
    let mut rows = vec![["MODEL", "SIZE", "ALSO CALLED", "FROM"].map(str::to_owned)];
    for manifest in catalog.manifests() {
        let model = fetched.remove(&manifest.id);
        rows.push(catalog_row(manifest, store, model.as_ref()));
    }
    // Fetched once, and not in the catalogue any more.
    for model in fetched.into_values() {
        rows.push([
            model.id,
            size(model.size_bytes),
            "-".to_owned(),
            model.source,
        ]);
    }
    let mut not_offered = Vec::new();
    let local = store.local_models()?;
    for model in &local.models {
        let found = model.facts().map_err(|error| error.to_string());
        let found = found.and_then(|_| check_file(&model.path));
        let from = model.origin.to_string();
        let size = match found {
            Ok(_) => size(model.size_bytes()),
            Err(reason) => {
                not_offered.push(format!("{}: {reason}", model.name));
                "unusable".to_owned()
            }
        };
        rows.push([model.name.clone(), size, "-".to_owned(), from]);
    }
    for skipped in &local.skipped {
        not_offered.push(skipped.to_string());
    }
    table::write(&rows, out)?;
    for line in not_offered {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Forgets an imported model, and has a running Ingle forget it. False for any other.
///
/// Errors: the record cannot be removed; `out` does not take more.
pub(super) async fn forget(
    name: &str,
    config: &Config,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<bool> {
    let (_, store) = app::library(config)?;
    let Some(model) = store.local(name)? else {
        return Ok(false);
    };
    if let Origin::Folder(_) = model.origin {
        bail!(
            "{} lies in a folder of models and not in the store: remove it yourself",
            model.path.display()
        );
    }
    // Out of its memory, too; the record may be another store's than the running Ingle's.
    let asked = node::remove(&model.name, config).await;
    if !store.forget_import(&model.name)? {
        asked?;
    }
    let (name, path) = (&model.name, model.path.display());
    writeln!(out, "{name} is forgotten; its file stays in {path}")?;
    Ok(true)
}

/// Removes a model's files from the store.
///
/// - `name` — an id or alias of the catalogue, or the id of a model it no longer has
///
/// Errors: it is not in the store, or just being fetched; `out` does not take more.
pub(crate) fn rm(
    name: &str,
    catalog: &Catalog,
    store: &Store,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let id = match catalog.find(name) {
        Ok(manifest) => manifest.id.clone(),
        Err(unknown) => {
            if !store
                .installed_models()?
                .iter()
                .any(|model| model.id == name)
            {
                return Err(unknown.into());
            }
            name.to_owned()
        }
    };
    let freed = store.remove(&id)?;
    say_removed(&id, freed, out)
}

/// Says that a model's file is gone.
///
/// Errors: `out` does not take more.
pub(crate) fn say_removed(id: &str, freed: u64, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "removed {id}, {} are free again", size(freed))?;
    Ok(())
}

fn catalog_row(manifest: &Manifest, store: &Store, model: Option<&InstalledModel>) -> [String; 4] {
    let here = store.installed(manifest);
    let (size, from) = match (here, model) {
        (Some(path), Some(model)) if path == model.path => {
            (size(model.size_bytes), model.source.clone())
        }
        (Some(path), _) => (size(length_of(&path)), path.display().to_string()),
        (None, Some(_)) => ("outdated".to_owned(), first_source(manifest)),
        (None, None) => ("-".to_owned(), first_source(manifest)),
    };
    let mut aliases: Vec<&str> = manifest.aliases.iter().map(String::as_str).collect();
    if aliases.len() > ALIASES_SHOWN {
        aliases.truncate(ALIASES_SHOWN);
        aliases.push("…");
    }
    let aliases = if aliases.is_empty() {
        "-".to_owned()
    } else {
        aliases.join(" ")
    };
    [manifest.id.clone(), size, aliases, from]
}

/// The length of a file, or of the files right in a folder.
fn length_of(path: &Path) -> u64 {
    let length = |path: &Path| path.metadata().ok().filter(fs::Metadata::is_file);
    let Ok(entries) = fs::read_dir(path) else {
        return length(path).map_or(0, |meta| meta.len());
    };
    let lengths = entries.flatten().filter_map(|entry| length(&entry.path()));
    lengths.map(|meta| meta.len()).sum()
}

fn first_source(manifest: &Manifest) -> String {
    manifest
        .sources
        .first()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn size(n_bytes: u64) -> String {
    DecimalBytes(n_bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A catalogue whose `tiny` is a file on this machine, and an empty store.
    fn house(folder: &Path) -> (Catalog, Store) {
        let manifest =
            "id = \"tiny\"\naliases = [\"t\"]\n[[sources]]\nfile.path = \"weights.gguf\"\n";
        fs::write(folder.join("tiny.toml"), manifest).unwrap();
        let catalog = Catalog::load(Some(folder)).unwrap();
        (catalog, Store::open(&folder.join("home")).unwrap())
    }

    fn listed(catalog: &Catalog, store: &Store) -> String {
        let mut out = Vec::new();
        list(catalog, store, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn a_local_file_is_used_in_place_even_offline() {
        let folder = tempfile::tempdir().unwrap();
        let (catalog, store) = house(folder.path());
        let offline = Egress::new(true);
        let mut out = Vec::new();
        let missing = pull("t", (&catalog, &store), offline, &(), &mut out)
            .await
            .unwrap_err();
        assert!(missing.to_string().contains("offline"), "{missing}");
        fs::write(folder.path().join("weights.gguf"), [0; 2000]).unwrap();
        pull("t", (&catalog, &store), offline, &(), &mut out)
            .await
            .unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(
            out,
            format!(
                "tiny is in {}\n",
                folder.path().join("weights.gguf").display()
            )
        );
        let table = listed(&catalog, &store);
        let row = table
            .lines()
            .find(|line| line.starts_with("tiny "))
            .unwrap();
        assert!(row.contains("2.00 kB"), "{row}");
    }

    #[test]
    fn the_list_shows_what_is_here_and_what_could_be() {
        let folder = tempfile::tempdir().unwrap();
        let (catalog, store) = house(folder.path());
        let old = folder.path().join("home/models/gone");
        fs::create_dir(&old).unwrap();
        fs::write(old.join("gone.gguf"), "GGUF").unwrap();
        let sha256 = "0".repeat(64);
        let receipt = format!("source = \"hub a/b\"\nsha256 = \"{sha256}\"\nsize_bytes = 4\n");
        fs::write(old.join("receipt.toml"), receipt).unwrap();
        let table = listed(&catalog, &store);
        assert!(table.starts_with("MODEL"), "{table}");
        for start in ["smollm2-135m-instruct", "mistral-7b-instruct", "gone "] {
            assert!(
                table.lines().any(|line| line.starts_with(start)),
                "{start}\n{table}"
            );
        }
        let mut out = Vec::new();
        rm("gone", &catalog, &store, &mut out).unwrap();
        assert!(
            String::from_utf8(out)
                .unwrap()
                .starts_with("removed gone, ")
        );
        assert!(!old.exists());
    }

    #[test]
    fn rm_of_what_is_not_there_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (catalog, store) = house(folder.path());
        let mut out = Vec::new();
        let mut refused = |name| {
            rm(name, &catalog, &store, &mut out)
                .unwrap_err()
                .to_string()
        };
        assert!(refused("smollm2").starts_with("smollm2-135m-instruct is not in "));
        assert!(refused("smolm2").contains("did you mean smollm2"));
        assert!(refused("../home").contains("there is no model"));
    }
}
