//! Writing a bundle. The same models and programs give the same bytes, wherever and whenever.

mod choose;

use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::Digest;
use tar::Builder;

use super::error::BundleError;
use super::layout::{self, CopyError, MANIFEST, Meter};
use super::{BundleManifest, BundledFile, FORMAT, PROGRAMS, VERSION};
use crate::catalog::checked::Sha256;
use crate::catalog::{Catalog, Store, disk};

use choose::Chosen;

/// What goes into a bundle.
#[derive(Clone, Copy, Debug)]
pub struct Packing<'a> {
    /// Where models lie.
    pub store: &'a Store,
    /// What is known of them.
    pub catalog: &'a Catalog,
    /// Names of models that are here.
    pub models: &'a [String],
    /// Programs to go with them.
    pub programs: &'a [PathBuf],
}

/// A bundle that was written.
#[derive(Debug)]
pub struct Created {
    /// What it holds.
    pub manifest: BundleManifest,
    /// The checksum of its manifest, which states all others.
    pub sha256: Sha256,
    /// Its length.
    pub size_bytes: u64,
}

/// A file and what it is going to be in the archive.
struct Source {
    disk: PathBuf,
    file: BundledFile,
}

/// Writes a bundle to `out`, which appears once it is whole. Blocks its thread.
///
/// - `tell` — hears how far it is: bytes done, and of how many
///
/// # Errors
/// [`BundleError`].
pub fn create(
    out: &Path,
    packing: Packing<'_>,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<Created, BundleError> {
    if out.symlink_metadata().is_ok() {
        let (path, problem) = (
            out.to_owned(),
            "exists: remove it or name another file".to_owned(),
        );
        return Err(BundleError::InTheWay { path, problem });
    }
    let chosen = choose::choose(packing)?;
    let programs = programs(packing.programs)?;
    let manifest = BundleManifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        created_by: format!("ingle {}", env!("CARGO_PKG_VERSION")),
        programs: programs
            .iter()
            .map(|program| program.file.clone())
            .collect(),
        programs_for: (!programs.is_empty()).then(this_machine),
        models: chosen.iter().map(Chosen::bundled).collect(),
    };
    let mut text = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| BundleError::io("writing", out, io::Error::other(error)))?;
    text.push(b'\n');
    // What is written is what is read: the rules are the reader's.
    BundleManifest::parse(&text).map_err(|problem| BundleError::NotCarried {
        name: "this".to_owned(),
        problem,
    })?;
    let size_bytes = layout::archive_bytes(&manifest, text.len() as u64).unwrap_or(u64::MAX);
    let sources: Vec<Source> = programs
        .into_iter()
        .chain(chosen.into_iter().flat_map(|model| model.sources))
        .collect();
    let mut meter = Meter {
        done: 0,
        total: manifest.files().map(|file| file.size_bytes).sum(),
        tell,
    };
    let part = part(out, size_bytes)?;
    let written = write(&part, (&text, &sources), &mut meter).and_then(|()| {
        fs::rename(&part.path, out)
            .and_then(|()| disk::sync_folder(parent(out)))
            .map_err(|error| BundleError::io("writing", out, error))
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = disk::remove_all(&part.path);
    }
    written.map(|()| Created {
        manifest,
        sha256: Sha256::from_bytes(sha2::Sha256::digest(&text).into()),
        size_bytes,
    })
}

/// What this program runs on, e.g. `x86_64-linux`.
pub(super) fn this_machine() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

/// The programs as files of the archive.
fn programs(paths: &[PathBuf]) -> Result<Vec<Source>, BundleError> {
    let mut programs = Vec::with_capacity(paths.len());
    for path in paths {
        let name = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        if !PROGRAMS.contains(&name) {
            let (name, known) = (path.display().to_string(), PROGRAMS.join(" or "));
            let problem = format!("a program in it is called {known}");
            return Err(BundleError::NotCarried { name, problem });
        }
        programs.push(source(path, format!("bin/{name}"))?);
    }
    programs.sort_by(|left, right| left.file.path.cmp(&right.file.path));
    Ok(programs)
}

/// A file nobody has a checksum of yet. Reads all of it.
fn source(disk: &Path, path: String) -> Result<Source, BundleError> {
    let reading = |error| BundleError::io("reading", disk, error);
    let size_bytes = fs::metadata(disk).map_err(reading)?.len();
    let sha256 = crate::catalog::verify::sha256_of(disk).map_err(reading)?;
    Ok(Source {
        disk: disk.to_owned(),
        file: BundledFile {
            path,
            from: None,
            size_bytes,
            sha256,
        },
    })
}

/// A file that is being written, and locked while it is.
struct Part {
    path: PathBuf,
    file: File,
}

/// Opens the file that is going to be `out`. What an earlier run left is written over.
fn part(out: &Path, size_bytes: u64) -> Result<Part, BundleError> {
    let mut path = out.as_os_str().to_owned();
    path.push(".part");
    let path = PathBuf::from(path);
    let opening = |error| BundleError::io("writing", &path, error);
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(opening)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let problem = "is being written by another process: try again when that is done";
            let problem = problem.to_owned();
            return Err(BundleError::InTheWay { path, problem });
        }
        Err(TryLockError::Error(error)) => return Err(opening(error)),
    }
    file.set_len(0).map_err(opening)?;
    match disk::free_bytes(parent(out)) {
        Some(free) if free < size_bytes => {
            let _ = disk::remove_all(&path);
            Err(BundleError::NoSpace {
                path: parent(out).to_owned(),
                needed: size_bytes,
                free,
            })
        }
        _ => Ok(Part { path, file }),
    }
}

/// The folder a file lies in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn write(
    part: &Part,
    (manifest, sources): (&[u8], &[Source]),
    meter: &mut Meter<'_>,
) -> Result<(), BundleError> {
    let writing = |error| BundleError::io("writing", &part.path, error);
    let mut out = BufWriter::new(&part.file);
    let header = layout::header(MANIFEST, manifest.len() as u64).map_err(writing)?;
    let mut builder = Builder::new(&mut out);
    builder.append(&header, manifest).map_err(writing)?;
    for source in sources {
        let BundledFile {
            path, size_bytes, ..
        } = &source.file;
        let header = layout::header(path, *size_bytes).map_err(writing)?;
        let out = builder.get_mut();
        out.write_all(header.as_bytes()).map_err(writing)?;
        copy(source, out, &part.path, meter)?;
        let n_zeros = usize::try_from(layout::padding(*size_bytes)).unwrap_or_default();
        out.write_all(&[0; layout::BLOCK_LEN][..n_zeros])
            .map_err(writing)?;
    }
    builder.finish().map_err(writing)?;
    drop(builder);
    out.flush().map_err(writing)?;
    drop(out);
    part.file.sync_all().map_err(writing)
}

/// Copies a file, which has to be what its checksum says.
fn copy(
    source: &Source,
    out: &mut dyn Write,
    out_path: &Path,
    meter: &mut Meter<'_>,
) -> Result<(), BundleError> {
    let reading = |error| BundleError::io("reading", &source.disk, error);
    let mut from = BufReader::new(File::open(&source.disk).map_err(reading)?);
    let got = layout::copy(&mut from, out, source.file.size_bytes, meter);
    let got = got.map_err(|error| match error {
        CopyError::Reading(error) => reading(error),
        CopyError::Writing(error) => BundleError::io("writing", out_path, error),
    })?;
    let expected = source.file.sha256;
    if got == expected {
        return Ok(());
    }
    Err(BundleError::Changed {
        path: source.disk.clone(),
        expected: expected.to_string(),
        got: got.to_string(),
    })
}
