//! Gives the process to `ingle-cuda`, where that lies beside this program and can use a GPU.
//!
//! The driver's library is linked by that program; asking it, rather than opening the library here,
//! also finds what else it may lack.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// What the program is called.
const NAME: &str = "ingle-cuda";
/// A driver that has not answered by then will not.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Becomes the program beside this one. Returns only if it does not: none where there is no such program,
/// otherwise why it cannot use a GPU.
pub(super) fn hand_over() -> Option<String> {
    let program = beside()?;
    match ask(&program) {
        Ok(()) => Some(become_it(&program)),
        Err(reason) => Some(reason),
    }
}

fn beside() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.with_file_name(NAME);
    program.is_file().then_some(program)
}

/// Asks it for its GPU.
///
/// Errors: why there is none, as a sentence.
fn ask(program: &Path) -> Result<(), String> {
    let mut child = Command::new(program)
        .arg("gpu")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{NAME} does not start: {error}"))?;
    let ended = wait(&mut child, PATIENCE)?;
    let said = |pipe: Option<&mut dyn Read>| {
        let mut text = String::new();
        // What cannot be read is not said.
        pipe.map(|pipe| pipe.read_to_string(&mut text));
        text
    };
    let out = said(child.stdout.as_mut().map(|pipe| pipe as &mut dyn Read));
    let err = said(child.stderr.as_mut().map(|pipe| pipe as &mut dyn Read));
    if !ended {
        let last = err.lines().rfind(|line| !line.trim().is_empty());
        return Err(format!(
            "{NAME} fails: {}",
            last.unwrap_or("it says nothing")
        ));
    }
    let answer: Value = serde_json::from_str(&out)
        .map_err(|_| format!("{NAME} is of another version: it does not say what it found"))?;
    if answer["used"] == true {
        return Ok(());
    }
    let reason = answer["reason"].as_str().unwrap_or("it gives no reason");
    Err(format!("{NAME} finds no GPU: {reason}"))
}

/// Waits for its end; whether that was a good one.
fn wait(child: &mut Child, patience: Duration) -> Result<bool, String> {
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) if begun.elapsed() < patience => thread::sleep(LOOK_AGAIN),
            Ok(None) => {
                // Whatever becomes of it, nobody waits for it any longer.
                let _ = child.kill();
                // And nothing is left of it.
                let _ = child.wait();
                let seconds = patience.as_secs_f32();
                return Err(format!(
                    "{NAME} does not say within {seconds} s what GPU there is"
                ));
            }
            Err(error) => return Err(format!("{NAME} cannot be waited for: {error}")),
        }
    }
}

/// Replaces this process, arguments and all; why that did not work, if it returns.
#[cfg(unix)]
fn become_it(program: &Path) -> String {
    use std::os::unix::process::CommandExt;
    let error = Command::new(program)
        .args(std::env::args_os().skip(1))
        .exec();
    format!("{NAME} does not start: {error}")
}

#[cfg(not(unix))]
fn become_it(_: &Path) -> String {
    format!("{NAME} cannot take this program's place on this system: start it itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_hangs_is_given_up() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let begun = Instant::now();
        let reason = wait(&mut child, Duration::from_millis(50)).unwrap_err();
        assert_eq!(
            reason,
            "ingle-cuda does not say within 0.05 s what GPU there is"
        );
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert!(child.try_wait().unwrap().is_some());
    }
}
