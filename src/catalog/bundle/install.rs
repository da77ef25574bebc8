//! Installing a bundle: everything is verified while it is unpacked, into the places where unfinished
//! downloads lie, and appears by a rename.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::create::this_machine;
use super::error::BundleError;
use super::layout::Meter;
use super::read::Bundle;
use super::{BundledFile, BundledKind, BundledModel, FromCatalogue};
use crate::catalog::checked::{CarriedName, Sha256};
use crate::catalog::fetch::{Fetched, FetchedFile, Workplace};
use crate::catalog::manifest::Source;
use crate::catalog::receipt::{InstalledFile, InstalledModel};
use crate::catalog::{Catalog, Store, carried, disk, verify};

/// Where files of folders are unpacked: no model's id begins so.
const FILES_PLACE: &str = ".files";

/// A bundle that was installed.
#[derive(Debug)]
pub struct Installed {
    /// Each model and what became of it.
    pub models: Vec<(BundledModel, Outcome)>,
    /// The programs that were installed.
    pub programs: Vec<PathBuf>,
    /// Those that were left in it, by their paths in the archive.
    pub programs_left: Vec<String>,
    /// The checksum of its manifest.
    pub sha256: Sha256,
}

/// What became of a model of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is here now.
    New,
    /// It was here already.
    WasHere,
}

/// Installs all models of a bundle, and its programs into `bin_folder` where one is named. Blocks its
/// thread.
///
/// - `tell` — hears how far it is: bytes done, and of how many
///
/// # Errors
/// [`BundleError`]. Models before the one it ended at are installed.
pub fn install(
    path: &Path,
    (store, catalog): (&Store, &Catalog),
    bin_folder: Option<&Path>,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<Installed, BundleError> {
    let mut bundle = Bundle::open(path)?;
    let manifest = bundle.manifest.clone();
    for model in &manifest.models {
        check(&bundle, model, catalog)?;
    }
    let models: Vec<(BundledModel, Outcome)> = manifest
        .models
        .into_iter()
        .map(|model| outcome(store, &model).map(|outcome| (model, outcome)))
        .collect::<Result<_, _>>()?;
    let new = models
        .iter()
        .filter(|(_, outcome)| *outcome == Outcome::New);
    let total = new
        .map(|(model, _)| model.size_bytes())
        .fold(0, u64::saturating_add);
    check_space(store.home(), total)?;
    let machine = manifest.programs_for.as_deref().unwrap_or("no machine");
    if bin_folder.is_some() && !manifest.programs.is_empty() && machine != this_machine() {
        return Err(bundle.refused(format!(
            "the programs in it are for {machine}, and this is {}: leave --bin-dir out",
            this_machine()
        )));
    }
    let mut meter = Meter {
        done: 0,
        total,
        tell,
    };
    let (mut programs, mut programs_left) = (Vec::new(), Vec::new());
    for program in &manifest.programs {
        if let Some(folder) = bin_folder {
            programs.push(install_program(&mut bundle, program, folder)?);
        } else {
            bundle.skip(program)?;
            programs_left.push(program.path.clone());
        }
    }
    for (model, outcome) in &models {
        if *outcome == Outcome::WasHere {
            for file in &model.files {
                bundle.skip(file)?;
            }
            continue;
        }
        match &model.kind {
            BundledKind::Catalogue(from) => {
                let here = Here { store, catalog };
                here.install(&mut bundle, (from, model), &mut meter)?;
            }
            BundledKind::File(_) => install_file(&mut bundle, store, model, &mut meter)?,
        }
    }
    Ok(Installed {
        models,
        programs,
        programs_left,
        sha256: bundle.sha256,
    })
}

fn check_space(folder: &Path, needed: u64) -> Result<(), BundleError> {
    match disk::free_bytes(folder) {
        Some(free) if free < needed => Err(BundleError::NoSpace {
            path: folder.to_owned(),
            needed,
            free,
        }),
        _ => Ok(()),
    }
}

/// Refuses a model that could not be used once it were installed.
fn check(bundle: &Bundle, model: &BundledModel, catalog: &Catalog) -> Result<(), BundleError> {
    let BundledKind::Catalogue(from) = &model.kind else {
        return Ok(());
    };
    let refused = |problem: String| bundle.refused(problem);
    source(from, model).map_err(refused)?;
    match catalog.find(from.id.as_str()) {
        Ok(other) if other.id != from.id.as_str() => Err(refused(format!(
            "{:?} is another name of {} here: remove that name from its manifest",
            from.id.as_str(),
            other.id
        ))),
        _ => Ok(()),
    }
}

/// The one of its manifest's sources that the model is from.
fn source(from: &FromCatalogue, model: &BundledModel) -> Result<Source, String> {
    let installed = installed(from, model)?;
    let mut sources = carried::incoming(from)?.into_iter();
    let found = sources.find(|source| installed.is_from(source));
    found.ok_or_else(|| {
        let FromCatalogue { id, source, .. } = from;
        format!("its manifest of {id} does not list {source:?} with these files")
    })
}

/// The model as the store will know it.
fn installed(from: &FromCatalogue, model: &BundledModel) -> Result<InstalledModel, String> {
    let file = |(name, file): (_, &BundledFile)| InstalledFile {
        name,
        from: file.from.clone(),
        sha256: file.sha256,
        size_bytes: file.size_bytes,
    };
    Ok(InstalledModel {
        id: from.id.to_string(),
        path: PathBuf::new(),
        size_bytes: model.size_bytes(),
        files: model.members()?.into_iter().map(file).collect(),
        source: from.source.clone(),
    })
}

/// Whether a model has to be unpacked.
fn outcome(store: &Store, model: &BundledModel) -> Result<Outcome, BundleError> {
    let is_here = match &model.kind {
        BundledKind::Catalogue(from) => {
            let here = store.read_installed(from.id.as_str());
            let files = here
                .filter(|here| here.source == from.source)
                .map(|here| here.files);
            files.is_some_and(|files| {
                let same =
                    |file: &&BundledFile| files.iter().any(|here| here.sha256 == file.sha256);
                files.len() == model.files.len()
                    && model.files.iter().filter(same).count() == files.len()
            })
        }
        BundledKind::File(name) => {
            let mut n_here = 0;
            for file in &model.files {
                n_here += usize::from(file_is_here(store, name, file)?);
            }
            n_here == model.files.len()
        }
    };
    Ok(if is_here {
        Outcome::WasHere
    } else {
        Outcome::New
    })
}

/// Where a file of a folder goes.
fn file_place(store: &Store, file: &BundledFile) -> PathBuf {
    let name = file.path.strip_prefix("files/").unwrap_or(&file.path);
    store.home().join("gguf").join(name)
}

/// Whether the very file is there already.
fn file_is_here(
    store: &Store,
    name: &CarriedName,
    file: &BundledFile,
) -> Result<bool, BundleError> {
    let path = file_place(store, file);
    let meta = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        meta => meta.map_err(|error| BundleError::io("reading", &path, error))?,
    };
    let is_same = meta.is_file() && meta.len() == file.size_bytes && {
        let got = verify::sha256_of(&path);
        got.map_err(|error| BundleError::io("reading", &path, error))? == file.sha256
    };
    if is_same {
        return Ok(true);
    }
    let problem = format!("is another file than the bundle's {name}: move it away first");
    Err(BundleError::InTheWay { path, problem })
}

/// The store and catalogue a model is installed into.
struct Here<'a> {
    store: &'a Store,
    catalog: &'a Catalog,
}

impl Here<'_> {
    fn install(
        &self,
        bundle: &mut Bundle,
        (from, model): (&FromCatalogue, &BundledModel),
        meter: &mut Meter<'_>,
    ) -> Result<(), BundleError> {
        let id = from.id.as_str();
        let lock = Arc::new(self.store.try_lock(id)?);
        let place = self.store.home().join("partial").join(id);
        let workplace = Workplace::open(place, lock)?;
        let members = model.members().map_err(|problem| bundle.refused(problem))?;
        let source = source(from, model).map_err(|problem| bundle.refused(problem))?;
        let declared = source.declared();
        let mut files = Vec::with_capacity(members.len());
        for (name, file) in members {
            let path = workplace.part(file.sha256);
            unpack(bundle, file, &path, meter)?;
            // Receipts of before do not say it.
            let declared = declared.iter().find(|declared| *declared.name == name);
            let declared = declared.map(|declared| declared.from.clone());
            files.push(FetchedFile {
                path,
                from: file.from.clone().or(declared).unwrap_or_default(),
                name,
                sha256: file.sha256,
                size_bytes: file.size_bytes,
            });
        }
        if !self.is_known(from, model) {
            carried::write(self.store.home(), from)?;
        }
        let commit = from.commit.clone();
        let fetched = Fetched { files, commit };
        self.store
            .install(id, from.source.clone(), fetched, &workplace)?;
        Ok(())
    }

    /// Whether the catalogue here takes the model for what it is.
    fn is_known(&self, from: &FromCatalogue, model: &BundledModel) -> bool {
        let Ok(known) = self.catalog.find(from.id.as_str()) else {
            return false;
        };
        let installed = installed(from, model);
        let is_from = |source: &Source| installed.as_ref().is_ok_and(|model| model.is_from(source));
        known.sources.iter().any(is_from)
    }
}

/// Unpacks the next entry into `path`; nothing is left of it where it is not what it should be.
fn unpack(
    bundle: &mut Bundle,
    file: &BundledFile,
    path: &Path,
    meter: &mut Meter<'_>,
) -> Result<(), BundleError> {
    let writing = |error| BundleError::io("writing", path, error);
    // Not through a link that somebody put there.
    disk::remove_all(path).map_err(writing)?;
    let mut out = BufWriter::new(File::create_new(path).map_err(writing)?);
    let unpacked = bundle.entry(file, (&mut out, path), meter).and_then(|()| {
        let flushed = out.flush().and_then(|()| out.get_ref().sync_all());
        flushed.map_err(writing)
    });
    if unpacked.is_err() {
        // The first error is the one to tell.
        let _ = disk::remove_all(path);
    }
    unpacked
}

/// Installs a model that was a file into the store's folder of such.
fn install_file(
    bundle: &mut Bundle,
    store: &Store,
    model: &BundledModel,
    meter: &mut Meter<'_>,
) -> Result<(), BundleError> {
    let _lock = store.try_lock(FILES_PLACE)?;
    let place = store.home().join("partial").join(FILES_PLACE);
    disk::remove_all(&place).map_err(|error| BundleError::io("removing", &place, error))?;
    fs::create_dir_all(&place).map_err(|error| BundleError::io("creating", &place, error))?;
    let mut unpacked = Vec::with_capacity(model.files.len());
    for file in &model.files {
        let part = place.join(file.sha256.to_string());
        unpack(bundle, file, &part, meter)?;
        unpacked.push((part, file_place(store, file)));
    }
    let folder = store.home().join("gguf");
    let put = || -> io::Result<()> {
        for (part, target) in &unpacked {
            // It is whole: whoever looks need not wait whether more is written.
            let long_ago = SystemTime::now() - Duration::from_mins(1);
            File::options()
                .write(true)
                .open(part)?
                .set_modified(long_ago)?;
            fs::rename(part, target)?;
        }
        disk::sync_folder(&folder)?;
        disk::remove_all(&place)
    };
    put().map_err(|error| BundleError::io("putting the model into", &folder, error))
}

/// Installs a program; one that is there is replaced.
fn install_program(
    bundle: &mut Bundle,
    program: &BundledFile,
    folder: &Path,
) -> Result<PathBuf, BundleError> {
    fs::create_dir_all(folder).map_err(|error| BundleError::io("creating", folder, error))?;
    check_space(folder, program.size_bytes)?;
    let name = program.path.strip_prefix("bin/").unwrap_or(&program.path);
    let (part, target) = (folder.join(format!(".{name}.part")), folder.join(name));
    let mut meter = Meter {
        done: 0,
        total: program.size_bytes,
        tell: &mut |_, _| {},
    };
    unpack(bundle, program, &part, &mut meter)?;
    let put = || -> io::Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
        }
        fs::rename(&part, &target)?;
        disk::sync_folder(folder)
    };
    put().map_err(|error| BundleError::io("putting the program into", folder, error))?;
    Ok(target)
}
