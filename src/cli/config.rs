//! `ingle config check`: what is wrong with the configuration, or what holds. Never a key.

use std::io::Write;
use std::path::Path;

use anyhow::bail;
use clap::Subcommand;
use serde_json::{Map, Value, json};

use crate::config::document::Problem;
use crate::config::router::{LOCAL, RouterSettings, Strategy};
use crate::config::{self, Config, Error, Flags};
use crate::router::names::{Name, Names};
use crate::router::prices::{Price, Prices};
use crate::router::quality::Quality;
use crate::router::teams::Teams;

/// What can be done with the configuration.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Tell what is wrong with the configuration, else what holds.
    Check {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the verb. `file` is what `--config` names.
pub(super) fn run(
    verb: &ConfigVerb,
    flags: &Flags,
    file: Option<&Path>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let ConfigVerb::Check { json } = verb;
    let (effective, problems) = check(flags, file)?;
    if *json {
        let problems: Vec<Value> = problems
            .iter()
            .map(|problem| json!({"place": problem.place, "problem": problem.problem}))
            .collect();
        writeln!(
            out,
            "{}",
            json!({"problems": problems, "settings": effective})
        )?;
    } else {
        for problem in &problems {
            writeln!(out, "{problem}")?;
        }
        if problems.is_empty() {
            show(&effective, 0, out)?;
        }
    }
    match problems.len() {
        0 => Ok(()),
        1 => bail!("there is a problem with the configuration"),
        n => bail!("there are {n} problems with the configuration"),
    }
}

/// What holds, and what is wrong.
fn check(flags: &Flags, file: Option<&Path>) -> anyhow::Result<(Value, Vec<Problem>)> {
    let config = match Config::load(flags, file) {
        Ok(config) => config,
        Err(Error::Settings(problems)) => return Ok((Value::Null, problems)),
        Err(error) => return Err(error.into()),
    };
    let settings = &config.router;
    let mut problems = unknown_variables();
    let mut gather = |found: Vec<Problem>| problems.extend(found);
    let names = Names::new(settings).map_err(&mut gather).ok();
    let _ = Quality::new(settings.quality.as_deref()).map_err(&mut gather);
    if let Err(error) = Prices::load(&config.home, Price::FREE) {
        gather(vec![problem("prices", error.to_string())]);
    }
    let folder = settings.teams_folder.clone();
    let teams = Teams::open(folder, &settings.teams)
        .map_err(&mut gather)
        .ok();
    if let Some(names) = &names {
        gather(settings_that_lead_nowhere(settings, names, teams.as_ref()));
    }
    let file = config::file_in_use(file);
    let teams = teams.map(|teams| teams.names()).unwrap_or_default();
    Ok((effective(&config, file.as_deref(), &teams), problems))
}

fn problem(place: impl Into<String>, problem: impl Into<String>) -> Problem {
    Problem {
        key: String::new(),
        place: place.into(),
        problem: problem.into(),
    }
}

fn unknown_variables() -> Vec<Problem> {
    let known = config::variable_names();
    let names = config::unknown_variables().into_iter().map(|name| {
        let nearest = config::document::nearest(&name, known.iter().map(String::as_str));
        problem(name, format!("there is no such variable{nearest}"))
    });
    names.collect()
}

/// Providers that are named and that nobody can be.
fn settings_that_lead_nowhere(
    settings: &RouterSettings,
    names: &Names,
    teams: Option<&Teams>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let known = |provider: &str| {
        let is_known = names.is_provider(provider) || names.is_well_known(provider);
        let providers = settings.providers.keys().map(String::as_str);
        let nearest = config::document::nearest(provider, providers.chain([LOCAL]));
        (!is_known).then(|| format!("there is no provider {provider}{nearest}"))
    };
    for (place, link) in settings.fallback_chain.iter().enumerate() {
        if let Some(wrong) = known(&link.provider) {
            let place = format!("link {} of router.fallback_chain", place + 1);
            problems.push(problem(place, wrong));
        }
    }
    for (alias, target) in &settings.aliases {
        let leads_back = match names.read(alias) {
            Name::Bare(bare) => settings.aliases.contains_key(&bare),
            _ => false,
        };
        if leads_back {
            let wrong = format!("it leads to {target}, and from there back to itself");
            problems.push(problem(format!("router.aliases.{alias}"), wrong));
        }
    }
    for name in teams.map(Teams::names).unwrap_or_default() {
        let team = teams.and_then(|teams| teams.find(&name).ok());
        let primary = team.and_then(|team| team.primary_provider.clone());
        if let Some(wrong) = primary.and_then(|primary| known(&primary)) {
            problems.push(problem(format!("primary_provider of team {name}"), wrong));
        }
    }
    problems
}

/// What holds, as a tree.
fn effective(config: &Config, file: Option<&Path>, teams: &[String]) -> Value {
    let router = &config.router;
    let millis = |time: std::time::Duration| json!(time.as_millis().to_string() + " ms");
    let links = router.fallback_chain.iter().map(|link| {
        let is_there = link.provider == LOCAL || router.providers.contains_key(&link.provider);
        let temperature = link
            .temperature
            .map(|temperature| format!(" at temperature {temperature}"));
        let skipped = if is_there {
            ""
        } else {
            ", passed over: it has no key"
        };
        let (provider, model) = (&link.provider, &link.model);
        let temperature = temperature.unwrap_or_default();
        json!(format!("{provider}:{model}{temperature}{skipped}"))
    });
    let mut object = json!({
        "file": file.map(|file| file.display().to_string()),
        "listen": config.listen.to_string(),
        "offline": config.offline,
        "router": {
            "strategy": router.strategy.name(),
            "fallback": router.fallback,
            "privacy": router.privacy.name(),
            "deadline": router.deadline.map(millis),
            "local_timeout": router.local_timeout.map(millis),
            "local_preference": router.local_preference,
            "openrouter_default_model": router.openrouter_default_model,
            "preferences": preferences(router),
            "fallback_chain": links.collect::<Vec<_>>(),
            "aliases": router.aliases,
            "local_hosts": router.local_hosts,
            "teams_folder": router.teams_folder,
            "teams": teams,
            "hedge_budget": router.hedge_budget,
            "max_tokens": router.max_tokens,
        },
        "providers": providers(router),
    });
    without_nulls(&mut object);
    object
}

fn preferences(router: &RouterSettings) -> Value {
    let wishes = &router.preferences;
    json!({
        "strategy": wishes.strategy.map(Strategy::name),
        "prefer_local": wishes.prefer_local,
        "prefer_faster": wishes.prefer_faster,
        "fallback_to_cloud": wishes.fallback_to_cloud,
        "max_cost": wishes.max_cost,
        "max_cost_per_token": wishes.max_cost_per_token,
        "max_cost_per_1k_tokens": wishes.max_cost_per_1k_tokens,
        "quality_threshold": wishes.quality_threshold,
        "acceptable_models": wishes.acceptable_models,
    })
}

fn providers(router: &RouterSettings) -> Value {
    use crate::egress::Keeping;
    let providers = router.providers.values().map(|provider| {
        let keeps = match provider.keeping {
            Keeping::Ours => "it is ours",
            Keeping::Nothing => "keeps nothing",
            Keeping::Maybe => "may keep what it is told",
        };
        let about = json!({
            "dialect": provider.dialect.name(),
            "base_url": provider.base_url,
            "key": if provider.api_key.is_some() { "set" } else { "none" },
            "privacy": keeps,
            "models": provider.models,
        });
        (provider.name.clone(), about)
    });
    Value::Object(providers.collect::<Map<_, _>>())
}

/// Takes out what says nothing.
fn without_nulls(value: &mut Value) {
    if let Value::Object(object) = value {
        object.values_mut().for_each(without_nulls);
        object.retain(|_, value| match value {
            Value::Null => false,
            Value::Array(values) => !values.is_empty(),
            Value::Object(object) => !object.is_empty(),
            _ => true,
        });
    }
}

/// Writes a tree with a line for each value.
fn show(value: &Value, depth: usize, out: &mut dyn Write) -> std::io::Result<()> {
    let Value::Object(object) = value else {
        return Ok(());
    };
    let indent = "  ".repeat(depth);
    for (key, value) in object {
        match value {
            Value::Object(_) => {
                writeln!(out, "{indent}{key}")?;
                show(value, depth + 1, out)?;
            }
            Value::Array(values) => {
                writeln!(out, "{indent}{key}")?;
                for value in values {
                    let text = value
                        .as_str()
                        .map_or_else(|| value.to_string(), str::to_owned);
                    writeln!(out, "{indent}  {text}")?;
                }
            }
            Value::String(text) => writeln!(out, "{indent}{key}  {text}")?,
            other => writeln!(out, "{indent}{key}  {other}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(
    clippy::result_large_err,
    reason = "figment's Jail wants its own error"
)]
mod tests {
    use figment::Jail;

    use super::*;

    fn checked(json: bool) -> (String, Result<(), String>) {
        let mut out = Vec::new();
        let verb = ConfigVerb::Check { json };
        let done = run(&verb, &Flags::default(), None, &mut out);
        let text = String::from_utf8(out).unwrap();
        (text, done.map_err(|error| error.to_string()))
    }

    #[test]
    fn all_problems_are_told_and_no_key_ever() {
        Jail::expect_with(|jail| {
            jail.clear_env();
            jail.set_env("INGLE_HOME", "store");
            jail.set_env("OPENAI_API_KEY", "sk-very-secret");
            let toml =
                "thread = 2\nctx = 0\n[router]\nstrategi = \"x\"\n[providers.openai]\nzdr = 1\n";
            jail.create_file("ingle.toml", toml)?;
            let (text, done) = checked(false);
            assert_eq!(
                done.unwrap_err(),
                "there are 4 problems with the configuration"
            );
            for line in [
                "thread in ingle.toml, line 1: there is no such key: did you mean threads?",
                "router.strategi in ingle.toml, line 4: ",
                "providers.openai.zdr in ingle.toml, line 6: it must be true or false, not 1",
            ] {
                assert!(text.contains(line), "{text}");
            }
            assert!(text.contains("ctx in ingle.toml: "), "{text}");
            assert!(!text.contains("secret"));
            jail.create_file("ingle.toml", "[router]\nfallback_chain = [[\"opnai\", \"gpt-4\"]]\naliases = { a = \"b\", b = \"a\" }\n")?;
            jail.set_env("INGLE_THREDS", "1");
            let (text, done) = checked(false);
            assert_eq!(
                done.unwrap_err(),
                "there are 4 problems with the configuration"
            );
            assert!(
                text.contains(
                    "INGLE_THREDS: there is no such variable: did you mean INGLE_THREADS?"
                ),
                "{text}"
            );
            assert!(text.contains("link 1 of router.fallback_chain: there is no provider opnai: did you mean openai?"), "{text}");
            assert!(text.contains("router.aliases.a: it leads to b"), "{text}");
            Ok(())
        });
    }

    #[test]
    fn what_holds_is_shown_without_keys() {
        Jail::expect_with(|jail| {
            jail.clear_env();
            jail.set_env("INGLE_HOME", "store");
            jail.set_env("OPENAI_API_KEY", "sk-very-secret");
            jail.create_dir("teams/engineering-team/config")?;
            let yaml = "llm_preferences: {primary_provider: local}\n";
            jail.create_file("teams/engineering-team/config/llm_config.yaml", yaml)?;
            let (text, done) = checked(false);
            done.unwrap();
            for line in [
                "  strategy  local_first\n",
                "openai:gpt-4 at temperature 0.7\n",
                "openrouter:auto at temperature 0.7, passed over: it has no key\n",
                "    engineering\n",
                "    key  set\n",
                "https://api.openai.com/v1",
            ] {
                assert!(text.contains(line), "{line}\n{text}");
            }
            let (json, done) = checked(true);
            done.unwrap();
            let json: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(json["settings"]["providers"]["openai"]["key"], "set");
            assert_eq!(json["problems"], json!([]));
            assert!(!text.contains("secret") && !json.to_string().contains("secret"));
            jail.create_file("teams/engineering-team/config/llm_config.yaml", "llm: {}\n")?;
            let (text, done) = checked(false);
            assert_eq!(
                done.unwrap_err(),
                "there is a problem with the configuration"
            );
            assert!(
                text.contains("llm_config.yaml, line 1: there is no such key"),
                "{text}"
            );
            Ok(())
        });
    }
}
