//! `ingle import`: the models of Ollama's and LM Studio's stores, used where they lie.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use indicatif::DecimalBytes;

use super::app;
use super::copy_bar::CopyBar;
use super::table;
use crate::catalog::{
    Candidate, Catalog, ForeignStore, Import, Origin, Program, Recorded, Sha256, Store, sha256_file,
};
use crate::config::{self, Config};
use crate::pool::check_file;

/// `ingle import`.
#[derive(Args, Debug)]
pub(super) struct ImportArgs {
    /// A store of Ollama or LM Studio, or a folder of GGUF files; unless said, where those programs have
    /// theirs.
    folder: Option<PathBuf>,
    /// Read every file and check it against its checksum.
    #[arg(long)]
    verify: bool,
}

/// Runs the verb.
///
/// Errors: there is no store; it cannot be read; `out` does not take more.
pub(super) fn run(args: &ImportArgs, config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    let (catalog, store) = app::library(config)?;
    let importing = Importing {
        catalog: &catalog,
        store: &store,
        verify: args.verify,
    };
    let mut has_ollama = false;
    for foreign in stores(args.folder.as_deref())? {
        importing.store(&foreign, out)?;
        has_ollama |= foreign.program() == Program::Ollama;
    }
    if has_ollama {
        writeln!(
            out,
            "Ollama's own templates, parameters and system texts are not taken over: the files' chat \
             templates are used, or the catalogue's"
        )?;
    }
    Ok(())
}

/// The store that was named, or all that are where they usually are.
fn stores(folder: Option<&Path>) -> anyhow::Result<Vec<ForeignStore>> {
    if let Some(folder) = folder {
        return Ok(vec![ForeignStore::at(folder)?]);
    }
    let places = ForeignStore::usual_places(config::variable);
    let mut found: Vec<ForeignStore> = Vec::new();
    let mut closed = String::new();
    for place in &places {
        match place.metadata() {
            Ok(meta) if meta.is_dir() => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                closed = format!("; {} cannot be looked into: {error}", place.display());
                continue;
            }
            _ => continue,
        }
        let store = ForeignStore::at(place)?;
        if !found.contains(&store) {
            found.push(store);
        }
    }
    if found.is_empty() {
        let places: Vec<String> = places
            .iter()
            .map(|place| place.display().to_string())
            .collect();
        bail!(
            "no store of Ollama or LM Studio is in {}: name its folder{closed}",
            places.join(", ")
        );
    }
    Ok(found)
}

/// What imports need.
struct Importing<'a> {
    catalog: &'a Catalog,
    store: &'a Store,
    verify: bool,
}

impl Importing<'_> {
    /// Imports what can be of one store, forgets what is no longer there, and says so.
    fn store(&self, foreign: &ForeignStore, out: &mut dyn Write) -> anyhow::Result<()> {
        let contents = foreign.contents()?;
        let from = foreign.to_string();
        writeln!(out, "{from}:")?;
        let mut rows = Vec::new();
        let mut kept = BTreeSet::new();
        for candidate in contents.candidates {
            let name = candidate.name.clone();
            let (size, what) = match self.import(&from, candidate) {
                Ok((import, what)) => {
                    kept.insert(import.name.to_ascii_lowercase());
                    (DecimalBytes(import.size_bytes).to_string(), what)
                }
                Err(reason) => ("-".to_owned(), format!("not imported: {reason:#}")),
            };
            rows.push([name, size, what]);
        }
        for refused in contents.refused {
            let what = format!("not imported: {}", refused.reason);
            rows.push([refused.name, "-".to_owned(), what]);
        }
        for model in self.store.imported()? {
            let is_from = matches!(&model.origin, Origin::Import(import) if import.from == from);
            if is_from && !kept.contains(&model.name.to_ascii_lowercase()) {
                self.store.forget_import(&model.name)?;
                let what = "forgotten: it cannot be used any more".to_owned();
                rows.push([model.name, "-".to_owned(), what]);
            }
        }
        if rows.is_empty() {
            writeln!(out, "no models")?;
        }
        Ok(table::write(&rows, out)?)
    }

    /// Records one model, if it can be loaded.
    fn import(&self, from: &str, candidate: Candidate) -> anyhow::Result<(Import, String)> {
        let Some(first) = candidate.files.first() else {
            bail!("it has no file");
        };
        let file = check_file(first).map_err(anyhow::Error::msg)?;
        let sha256 = if self.verify {
            verified(&candidate)?
        } else {
            candidate.sha256
        };
        let known = self.catalog.find(&candidate.name).ok();
        let template_of = known
            .filter(|manifest| !file.has_chat_template && manifest.chat_template.is_some())
            .map(|manifest| manifest.id.clone());
        let mut notes = Vec::new();
        match &template_of {
            Some(id) => notes.push(format!("with the chat template of {id}")),
            None if !file.has_chat_template => notes.push("without a chat template".to_owned()),
            None => {}
        }
        if self.verify {
            notes.push("verified".to_owned());
        }
        let hides = known.filter(|manifest| self.store.installed(manifest).is_some());
        notes
            .extend(hides.map(|manifest| format!("instead of {}, which is here too", manifest.id)));
        let import = Import {
            name: candidate.name,
            files: candidate.files,
            size_bytes: file.size_bytes,
            sha256,
            from: from.to_owned(),
            template_of,
            license: candidate.license,
        };
        let what = match self.store.record_import(&import)? {
            Recorded::New => "imported",
            Recorded::Renewed => "imported anew",
            Recorded::Unchanged => "was imported before",
        };
        notes.insert(0, what.to_owned());
        Ok((import, notes.join(", ")))
    }
}

/// The checksum of a model's only file, which has to be as stated; of shards none is kept.
fn verified(candidate: &Candidate) -> anyhow::Result<Option<Sha256>> {
    let bar = CopyBar::stderr("verifying");
    let mut last = None;
    for path in &candidate.files {
        let got = sha256_file(path, &mut |done, total| bar.at(done, total))?;
        if let Some(expected) = candidate.sha256
            && got != expected
        {
            bail!(
                "{} has the sha256 {got}, and its store says {expected}",
                path.display()
            );
        }
        last = Some(got);
    }
    Ok(last.filter(|_| candidate.files.len() == 1))
}
