//! `ingle bundle create`, `verify` and `install`: models and the program in one archive, for machines
//! without a network.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::DecimalBytes;

use super::app;
use super::copy_bar::CopyBar;
use super::table;
use crate::catalog::{
    BundleManifest, BundledKind, BundledModel, Outcome, Packing, Sha256, create_bundle,
    install_bundle, verify_bundle,
};
use crate::config::Config;

/// The program that is needed on machines with a GPU; it lies beside this one.
const WITH_GPU: &str = "ingle-cuda";

/// `ingle bundle …`.
#[derive(Debug, Subcommand)]
pub(super) enum BundleVerb {
    /// Write models that are here, with their terms and checksums, into one archive.
    Create(CreateArgs),
    /// Check every byte of an archive and say what is in it.
    Verify {
        /// The archive.
        file: PathBuf,
    },
    /// Install the models of an archive; everything is verified while it is unpacked.
    Install(InstallArgs),
}

/// `ingle bundle create`.
#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// A model that is here; may be given several times.
    #[arg(long = "model", short, value_name = "MODEL", required = true)]
    models: Vec<String>,
    /// Add this program, and ingle-cuda where it lies beside it.
    #[arg(long)]
    with_binary: bool,
    /// The archive to write, e.g. models.tar.
    out: PathBuf,
}

/// `ingle bundle install`.
#[derive(Args, Debug)]
pub(super) struct InstallArgs {
    /// The archive.
    file: PathBuf,
    /// Install the programs in it into this folder.
    #[arg(long, value_name = "FOLDER")]
    bin_dir: Option<PathBuf>,
}

/// Runs the verb.
///
/// Errors: what cannot be packed or installed; `out` does not take more.
pub(super) fn run(verb: &BundleVerb, config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    match verb {
        BundleVerb::Create(args) => create(args, config, out),
        BundleVerb::Verify { file } => verify(file, out),
        BundleVerb::Install(args) => install(args, config, out),
    }
}

fn create(args: &CreateArgs, config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    let (catalog, store) = app::library(config)?;
    let programs = if args.with_binary {
        programs()?
    } else {
        Vec::new()
    };
    let packing = Packing {
        store: &store,
        catalog: &catalog,
        models: &args.models,
        programs: &programs,
    };
    let bar = CopyBar::stderr("packing");
    let created = create_bundle(&args.out, packing, &mut |done, total| bar.at(done, total))?;
    bar.end();
    show(&created.manifest, created.sha256, out)?;
    let size = DecimalBytes(created.size_bytes);
    Ok(writeln!(out, "{size} are in {}", args.out.display())?)
}

/// This program, and the one for machines with a GPU if it is there.
fn programs() -> anyhow::Result<Vec<PathBuf>> {
    let this = std::env::current_exe().context("finding this program's file")?;
    let this = this
        .canonicalize()
        .with_context(|| format!("finding this program's file, {}", this.display()))?;
    let beside = this.with_file_name(WITH_GPU);
    let is_other = beside != this && beside.is_file();
    Ok(std::iter::once(this)
        .chain(is_other.then_some(beside))
        .collect())
}

fn verify(file: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let bar = CopyBar::stderr("verifying");
    let (manifest, sha256) = verify_bundle(file, &mut |done, total| bar.at(done, total))?;
    bar.end();
    show(&manifest, sha256, out)?;
    Ok(writeln!(out, "{} is whole", file.display())?)
}

fn install(args: &InstallArgs, config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    let (catalog, store) = app::library(config)?;
    let bar = CopyBar::stderr("installing");
    let tell = &mut |done, total| bar.at(done, total);
    let bin_folder = args.bin_dir.as_deref();
    let installed = install_bundle(&args.file, (&store, &catalog), bin_folder, tell)?;
    bar.end();
    let (catalog, store) = app::library(config)?;
    for (model, outcome) in &installed.models {
        let what = match outcome {
            Outcome::New => "is installed",
            Outcome::WasHere => "was here already",
        };
        writeln!(out, "{} {what}{}", model.name(), terms(model))?;
        let is_hidden = match &model.kind {
            BundledKind::Catalogue(from) => {
                let found = catalog.find(from.id.as_str());
                found.is_ok_and(|manifest| store.installed(manifest).is_none())
            }
            BundledKind::File(_) => false,
        };
        if is_hidden {
            let name = model.name();
            writeln!(
                out,
                "  a manifest of your own says that {name} comes from elsewhere"
            )?;
        }
    }
    for program in &installed.programs {
        writeln!(out, "{} is installed", program.display())?;
    }
    if !installed.programs_left.is_empty() {
        let (left, file) = (installed.programs_left.join(" and "), args.file.display());
        writeln!(
            out,
            "{left} stayed in it: --bin-dir FOLDER installs it, tar -xf {file} bin unpacks it"
        )?;
    }
    Ok(writeln!(out, "the bundle is {}", installed.sha256)?)
}

/// What a bundle holds, under which terms, and what it is known by.
fn show(manifest: &BundleManifest, sha256: Sha256, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut rows = vec![["MODEL", "SIZE", "FILES", "TERMS"].map(str::to_owned)];
    for model in &manifest.models {
        let terms = model
            .license
            .as_ref()
            .map_or("unknown", |license| &license.name);
        rows.push([
            model.name().to_owned(),
            DecimalBytes(model.size_bytes()).to_string(),
            model.files.len().to_string(),
            terms.to_owned(),
        ]);
    }
    for program in &manifest.programs {
        let machine = manifest.programs_for.clone().unwrap_or_default();
        let size = DecimalBytes(program.size_bytes).to_string();
        rows.push([program.path.clone(), size, "1".to_owned(), machine]);
    }
    table::write(&rows, out)?;
    for model in manifest.models.iter().filter(|model| is_gated(model)) {
        let name = model.name();
        writeln!(
            out,
            "{name}: whoever gets this has to accept its terms with its publisher first"
        )?;
    }
    Ok(writeln!(
        out,
        "the bundle, by {}, is {sha256}",
        manifest.created_by
    )?)
}

fn is_gated(model: &BundledModel) -> bool {
    model.license.as_ref().is_some_and(|license| license.gated)
}

/// The terms of a model, for the end of a line.
fn terms(model: &BundledModel) -> String {
    match &model.license {
        Some(license) if license.gated => {
            format!(
                ", under the {}, which its publisher asks to accept first",
                license.name
            )
        }
        Some(license) => format!(", under the {}", license.name),
        None => String::new(),
    }
}
