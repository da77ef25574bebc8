//! What is misconfigured, and what could be better.

use std::path::Path;

use ingle_kernels::Isa;
use tokio::net::TcpListener;

use super::machine::{Gpu, Machine};
use crate::catalog::closest;
use crate::cli::app;
use crate::cli::running::Running;
use crate::config::{self, Config};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grade {
    /// Something will not work.
    Problem,
    /// Something could work better.
    Hint,
}

impl Grade {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Hint => "hint",
        }
    }
}

/// One thing that is worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) grade: Grade,
    /// One sentence: what is wrong and what to do.
    pub(super) text: String,
}

fn problem(text: impl Into<String>) -> Finding {
    Finding {
        grade: Grade::Problem,
        text: text.into(),
    }
}

fn hint(text: impl Into<String>) -> Finding {
    Finding {
        grade: Grade::Hint,
        text: text.into(),
    }
}

/// Everything that is found.
pub(super) async fn find(config: &Config, machine: &Machine) -> Vec<Finding> {
    let mut found = Vec::new();
    variables(&mut found);
    computing(config, machine, &mut found);
    memory(config, machine, &mut found);
    store(config, &mut found);
    found.extend(listening(config).await);
    found
}

/// A variable with a slip in its name does nothing, silently.
fn variables(found: &mut Vec<Finding>) {
    for name in config::unknown_variables() {
        let known = config::variable_names();
        let near = closest(&name, known.iter().map(String::as_str));
        let near = match near.first() {
            Some(near) => format!("did you mean {near}?"),
            None => "no setting is called so".to_owned(),
        };
        found.push(problem(format!("{name} is set and does nothing: {near}")));
    }
}

fn computing(config: &Config, machine: &Machine, found: &mut Vec<Finding>) {
    if cfg!(debug_assertions) {
        found.push(hint(
            "this program was built without optimisation: build it with --release",
        ));
    }
    if machine.isa == Isa::Scalar {
        let text = "plain Rust computes, many times slower than vectors: this processor has no AVX2, or INGLE_ISA says scalar";
        found.push(hint(text));
    }
    if machine.n_threads > machine.n_cpus {
        let (asked, most) = (machine.n_threads, machine.n_cpus);
        found.push(problem(format!(
            "threads is {asked} and this process may run on {most} hardware threads: more wait for each other"
        )));
    } else if config.threads.is_some() && machine.n_threads < machine.default_threads {
        let (asked, cores) = (machine.n_threads, machine.default_threads);
        found.push(hint(format!(
            "threads is {asked} and there are {cores} cores"
        )));
    }
    if let Gpu::NotUsed(reason) = &machine.gpu {
        found.push(hint(format!("no GPU is used: {reason}")));
    }
    let huge = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
    if std::fs::read_to_string(huge).is_ok_and(|text| text.contains("[never]")) {
        let text = "transparent huge pages are off, which makes reading weights slower: write madvise to /sys/kernel/mm/transparent_hugepage/enabled";
        found.push(hint(text));
    }
}

fn memory(config: &Config, machine: &Machine, found: &mut Vec<Finding>) {
    let (Some(asked), Some(available)) = (config.memory_bytes, machine.available_bytes) else {
        return;
    };
    if asked.get() > available {
        found.push(problem(format!(
            "memory_bytes is {asked} and {available} bytes are free: models could take more than there is"
        )));
    }
}

fn store(config: &Config, found: &mut Vec<Finding>) {
    let home = &config.home;
    let is_writable = std::fs::create_dir_all(home)
        .and_then(|()| tempfile_in(home))
        .map_err(|error| format!("no model can be stored in {}: {error}", home.display()));
    if let Err(text) = is_writable {
        found.push(if config.offline {
            hint(text)
        } else {
            problem(text)
        });
    }
    match app::library(config) {
        Err(error) => found.push(problem(error.to_string())),
        Ok((catalog, store)) if config.offline => {
            let is_here = |manifest| store.installed(manifest).is_some();
            if !catalog.manifests().iter().any(is_here) {
                let text = "offline is set and no model of the catalogue is here: `ingle bundle install` brings some";
                found.push(hint(text));
            }
        }
        Ok(_) => {}
    }
}

/// Whether a file can be made in `folder`.
fn tempfile_in(folder: &Path) -> std::io::Result<()> {
    let path = folder.join(format!(".doctor-{}", std::process::id()));
    std::fs::write(&path, "")?;
    std::fs::remove_file(path)
}

async fn listening(config: &Config) -> Option<Finding> {
    if let Err(error) = config.check_serving() {
        return Some(problem(error.to_string()));
    }
    let listen = config.listen;
    if Running::find(listen).await.is_some() {
        return None;
    }
    let error = TcpListener::bind(listen).await.err()?;
    Some(problem(format!(
        "{listen} cannot be listened on, and no Ingle answers there: {error}"
    )))
}
