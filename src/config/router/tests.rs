//! What the file and the variables mean, and what is said about those that mean nothing.

use super::*;
use crate::config::document::{Node, Problem};
use crate::egress::Keeping;

fn load(toml: &str, variables: &[(&str, &str)]) -> Result<RouterSettings, Vec<String>> {
    let get = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let document = Node::from_toml(toml, "f").unwrap();
    let listen = "127.0.0.1:11434".parse().unwrap();
    read(&document, "f", listen, Variables::new(&get))
        .map_err(|problems| problems.iter().map(Problem::to_string).collect())
}

fn of_variables(variables: &[(&str, &str)]) -> RouterSettings {
    load("", variables).unwrap()
}

#[test]
fn the_variables_keep_the_meaning_they_had() {
    let settings = of_variables(&[
        ("OPENROUTER_API_KEY", "sk-or-1"),
        ("OPENROUTER_DEFAULT_MODEL", "openai/gpt-4"),
        (
            "OPENROUTER_PREFERENCES",
            r#"{"prefer_local": true, "max_cost": 0.01, "max_cost_per_token": 0.0001,
                "prefer_faster": true, "quality_threshold": 0.8, "fallback_to_cloud": true}"#,
        ),
        ("LOCAL_MODEL_PREFERENCE", "llama3-8b, local:mistral-7b,"),
        ("LOCAL_MODEL_TIMEOUT", "30"),
        ("LLM_ROUTING_STRATEGY", "cost_optimized"),
        ("LLM_FALLBACK_ENABLED", "False"),
    ]);
    assert_eq!(settings.strategy, Strategy::CostOptimized);
    assert!(!settings.fallback);
    assert_eq!(settings.local_timeout, Some(Duration::from_secs(30)));
    assert_eq!(settings.local_preference, ["llama3-8b", "mistral-7b"]);
    assert_eq!(settings.openrouter_default_model, "openai/gpt-4");
    let preferences = &settings.preferences;
    assert_eq!(preferences.prefer_local, Some(true));
    assert_eq!(preferences.prefer_faster, Some(true));
    assert_eq!(preferences.fallback_to_cloud, Some(true));
    assert_eq!(preferences.max_cost, Some(0.01));
    assert_eq!(preferences.cost_per_token(), Some(0.0001));
    assert_eq!(preferences.quality_threshold, Some(0.8));
    assert_eq!(settings.fallback_chain.len(), 7);
    assert_eq!(settings.fallback_chain[6].temperature, Some(0.5));
}

#[test]
fn a_provider_exists_when_it_has_a_key() {
    assert!(of_variables(&[]).providers.is_empty());
    let settings = of_variables(&[
        ("OPENAI_API_KEY", "sk-1"),
        ("ANTHROPIC_API_KEY", " "),
        ("OPENAI_BASE_URL", "http://127.0.0.1:9/v1/"),
    ]);
    let names: Vec<&String> = settings.providers.keys().collect();
    assert_eq!(names, ["openai"]);
    let openai = &settings.providers["openai"];
    assert_eq!(openai.base_url, "http://127.0.0.1:9/v1");
    assert_eq!(openai.keeping, Keeping::Maybe);
    assert_eq!(openai.api_key.as_ref().unwrap().reveal(), "sk-1");
    assert!(!format!("{settings:?}").contains("sk-1"));
    // OpenRouter is asked to keep nothing unless somebody says otherwise.
    let router = of_variables(&[("OPENROUTER_API_KEY", "k")]);
    assert_eq!(router.providers["openrouter"].keeping, Keeping::Nothing);
    let toml = "[providers.openrouter]\nzdr = false\napi_key = \"k\"\n[providers.vllm]\nbase_url = \"http://gpu:8000/v1\"\n";
    let both = load(toml, &[]).unwrap();
    assert_eq!(both.providers["openrouter"].keeping, Keeping::Maybe);
    assert_eq!(both.providers["vllm"].dialect, Dialect::Compatible);
    let ours = load(&format!("router.local_hosts = [\"gpu\"]\n{toml}"), &[]).unwrap();
    assert_eq!(ours.providers["vllm"].keeping, Keeping::Ours);
}

#[test]
fn a_key_may_lie_in_a_file_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "sk-file\n").unwrap();
    let toml = format!("[providers.openai]\napi_key_file = {path:?}\n");
    let settings = load(&toml, &[]).unwrap();
    let key = settings.providers["openai"].api_key.as_ref().unwrap();
    assert_eq!(key.reveal(), "sk-file");
    // The variable wins.
    let settings = load(&toml, &[("OPENAI_API_KEY", "sk-var")]).unwrap();
    let key = settings.providers["openai"].api_key.as_ref().unwrap();
    assert_eq!(key.reveal(), "sk-var");
    std::fs::write(&path, "two words").unwrap();
    let problems = load(&toml, &[]).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("providers.openai.api_key_file in f, line 2: "));
    assert!(!problems[0].contains("words"), "{problems:?}");
    std::fs::write(&path, "k".repeat(5000)).unwrap();
    assert!(load(&toml, &[]).unwrap_err()[0].contains("longer than 4096 bytes"));
}

#[test]
fn the_own_listener_is_the_engine_and_all_else_is_a_provider() {
    for own in [
        "http://localhost:11434",
        "http://127.0.0.1:11434/v1/",
        "http://[::1]:11434/v1",
    ] {
        let settings = of_variables(&[("LOCAL_MODEL_URL", own)]);
        assert!(settings.providers.is_empty(), "{own}");
    }
    for other in ["http://localhost:8080", "http://10.0.0.5:11434/v1"] {
        let settings = of_variables(&[("LOCAL_MODEL_URL", other), ("LOCAL_MODEL_TIMEOUT", "2.5")]);
        let remote = &settings.providers[LOCAL_REMOTE];
        assert_eq!((&*remote.base_url, remote.keeping), (other, Keeping::Maybe));
        assert_eq!(remote.timeouts.first_content, Duration::from_millis(2500));
    }
    for host in ["10.0.0.5", "10.0.0.5:80"] {
        let toml = format!("[router]\nlocal_hosts = [\"{host}\"]\n");
        let variables = [("LOCAL_MODEL_URL", "http://10.0.0.5:80")];
        let settings = load(&toml, &variables).unwrap();
        assert_eq!(settings.providers[LOCAL_REMOTE].keeping, Keeping::Ours);
    }
    let toml = "[router]\nlocal_hosts = [\"10.0.0.5:81\", \"10.0.0\"]\n";
    let settings = load(toml, &[("LOCAL_MODEL_URL", "http://10.0.0.5:80")]).unwrap();
    assert_eq!(settings.providers[LOCAL_REMOTE].keeping, Keeping::Maybe);
}

#[test]
fn what_means_nothing_is_named_with_its_line_and_the_nearest_word() {
    let toml = "[router]\nstrategi = \"x\"\nstrategy = \"cost_optimised\"\nfallback_chain = [[\"a\"]]\n\
                [router.preferences]\nquality_threshold = 2\n[providers.openai]\napi_kee = 1\n\
                [providers.local]\nbase_url = \"http://x\"\n[providers.v]\n";
    let problems = load(toml, &[("LOCAL_MODEL_TIMEOUT", "soon")]).unwrap_err();
    let expected = [
        "router.strategi in f, line 2: there is no such key: did you mean strategy?",
        "router.strategy in f, line 3: \"cost_optimised\" is no strategy: did you mean cost_optimized?",
        "router.preferences.quality_threshold in f, line 6: it must be a number from 0 to 1, not 2",
        "router.fallback_chain in f, line 4: each of it must be [provider, model]",
        "providers.openai.api_kee in f, line 8: there is no such key: did you mean api_key?",
        "providers.local in f, line 9: this name is Ingle's own",
        "providers.v in f, line 11: its base_url is missing",
        "LOCAL_MODEL_TIMEOUT: \"soon\" is no number of seconds",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}\n{expected}");
    }
    let variables = [("OPENROUTER_PREFERENCES", r#"{"max_cots": 1}"#)];
    let problems = load("", &variables).unwrap_err();
    let sentence =
        "max_cots in OPENROUTER_PREFERENCES: there is no such key: did you mean max_cost?";
    assert_eq!(problems, [sentence]);
    for text in ["[1]", "{", "true"] {
        let problems = load("", &[("OPENROUTER_PREFERENCES", text)]).unwrap_err();
        assert!(
            problems[0].starts_with("OPENROUTER_PREFERENCES: "),
            "{problems:?}"
        );
    }
}

#[test]
fn addresses_that_would_leak_are_refused_without_being_shown() {
    for url in [
        "ftp://x",
        "http://u:secret@x",
        "http://x/?k=secret",
        "nothing",
    ] {
        let problems = load("", &[("OPENAI_API_KEY", "k"), ("OPENAI_BASE_URL", url)]).unwrap_err();
        assert!(
            problems[0].starts_with("OPENAI_BASE_URL: it "),
            "{problems:?}"
        );
        assert!(!problems[0].contains("secret"), "{problems:?}");
    }
}
