//! In which order candidates stand.

use super::*;
use crate::config::router::Strategy;

fn by(strategy: Strategy) -> Question {
    Question {
        preferences: Preferences {
            strategy: Some(strategy),
            ..Preferences::default()
        },
        ..ask("auto")
    }
}

#[test]
fn each_strategy_puts_its_own_best_first() {
    let chain = "router.fallback_chain = [[\"openai\", \"gpt-4\"], [\"anthropic\", \"claude-3-opus\"], [\"local\", \"llama3-8b\", 0.3]]\n";
    let world = World::new(chain)
        .local("llama3-8b", LocalState::Ready, 900)
        .priced("openai:gpt-4", 30.0, 60.0)
        .priced("anthropic:claude-3-opus-20240229", 15.0, 75.0)
        .measured("openai:gpt-4", 200, 10)
        .measured("anthropic:claude-3-opus-20240229", 500, 30);
    let first = |strategy| world.order(&by(strategy)).remove(0);
    assert_eq!(first(Strategy::LocalFirst), "local:llama3-8b");
    assert_eq!(first(Strategy::CostOptimized), "local:llama3-8b");
    assert_eq!(first(Strategy::SpeedFirst), "openai:gpt-4");
    let best = "anthropic:claude-3-opus-20240229";
    assert_eq!(first(Strategy::QualityFirst), best);
    // The chain's temperature goes with its link.
    let plan = world.plan(&by(Strategy::LocalFirst));
    assert_eq!(plan.candidates[0].temperature, Some(0.3));
    assert_eq!(plan.candidates[1].temperature, None);
    let warm = Question {
        has_temperature: true,
        ..by(Strategy::LocalFirst)
    };
    assert_eq!(world.plan(&warm).candidates[0].temperature, None);
}

#[test]
fn equal_predictions_leave_local_first_at_home() {
    let world = World::new("")
        .local("llama3-8b", LocalState::Ready, 500)
        .measured("openrouter:openai/gpt-4", 500, 6)
        .measured("openai:gpt-4", 500, 6);
    let order = world.order(&by(Strategy::LocalFirst));
    assert_eq!(order[0], "local:llama3-8b");
    assert_eq!(order[1], "openrouter:openrouter/auto");
}

#[test]
fn what_is_named_goes_first_and_others_follow_only_where_they_may() {
    let world = World::new("").local("llama3-8b", LocalState::Ready, 100);
    let order = world.order(&ask("openai:gpt-4"));
    // The same model elsewhere, then this machine, then the rest of the chain.
    assert_eq!(
        order[..3],
        ["openai:gpt-4", "openrouter:openai/gpt-4", "local:llama3-8b"]
    );
    let alone = Question {
        enable_fallback: Some(false),
        ..ask("openai:gpt-4")
    };
    assert_eq!(world.order(&alone), ["openai:gpt-4"]);
    let plan = world.plan(&alone);
    assert_eq!(excluded(&plan, "local:llama3-8b"), "no_fallback");
    // What was named cannot answer, and nobody else may.
    let unconfigured = World::with("", &[]).local("llama3-8b", LocalState::Ready, 100);
    assert_eq!(
        unconfigured.order(&ask("openai:gpt-4")),
        ["local:llama3-8b"]
    );
    assert!(unconfigured.order(&alone).is_empty());
    let refusal = unconfigured.plan(&alone).refusal();
    assert!(refusal.contains("no provider openai"), "{refusal}");
}

#[test]
fn a_name_that_nobody_knows_is_an_error_with_the_nearest() {
    let world = World::new("").local("llama3-8b", LocalState::Ready, 100);
    let plan = world.plan(&ask("llama3-8c"));
    assert!(plan.candidates.is_empty());
    let sentence = "nobody here knows the model \"llama3-8c\": did you mean llama3-8b?";
    assert_eq!(plan.refusal(), sentence);
}

#[test]
fn a_bare_name_may_be_here_and_elsewhere() {
    let world = World::new("").local("llama3-8b", LocalState::Ready, 100);
    let order = world.order(&ask("llama3-8b"));
    let both = [
        "local:llama3-8b",
        "openrouter:meta-llama/llama-3-8b-instruct",
    ];
    assert_eq!(order[..2], both);
    // Known, and not on the disk: whoever wants it here has it fetched, others do not.
    let absent = World::new("").local("llama3-8b", LocalState::Absent, 60_000);
    assert_eq!(absent.order(&ask("local:llama3-8b"))[0], "local:llama3-8b");
    let order = absent.order(&ask("llama3-8b"));
    assert_eq!(order[0], "openrouter:meta-llama/llama-3-8b-instruct");
    assert_eq!(order.last().unwrap(), "local:llama3-8b");
    assert_eq!(
        excluded(&absent.plan(&ask("auto")), "local:llama3-8b"),
        "not_here"
    );
}

#[test]
fn models_that_nobody_named_answer_last_unless_no_other_is_here() {
    let world = World::new("").local("tiny", LocalState::Ready, 10).local(
        "stored",
        LocalState::Stored,
        5000,
    );
    let order = world.order(&ask("auto"));
    assert_eq!(order[..2], ["local:tiny", "local:stored"]);
    let world = world.local("mistral-7b", LocalState::Ready, 100);
    let order = world.order(&ask("auto"));
    assert_eq!(order[0], "local:mistral-7b");
    assert_eq!(order.last().unwrap(), "local:tiny");
}

#[test]
fn a_full_engine_sends_others_ahead_and_is_kept_for_when_they_fail() {
    let mut world = World::new("").local("llama3-8b", LocalState::Ready, 100);
    world.locals[0].full = Some("256 requests wait already".into());
    let order = world.order(&ask("auto"));
    assert_eq!(order[0], "openrouter:openrouter/auto");
    assert_eq!(order.last().unwrap(), "local:llama3-8b");
}

#[test]
fn the_server_beside_the_engine_has_local_names_too() {
    let world = World::with(
        "router.local_hosts = [\"gpu\"]\n",
        &[("LOCAL_MODEL_URL", "http://gpu:8080/v1")],
    );
    assert_eq!(world.order(&ask("local:qwen"))[0], "local-remote:qwen");
    let private = Question {
        privacy: Privacy::LocalOnly,
        ..ask("local:qwen")
    };
    assert_eq!(world.order(&private)[0], "local-remote:qwen");
    let world = World::with("", &[("LOCAL_MODEL_URL", "http://gpu:8080/v1")]);
    assert!(world.order(&private).is_empty());
    let both = world.local("qwen", LocalState::Ready, 10);
    assert_eq!(both.order(&private), ["local:qwen"]);
    let order = both.order(&ask("local:qwen"));
    assert_eq!(order[..2], ["local:qwen", "local-remote:qwen"]);
}

#[test]
fn a_teams_list_goes_before_what_the_configuration_prefers_and_after_what_the_request_does() {
    let world = World::new("").local("llama3-8b", LocalState::Ready, 100);
    let question = |preferences: Preferences| Question {
        team: of_team(Team {
            model_preferences: vec!["openai:gpt-4".into(), "local:*".into()],
            ..team("t")
        }),
        preferences,
        ..ask("auto")
    };
    let order = world.order(&question(Preferences::default()));
    assert_eq!(order[..2], ["openai:gpt-4", "local:llama3-8b"]);
    let prefers = Preferences {
        prefer_local: Some(true),
        strategy: Some(Strategy::QualityFirst),
        ..Preferences::default()
    };
    let order = world.order(&question(prefers));
    assert_eq!(order[..2], ["local:llama3-8b", "openai:gpt-4"]);
    let prefers = Preferences {
        prefer_local: Some(true),
        ..Preferences::default()
    };
    let order = world.order(&question(prefers));
    assert_eq!(order[..2], ["local:llama3-8b", "openai:gpt-4"]);
}

#[test]
fn what_the_configuration_prefers_does_not_overrule_a_strategy_nearer_to_the_request() {
    let toml = "[router.preferences]\nprefer_local = true\n";
    let world = World::new(toml).local("llama3-8b", LocalState::Ready, 100);
    assert_eq!(world.order(&ask("auto"))[0], "local:llama3-8b");
    assert_ne!(
        world.order(&by(Strategy::QualityFirst))[0],
        "local:llama3-8b"
    );
    let mut best = team("best");
    best.preferences.strategy = Some(Strategy::QualityFirst);
    let question = Question {
        team: of_team(best),
        ..ask("auto")
    };
    assert_ne!(world.order(&question)[0], "local:llama3-8b");
}

#[test]
fn a_glob_is_any_model_of_this_machine_that_it_means() {
    let world = World::new("")
        .local("codellama-7b", LocalState::Stored, 900)
        .local("codellama-13b", LocalState::Ready, 100)
        .local("llama3-8b", LocalState::Ready, 100);
    let order = world.order(&ask("local:*"));
    assert!(order[..3].iter().all(|target| target.starts_with("local:")));
    let order = world.order(&ask("codellama*"));
    assert_eq!(order[..2], ["local:codellama-13b", "local:codellama-7b"]);
    for none in ["local:qwen*", "openai:*", "qwen*"] {
        let plan = world.plan(&ask(none));
        assert!(
            plan.candidates.is_empty() && plan.unknown.is_some(),
            "{none}"
        );
    }
}

#[test]
fn where_only_this_model_will_do_it_is_looked_for_everywhere_and_no_other_is_asked() {
    let world = World::new("").local("llama3-8b", LocalState::Ready, 100);
    let only = |model: &str| Question {
        only_this_model: true,
        ..ask(model)
    };
    let both = [
        "openai:text-embedding-3-small",
        "openrouter:openai/text-embedding-3-small",
    ];
    for model in [both[0], "text-embedding-3-small"] {
        assert_eq!(world.order(&only(model)), both);
    }
    assert!(world.plan(&only("auto")).unknown.is_some());
}

#[test]
fn a_breaker_that_is_open_excludes_and_one_half_open_probes() {
    let mut world = World::new("").local("llama3-8b", LocalState::Ready, 100);
    let facts = |breaker| Facts {
        breaker,
        ..Facts::default()
    };
    let retry_after = Duration::from_millis(1500);
    let target = "openai:gpt-4".to_owned();
    let open = facts(Breaker::Open { retry_after });
    world.facts.insert(target.clone(), open);
    let plan = world.plan(&ask("openai:gpt-4"));
    assert_eq!(excluded(&plan, "openai:gpt-4"), "breaker_open");
    world.facts.insert(target, facts(Breaker::HalfOpen));
    let plan = world.plan(&ask("openai:gpt-4"));
    assert!(plan.candidates[0].why.contains(&Reason::Probe));
}

#[test]
fn every_plan_can_be_printed() {
    let world = World::new("").local("llama3-8b", LocalState::Ready, 100);
    let question = Question {
        preferences: acceptable(&["gpt-4", "local:*"]),
        ..ask("auto")
    };
    let plan = world.plan(&question);
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["strategy"], "local_first");
    assert_eq!(json["candidates"][0]["target"], "local:llama3-8b");
    assert_eq!(json["candidates"][0]["predicted_ttft_ms"], 100);
    let reasons = json["candidates"][0]["why"].to_string();
    assert!(reasons.contains("acceptable"), "{reasons}");
    assert!(json.to_string().contains("not_acceptable"));
    let says = plan.candidates[0].says();
    assert!(
        says.starts_with("link 6 of the chain; in the list"),
        "{says}"
    );
}

#[test]
fn who_leaves_because_this_machine_would_be_late_is_said_to() {
    let mut world = World::new("")
        .local("llama3-8b", LocalState::Ready, 9_000)
        .measured("openrouter:openrouter/auto", 300, 5);
    let question = |deadline| Question {
        deadline: Some(Duration::from_secs(deadline)),
        ..by(Strategy::LocalFirst)
    };
    assert_eq!(world.plan(&question(10)).escalation, None);
    assert_eq!(world.plan(&question(5)).escalation, Some("foreseen_miss"));
    // It is not why somebody else is first where the strategy has it so.
    let faster = Question {
        deadline: Some(Duration::from_secs(5)),
        ..by(Strategy::SpeedFirst)
    };
    assert_eq!(world.plan(&faster).escalation, None);
    let private = Question {
        privacy: Privacy::LocalOnly,
        ..question(5)
    };
    assert_eq!(world.plan(&private).escalation, None);
    world.locals[0].full = Some("its queue is full".to_owned());
    assert_eq!(world.plan(&question(10)).escalation, Some("full"));
}

#[test]
fn a_candidate_tells_how_right_its_predictions_were() {
    let mut world = World::new("").local("llama3-8b", LocalState::Ready, 100);
    let known = Calibration {
        n_answers: 9,
        ratio_p10: 0.8,
        ratio_p50: 1.0,
        ratio_p90: 1.3,
    };
    let facts = world.facts.entry("local:llama3-8b".to_owned()).or_default();
    facts.calibration = Some(known);
    let plan = world.plan(&ask("local:llama3-8b"));
    assert_eq!(plan.candidates[0].calibration, Some(known));
    let told = serde_json::to_value(&plan).unwrap();
    assert_eq!(told["candidates"][0]["calibration"]["ratio_p90"], 1.3);
}
