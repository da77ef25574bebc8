//! Which text is a provider's name, which a model's, and which a family's.

use super::*;
use crate::config::document::Node;
use crate::config::router::{Variables, read};

fn settings(toml: &str, variables: &[&str]) -> RouterSettings {
    let get = |name: &str| variables.contains(&name).then(|| "http://k".to_owned());
    let document = Node::from_toml(toml, "f").unwrap();
    let listen = "127.0.0.1:1".parse().unwrap();
    read(&document, "f", listen, Variables::new(&get)).unwrap()
}

fn names(toml: &str) -> Names {
    let keys = ["OPENROUTER_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"];
    Names::new(&settings(toml, &keys)).unwrap()
}

fn of(provider: &str, model: &str) -> Name {
    Name::Of(Target::new(provider, model))
}

#[test]
fn only_a_providers_name_before_the_first_colon_is_a_provider() {
    let names = names("[providers.vllm]\nbase_url = \"http://x\"\n");
    for (text, name) in [
        ("local:codellama-13b", of("local", "codellama-13b")),
        ("openrouter:openai/gpt-4", of("openrouter", "openai/gpt-4")),
        ("openrouter:x/y:free", of("openrouter", "x/y:free")),
        ("openai:gpt-4", of("openai", "gpt-4")),
        ("anthropic:claude-3-opus", of("anthropic", "claude-3-opus")),
        ("vllm:qwen:7b", of("vllm", "qwen:7b")),
        ("auto", Name::Auto),
        ("llama3:8b", Name::Bare("llama3:8b".into())),
        ("x/y:free", Name::Bare("x/y:free".into())),
        ("vlm:qwen", Name::Bare("vlm:qwen".into())),
        ("openai:", Name::Bare("openai:".into())),
    ] {
        assert_eq!(names.read(text), name, "{text}");
    }
}

#[test]
fn a_bare_name_is_found_under_each_providers_own() {
    let names = names("[providers.vllm]\nbase_url = \"http://x\"\nmodels = [\"qwen*\"]\n");
    let shown = |bare: &str| {
        let found = names.everywhere(bare);
        let found: Vec<String> = found.iter().map(Target::to_string).collect();
        found.join(" ")
    };
    for (bare, expected) in [
        ("gpt-4", "local:gpt-4 openai:gpt-4 openrouter:openai/gpt-4"),
        (
            "gpt-3.5",
            "local:gpt-3.5 openai:gpt-3.5-turbo openrouter:openai/gpt-3.5-turbo",
        ),
        (
            "claude-3-opus",
            "local:claude-3-opus anthropic:claude-3-opus-20240229 openrouter:anthropic/claude-3-opus",
        ),
        (
            "gpt-9-nova",
            "local:gpt-9-nova openai:gpt-9-nova openrouter:openai/gpt-9-nova",
        ),
        ("claude-9", "local:claude-9 anthropic:claude-9"),
        ("x/y:free", "local:x/y:free openrouter:x/y:free"),
        ("qwen3", "local:qwen3 vllm:qwen3"),
        ("nobody", "local:nobody"),
    ] {
        assert_eq!(shown(bare), expected);
    }
    assert_eq!(
        names.at("openrouter", "claude-3-opus").model,
        "anthropic/claude-3-opus"
    );
    assert_eq!(names.at("openrouter", "auto").model, OPENROUTER_AUTO);
    assert_eq!(names.at("openrouter", "x/y:free").model, "x/y:free");
    assert_eq!(
        names.at("anthropic", "claude-3-opus").model,
        "claude-3-opus-20240229"
    );
    let elsewhere = names.elsewhere(&Target::new("openai", "gpt-4"));
    assert!(elsewhere.contains(&Target::new("openrouter", "openai/gpt-4")));
}

#[test]
fn what_the_account_defaults_to_is_its_auto() {
    let names = names("[router]\nopenrouter_default_model = \"gpt-4\"\n");
    assert_eq!(names.at("openrouter", "auto").model, "openai/gpt-4");
    assert_eq!(
        names.at("openrouter", OPENROUTER_AUTO).model,
        OPENROUTER_AUTO
    );
    assert_eq!(names.read("openrouter"), of("openrouter", "auto"));
}

#[test]
fn aliases_lead_on_and_never_in_a_circle_for_ever() {
    let names =
        names("[router.aliases]\nfast = \"quick\"\nquick = \"local:a\"\na = \"b\"\nb = \"a\"\n");
    assert_eq!(names.read("fast"), of("local", "a"));
    assert!(matches!(names.read("a"), Name::Bare(_)));
}

#[test]
fn a_bare_name_in_a_list_is_a_family() {
    let names = names("");
    let means =
        |text: &str, provider: &str, model: &str| names.pattern(text).matches(provider, [model]);
    for (text, provider, model, expected) in [
        ("gpt-3.5", "openai", "gpt-3.5-turbo-0125", true),
        ("gpt-3.5", "openrouter", "openai/gpt-3.5-turbo", true),
        ("gpt-3.5", "openai", "gpt-4", false),
        ("gpt-4", "openai", "gpt-4-turbo", true),
        ("gpt-4", "openai", "gpt-4o", false),
        (
            "claude-haiku",
            "openrouter",
            "anthropic/claude-3-haiku",
            true,
        ),
        ("claude-haiku", "anthropic", "claude-haiku-4-5", true),
        ("claude-haiku", "anthropic", "claude-3-opus", false),
        ("local:*", "local", "anything", true),
        ("local:*", "local-remote", "anything", true),
        ("local:*", "openai", "anything", false),
        ("openrouter:gpt-4", "openrouter", "openai/gpt-4", true),
        ("openrouter:gpt-4", "openai", "gpt-4", false),
        ("openrouter:anthropic/*", "openrouter", "anthropic/x", true),
        ("openai/*", "openrouter", "openai/gpt-4", true),
        (
            "claude-3-opus-20240229",
            "openrouter",
            "anthropic/claude-3-opus",
            true,
        ),
        (
            "claude-3-opus-20240229",
            "anthropic",
            "claude-3-haiku-20240307",
            false,
        ),
    ] {
        assert_eq!(means(text, provider, model), expected, "{text} {model}");
    }
}

#[test]
fn a_glob_is_what_it_says() {
    for (glob, text, expected) in [
        ("*", "", true),
        ("a*c", "abbc", true),
        ("a*c", "abb", false),
        ("*a*a*b", "aaaaaaaab", true),
        ("A", "a", true),
        ("", "a", false),
        ("a**", "a", true),
    ] {
        assert_eq!(matches_glob(glob, text), expected, "{glob} {text}");
    }
    let hostile = "*a".repeat(2000);
    assert!(!matches_glob(&hostile, &"a".repeat(1999)));
}

#[test]
fn the_table_of_the_program_and_one_over_it_are_sound() {
    let text = include_str!("../../../models/aliases.toml");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("names.toml");
    std::fs::write(&path, text).unwrap();
    let mut settings = settings("", &[]);
    settings.names = Some(path.clone());
    Names::new(&settings).unwrap();
    std::fs::write(&path, "[models.big]\nopenrouter = \"x/big\"\nalso = 5\n").unwrap();
    let problems = Names::new(&settings).unwrap_err();
    assert!(problems[0].to_string().contains("line 3"), "{problems:?}");
    std::fs::write(&path, "[models.big]\nopenrouter = \"x/big\"\n").unwrap();
    let names = Names::new(&settings).unwrap();
    assert_eq!(names.at("openrouter", "big").model, "x/big");
    assert_eq!(names.at("openrouter", "gpt-4").model, "openai/gpt-4");
}
