//! The folder as teams keep it, and what happens when somebody breaks a file.

use std::fs;
use std::path::Path;

use super::*;

const ENGINEERING: &str = "llm_preferences:
  primary_provider: local
  model_preferences:
    - local:codellama-13b
    - openrouter:gpt-4
  routing_hints:
    code_generation: prefer_local
    documentation: prefer_quality
    debugging: prefer_fast
";

fn put(folder: &Path, team: &str, text: &str) {
    let config = folder.join(team).join("config");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("llm_config.yaml"), text).unwrap();
}

fn open(folder: &Path) -> Result<Teams, Vec<String>> {
    let teams = Teams::open(Some(folder.to_owned()), &["sales".to_owned()]);
    teams.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn a_team_is_found_with_and_without_its_ending() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "engineering", ENGINEERING);
    put(folder.path(), "executive-team", "");
    fs::create_dir_all(folder.path().join("marketing")).unwrap();
    fs::create_dir_all(folder.path().join(".git")).unwrap();
    let teams = open(folder.path()).unwrap();
    assert_eq!(
        teams.names(),
        ["engineering", "executive", "marketing", "sales"]
    );
    for name in ["engineering", "engineering-team"] {
        let team = teams.find(name).unwrap();
        assert_eq!(team.primary_provider.as_deref(), Some("local"));
        let models = ["local:codellama-13b", "openrouter:gpt-4"];
        assert_eq!(team.model_preferences, models);
        assert_eq!(team.hint("code_generation"), Some(Strategy::LocalFirst));
        assert_eq!(team.hint("documentation"), Some(Strategy::QualityFirst));
        assert_eq!(team.hint("debugging"), Some(Strategy::SpeedFirst));
        assert_eq!(team.hint("poetry"), None);
    }
    assert_eq!(
        *teams.find("marketing-team").unwrap(),
        Team::plain("marketing")
    );
    assert_eq!(*teams.find("executive").unwrap(), Team::plain("executive"));
}

#[test]
fn an_unknown_team_is_told_which_there_are() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "engineering", ENGINEERING);
    let teams = open(folder.path()).unwrap();
    let sentence = |name: &str| teams.find(name).unwrap_err().to_string();
    assert_eq!(
        sentence("enginering-team"),
        "there is no team \"enginering-team\": did you mean engineering? There are engineering, sales"
    );
    assert_eq!(
        sentence("nobody"),
        "there is no team \"nobody\"; there are engineering, sales"
    );
    // A key may belong to a team that has no file.
    assert_eq!(teams.of_key("nobody-team").name, "nobody");
    let none = Teams::open(None, &[]).unwrap();
    let sentence = none.find("a").unwrap_err().to_string();
    assert!(sentence.contains("none is configured"), "{sentence}");
}

#[test]
fn a_wrong_key_is_named_with_its_line_and_the_nearest_right_one() {
    let folder = tempfile::tempdir().unwrap();
    let text = "llm_preferences:
  primary_provder: local
  routing_hints:
    debugging: prefer_fsat
  privacy: secret
";
    put(folder.path(), "a", text);
    put(folder.path(), "b", "llm_preferenzes: {}\n");
    put(folder.path(), "c", "llm_preferences: [\n");
    put(folder.path(), "d", "");
    put(folder.path(), "d-team", "");
    let problems = open(folder.path()).unwrap_err();
    let expected = [
        (
            "llm_preferences.primary_provder in ",
            "a/config/llm_config.yaml, line 2: there is no such key: did you mean primary_provider?",
        ),
        (
            "llm_preferences.routing_hints.debugging in ",
            "line 4: \"prefer_fsat\" is no strategy",
        ),
        (
            "llm_preferences.privacy in ",
            "line 5: \"secret\" is no privacy class",
        ),
        (
            "llm_preferenzes in ",
            "line 1: there is no such key: did you mean llm_preferences?",
        ),
        ("", "c/config/llm_config.yaml, line"),
        ("", "there is a team d already"),
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, (start, within)) in problems.iter().zip(expected) {
        let is_so = problem.starts_with(start) && problem.contains(within);
        assert!(is_so, "{problem}\n{start}…{within}");
    }
}

#[test]
fn a_broken_file_changes_nothing_and_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "engineering", ENGINEERING);
    let teams = open(folder.path()).unwrap();
    assert_eq!(teams.reload(), Reload::Unchanged);
    put(
        folder.path(),
        "ops",
        "llm_preferences: {primary_provider: openai}\n",
    );
    assert_eq!(teams.reload(), Reload::Changed { n_teams: 3 });
    assert!(teams.find("ops").is_ok());
    put(folder.path(), "ops", "llm_preferences: {primary: openai}\n");
    let kept = teams.reload();
    assert!(
        matches!(&kept, Reload::Kept { problems } if problems.len() == 1),
        "{kept:?}"
    );
    assert_eq!(teams.reload(), Reload::Unchanged);
    assert_eq!(
        teams.find("ops").unwrap().primary_provider.as_deref(),
        Some("openai")
    );
    put(
        folder.path(),
        "ops",
        "llm_preferences: {primary_provider: local}\n",
    );
    assert_eq!(teams.reload(), Reload::Changed { n_teams: 3 });
    fs::remove_dir_all(folder.path().join("ops")).unwrap();
    assert_eq!(teams.reload(), Reload::Changed { n_teams: 2 });
    assert!(teams.find("ops").is_err());
}
