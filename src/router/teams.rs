//! Teams and what they prefer: a folder with a file for each, read again when one of them changes.

mod folder;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::caller::TeamId;
use crate::config::document::{Problem, nearest};
use crate::config::router::{Preferences, Strategy};
use crate::egress::Privacy;
use folder::Stamp;

/// What a team prefers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Team {
    /// Its name, without `-team` at its end.
    pub name: String,
    /// Whose models it prefers.
    pub primary_provider: Option<String>,
    /// Models it prefers, the best first: names and globs.
    pub model_preferences: Vec<String>,
    /// What is best for a task.
    pub routing_hints: BTreeMap<String, Strategy>,
    /// What it prefers for every request that does not say otherwise.
    pub preferences: Preferences,
    /// Whether another model may answer than the one that was chosen.
    pub enable_fallback: Option<bool>,
    /// How far its prompts may go.
    pub privacy: Option<Privacy>,
    /// Time to the first content.
    pub deadline: Option<Duration>,
}

impl Team {
    /// A team that prefers nothing.
    pub fn plain(name: &str) -> Self {
        Self {
            name: TeamId::new(name).as_str().to_owned(),
            ..Self::default()
        }
    }

    /// What is best for `task`.
    pub fn hint(&self, task: &str) -> Option<Strategy> {
        self.routing_hints.get(task).copied()
    }
}

/// A name that no team has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no team {name:?}{hint}")]
pub struct UnknownTeam {
    /// What was asked for.
    pub name: String,
    /// What there is.
    pub hint: String,
}

/// What came of looking at the folder again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Nothing changed.
    Unchanged,
    /// There are so many teams now.
    Changed {
        /// Teams.
        n_teams: usize,
    },
    /// Something is wrong with what changed: the teams are what they were.
    Kept {
        /// All that is wrong.
        problems: Vec<Problem>,
    },
}

/// All teams. Clones share them.
#[derive(Clone, Debug)]
pub struct Teams(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: Option<PathBuf>,
    /// Known without a file.
    named: Vec<String>,
    teams: RwLock<Arc<BTreeMap<String, Arc<Team>>>>,
    /// What the folder looked like when it was last read, whatever came of it.
    seen: Mutex<Stamp>,
}

impl Teams {
    /// Reads the teams of `folder`; those of `named` are known without a file.
    ///
    /// # Errors
    /// All that is wrong, with files and lines.
    pub fn open(folder: Option<PathBuf>, named: &[String]) -> Result<Self, Vec<Problem>> {
        let stamp = folder.as_deref().map(Stamp::of).unwrap_or_default();
        let teams = load(folder.as_deref(), named)?;
        Ok(Self(Arc::new(Inner {
            folder,
            named: named.to_vec(),
            teams: RwLock::new(Arc::new(teams)),
            seen: Mutex::new(stamp),
        })))
    }

    fn all(&self) -> Arc<BTreeMap<String, Arc<Team>>> {
        let teams = self.0.teams.read();
        Arc::clone(&teams.unwrap_or_else(PoisonError::into_inner))
    }

    /// The names of all.
    pub fn names(&self) -> Vec<String> {
        self.all().keys().cloned().collect()
    }

    /// The team of this name, with or without `-team` at its end.
    ///
    /// # Errors
    /// [`UnknownTeam`], with the names there are.
    pub fn find(&self, name: &str) -> Result<Arc<Team>, UnknownTeam> {
        let teams = self.all();
        let id = TeamId::new(name);
        let short = id.as_str();
        if let Some(team) = teams.get(short) {
            return Ok(Arc::clone(team));
        }
        let hint = if teams.is_empty() {
            ": none is configured (router.teams_folder, router.teams)".to_owned()
        } else {
            let near = nearest(short, teams.keys().map(String::as_str));
            let names: Vec<&str> = teams.keys().take(MOST_NAMED).map(String::as_str).collect();
            let all = names.join(", ");
            match near.strip_suffix('?') {
                Some(_) => format!("{near} There are {all}"),
                None => format!("; there are {all}"),
            }
        };
        Err(UnknownTeam {
            name: name.trim().to_owned(),
            hint,
        })
    }

    /// The team of a key: one that has no file prefers nothing.
    pub fn of_key(&self, name: &str) -> Arc<Team> {
        let found = self.find(name);
        found.unwrap_or_else(|_| Arc::new(Team::plain(name)))
    }

    /// Looks at the folder, and reads it again if a file in it came, went or changed. Where something is wrong all teams
    /// stay as they were. Blocks on the disk.
    pub fn reload(&self) -> Reload {
        let Some(folder) = self.0.folder.as_deref() else {
            return Reload::Unchanged;
        };
        let now = Stamp::of(folder);
        {
            let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now {
                return Reload::Unchanged;
            }
            // Told once: the next look is compared with this one.
            *seen = now;
        }
        match load(Some(folder), &self.0.named) {
            Ok(teams) => {
                let n_teams = teams.len();
                let mut held = self.0.teams.write().unwrap_or_else(PoisonError::into_inner);
                *held = Arc::new(teams);
                Reload::Changed { n_teams }
            }
            Err(problems) => Reload::Kept { problems },
        }
    }
}

impl Teams {
    /// Looks at the folder every so often, for ever, and logs what came of it.
    pub async fn keep_fresh(self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let teams = self.clone();
            match tokio::task::spawn_blocking(move || teams.reload()).await {
                Ok(Reload::Changed { n_teams }) => tracing::info!(n_teams, "teams read again"),
                Ok(Reload::Kept { problems }) => {
                    for problem in problems {
                        tracing::error!(%problem, "teams stay as they were");
                    }
                }
                Ok(Reload::Unchanged) | Err(_) => {}
            }
        }
    }
}

/// Teams that a sentence names at most.
const MOST_NAMED: usize = 40;

fn load(
    folder: Option<&std::path::Path>,
    named: &[String],
) -> Result<BTreeMap<String, Arc<Team>>, Vec<Problem>> {
    let mut teams = BTreeMap::new();
    for name in named {
        let team = Team::plain(name);
        teams.insert(team.name.clone(), Arc::new(team));
    }
    if let Some(folder) = folder {
        for team in folder::read(folder)? {
            teams.insert(team.name.clone(), Arc::new(team));
        }
    }
    Ok(teams)
}
