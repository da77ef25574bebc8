//! The folder of teams: `NAME/config/llm_config.yaml` each.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Team, read};
use crate::config::document::{Problem, read_bounded};

/// Where a team's file lies in its folder.
const FILE: &str = "config/llm_config.yaml";
/// No file is longer. Units: bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Teams at most.
const MAX_TEAMS: usize = 10_000;

/// What a folder looks like: its files with their times and lengths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp(Vec<(String, Option<(SystemTime, u64)>)>);

impl Stamp {
    pub(super) fn of(folder: &Path) -> Self {
        let names = names(folder).unwrap_or_default();
        let stamped = names.into_iter().map(|name| {
            let about = fs::metadata(file(folder, &name)).ok();
            let stamp = about.and_then(|about| Some((about.modified().ok()?, about.len())));
            (name, stamp)
        });
        Self(stamped.collect())
    }
}

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).join(FILE)
}

/// The names of the folders in it, in order; hidden ones are nobody's.
fn names(folder: &Path) -> Result<Vec<String>, Problem> {
    let wrong = |problem: String| Problem {
        key: String::new(),
        place: folder.display().to_string(),
        problem,
    };
    let entries =
        fs::read_dir(folder).map_err(|error| wrong(format!("it cannot be read: {error}")))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| wrong(format!("it cannot be read: {error}")))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let is_ours = !name.starts_with(['.', '_']) && entry.path().is_dir();
        if is_ours {
            names.push(name);
        }
        if names.len() > MAX_TEAMS {
            return Err(wrong(format!("it has more than {MAX_TEAMS} folders")));
        }
    }
    names.sort();
    Ok(names)
}

/// Reads all teams. A folder without a file is a team that prefers nothing.
///
/// Errors: all that is wrong, with files and lines.
pub(super) fn read(folder: &Path) -> Result<Vec<Team>, Vec<Problem>> {
    let names = names(folder).map_err(|problem| vec![problem])?;
    let (mut teams, mut problems): (Vec<Team>, Vec<Problem>) = Default::default();
    for name in names {
        let path = file(folder, &name);
        let plain = Team::plain(&name);
        if let Some(twin) = teams.iter().find(|team| team.name == plain.name) {
            problems.push(Problem {
                key: String::new(),
                place: folder.join(&name).display().to_string(),
                problem: format!("there is a team {} already: -team says nothing", twin.name),
            });
            continue;
        }
        if !path.exists() {
            teams.push(plain);
            continue;
        }
        let shown = path.display().to_string();
        let text = read_bounded(&path, MAX_BYTES);
        match text
            .map_err(|problem| vec![problem])
            .and_then(|text| read::team(&text, &shown, plain))
        {
            Ok(team) => teams.push(team),
            Err(wrong) => problems.extend(wrong),
        }
    }
    if problems.is_empty() {
        Ok(teams)
    } else {
        Err(problems)
    }
}
