//! The file read again while a server runs: what then holds, and what has to wait for the next start.

use std::path::PathBuf;

use figment::value::Dict;

use super::document::Problem;
use super::router::{self, RouterSettings, Variables};
use super::{Config, Error, budgets, read_file, shown, telemetry, variable, with_teams};

/// Where a configuration came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// What it says outside of tables.
    pub(super) own: Dict,
}

impl Config {
    /// Reads the file again: this configuration with the budgets and the settings of the router as they are there now, and
    /// the names of what else is different there, which holds from the next start on.
    ///
    /// # Errors
    /// All that is wrong with the file, never empty.
    pub fn reread(&self) -> Result<(Self, Vec<String>), Vec<Problem>> {
        let file = self.source.file.as_deref();
        let mut problems = Vec::new();
        let (document, own) = read_file(file, &mut problems).map_err(as_problems)?;
        let name = shown(file);
        let read = router::read(&document, &name, self.listen, Variables::new(&variable));
        let budgets = budgets::read(&document, &name);
        let telemetry = telemetry::read(&document, &name, Variables::new(&variable));
        match (read, budgets, telemetry) {
            (Ok(router), Ok(budgets), Ok(telemetry)) if problems.is_empty() => {
                let mut later = self.different(&own);
                if telemetry != self.telemetry {
                    later.push(telemetry::TABLE.to_owned());
                }
                if budgets.local_price != self.budgets.local_price {
                    later.push("local_price".to_owned());
                }
                if budgets.keep != self.budgets.keep {
                    later.push("ledger".to_owned());
                }
                let mut next = self.clone();
                next.budgets.limits = budgets.limits;
                next.router = self.staying(with_teams(router), &mut later);
                Ok((next, later))
            }
            (router, budgets, telemetry) => {
                problems.extend(router.err().unwrap_or_default());
                problems.extend(budgets.err().unwrap_or_default());
                problems.extend(telemetry.err().unwrap_or_default());
                Err(problems)
            }
        }
    }

    /// Settings outside of tables that are not what they were.
    fn different(&self, own: &Dict) -> Vec<String> {
        let was = &self.source.own;
        let mut names: Vec<String> = was.keys().chain(own.keys()).cloned().collect();
        names.retain(|name| was.get(name) != own.get(name));
        names.sort();
        names.dedup();
        names
    }

    /// New settings of the router, with those of before that others were built from.
    fn staying(&self, new: RouterSettings, later: &mut Vec<String>) -> RouterSettings {
        let old = &self.router;
        for (name, is_other) in [
            ("providers", new.providers != old.providers),
            ("router.local_hosts", new.local_hosts != old.local_hosts),
            ("router.teams_folder", new.teams_folder != old.teams_folder),
            ("router.teams", new.teams != old.teams),
        ] {
            if is_other {
                later.push(name.to_owned());
            }
        }
        RouterSettings {
            providers: old.providers.clone(),
            local_hosts: old.local_hosts.clone(),
            teams_folder: old.teams_folder.clone(),
            teams: old.teams.clone(),
            ..new
        }
    }
}

fn as_problems(error: Error) -> Vec<Problem> {
    match error {
        Error::Settings(problems) => problems,
        error => vec![Problem {
            key: String::new(),
            place: super::FILE_NAME.to_owned(),
            problem: error.to_string(),
        }],
    }
}

#[cfg(test)]
#[expect(
    clippy::result_large_err,
    reason = "figment's Jail wants its own error"
)]
mod tests {
    use std::time::Duration;

    use figment::Jail;

    use super::*;
    use crate::config::{FILE_NAME, Flags};

    const BEFORE: &str = "threads = 2\n[router]\ndeadline_ms = 1000\n[[budget]]\nper = 'day'\nusd = 5\n\
                          [providers.vllm]\nbase_url = 'http://gpu-1:8000/v1'\n";

    #[test]
    fn budgets_and_the_router_change_and_the_rest_is_named_and_stays() {
        Jail::expect_with(|jail| {
            jail.clear_env();
            jail.set_env("INGLE_HOME", "store");
            jail.create_file(FILE_NAME, BEFORE)?;
            let config = Config::load(&Flags::default(), None).unwrap();
            assert_eq!(config.reread().unwrap(), (config.clone(), Vec::new()));

            let after = "threads = 4\n[router]\ndeadline_ms = 2000\nteams = ['sales']\n\
                         [[budget]]\nper = 'day'\nusd = 7\n[local_price]\nper_hour = 1\n\
                         [telemetry]\nendpoint = 'http://127.0.0.1:4318'\n\
                         [providers.vllm]\nbase_url = 'http://gpu-2:8000/v1'\n";
            jail.create_file(FILE_NAME, after)?;
            let (next, later) = config.reread().unwrap();
            assert_eq!(next.router.deadline, Some(Duration::from_secs(2)));
            assert_eq!(next.budgets.limits[0].most, 7_000_000);
            let waits = [
                "threads",
                "telemetry",
                "local_price",
                "providers",
                "router.teams",
            ];
            assert_eq!(later, waits);
            assert_eq!(next.threads, config.threads);
            assert_eq!(next.router.providers, config.router.providers);
            assert_eq!(next.budgets.local_price, config.budgets.local_price);
            // What waits is named again as long as it waits.
            assert_eq!(next.reread().unwrap().1, waits);
            Ok(())
        });
    }

    #[test]
    fn a_broken_file_is_told_with_its_line() {
        Jail::expect_with(|jail| {
            jail.clear_env();
            jail.set_env("INGLE_HOME", "store");
            jail.create_file(FILE_NAME, BEFORE)?;
            let config = Config::load(&Flags::default(), None).unwrap();
            for (text, says) in [
                ("[router]\ndeadline_ms = 'soon'\n", "ingle.toml, line 2"),
                ("[[budget]]\nper = 'day'\n", "ingle.toml, line 1"),
                ("[router\n", "ingle.toml, line 1"),
                ("thread = 2\n", "did you mean threads?"),
                ("[router]\ndedline_ms = 1\n", "did you mean deadline_ms?"),
            ] {
                jail.create_file(FILE_NAME, text)?;
                let problems = config.reread().unwrap_err();
                let told = problems[0].to_string();
                assert!(told.contains(says), "{says}: {told}");
            }
            std::fs::remove_file(FILE_NAME).unwrap();
            let problems = config.reread().unwrap_err();
            assert!(problems[0].to_string().contains("cannot be read"));
            Ok(())
        });
    }
}
