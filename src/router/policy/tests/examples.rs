//! The three teams that every router before this one was shown with.

use super::*;
use crate::backend::provider::Sort;
use crate::config::router::Strategy;

/// A box with three models and three providers, at prices of their day.
fn world() -> World {
    World::new("")
        .local("codellama-13b", LocalState::Ready, 400)
        .local("llama3-8b", LocalState::Ready, 300)
        .priced("openai:gpt-3.5-turbo", 0.5, 1.5)
        .priced("openrouter:openai/gpt-3.5-turbo", 0.5, 1.5)
        .priced("anthropic:claude-haiku-4-5", 1.0, 5.0)
        .priced("openrouter:anthropic/claude-haiku-4.5", 1.0, 5.0)
        .priced("openai:gpt-4", 30.0, 60.0)
        .priced("openrouter:openai/gpt-4", 30.0, 60.0)
        .priced("anthropic:claude-3-opus-20240229", 15.0, 75.0)
        .priced("openrouter:anthropic/claude-3-opus", 15.0, 75.0)
}

fn marketing() -> Question {
    Question {
        team: of_team(team("marketing")),
        max_tokens: Some(100),
        prompt: crate::chat::PromptSize {
            about: 900,
            at_most: 3600,
        },
        preferences: Preferences {
            strategy: Some(Strategy::CostOptimized),
            max_cost_per_1k_tokens: Some(0.001),
            ..acceptable(&["gpt-3.5", "claude-haiku", "local:*"])
        },
        ..ask("auto")
    }
}

#[test]
fn marketing_gets_the_cheapest_that_is_cheap_enough() {
    let world = world();
    let order = world.order(&marketing());
    assert_eq!(
        order,
        [
            "local:llama3-8b",
            "local:codellama-13b",
            "openai:gpt-3.5-turbo",
            "openrouter:openrouter/auto",
        ]
    );
    let plan = world.plan(&marketing());
    // Its tokens together cost little enough; OpenRouter holds each kind to the cap.
    let dear = "openrouter:openai/gpt-3.5-turbo";
    assert_eq!(excluded(&plan, dear), "too_dear");
    assert_eq!(excluded(&plan, "anthropic:claude-haiku-4-5"), "too_dear");
    assert_eq!(excluded(&plan, "openai:gpt-4"), "not_acceptable");
    let auto = plan.allowed().last().unwrap();
    let wish = auto.openrouter.as_ref().unwrap();
    assert_eq!(wish.max_price.unwrap().prompt.to_usd(), 1.0);
    assert_eq!(wish.sort, Some(Sort::Price));
    let allowed = &wish.auto.as_ref().unwrap().allowed_models;
    let globs = [
        "*/claude-*haiku*",
        "*/claude-haiku",
        "*/gpt-3.5",
        "*/gpt-3.5-turbo*",
    ];
    assert_eq!(allowed, &globs);
}

fn engineering(model: &str) -> Question {
    Question {
        team: of_team(Team {
            primary_provider: Some("local".into()),
            model_preferences: vec!["local:codellama-13b".into(), "openrouter:gpt-4".into()],
            routing_hints: [
                ("code_generation".to_owned(), Strategy::LocalFirst),
                ("documentation".to_owned(), Strategy::QualityFirst),
                ("debugging".to_owned(), Strategy::SpeedFirst),
            ]
            .into(),
            ..team("engineering")
        }),
        deadline: Some(Duration::from_secs(5)),
        ..ask(model)
    }
}

#[test]
fn engineering_stays_on_its_machine_and_leaves_before_it_is_late() {
    let mut world = world().measured("openrouter:openai/gpt-4", 300, 5);
    for model in ["auto", "local:codellama-13b", "codellama-13b"] {
        let order = world.order(&engineering(model));
        let first = ["local:codellama-13b", "openrouter:openai/gpt-4"];
        assert_eq!(order[..2], first, "{model}");
    }
    // Its queue is long: what it would wait is more than the deadline.
    world.locals[0].first = Some(Duration::from_secs(9));
    for model in ["auto", "local:codellama-13b", "codellama-13b"] {
        let order = world.order(&engineering(model));
        assert_eq!(order[0], "openrouter:openai/gpt-4", "{model}");
        assert_eq!(order.last().unwrap(), "local:codellama-13b", "{model}");
    }
    let stays = Question {
        enable_fallback: Some(false),
        ..engineering("local:codellama-13b")
    };
    assert_eq!(world.order(&stays), ["local:codellama-13b"]);
    // Whatever the queue says, some things stay at home.
    let private = Question {
        privacy: Privacy::LocalOnly,
        ..engineering("auto")
    };
    let order = world.order(&private);
    assert_eq!(order, ["local:llama3-8b", "local:codellama-13b"]);
}

#[test]
fn engineerings_hints_choose_by_the_task() {
    let world = world().measured("openrouter:openai/gpt-4", 100, 1);
    let first = |task: &str| {
        let question = Question {
            task: Some(task.to_owned()),
            ..engineering("auto")
        };
        let plan = world.plan(&question);
        let first = plan.allowed().next().unwrap().target.to_string();
        (first, plan.strategy, plan.strategy_by)
    };
    let (local, cloud) = ("local:codellama-13b", "openrouter:openai/gpt-4");
    for (task, target, strategy, by) in [
        ("code_generation", local, Strategy::LocalFirst, "hint"),
        ("documentation", cloud, Strategy::QualityFirst, "hint"),
        ("debugging", cloud, Strategy::SpeedFirst, "hint"),
        ("poetry", local, Strategy::LocalFirst, "configuration"),
    ] {
        assert_eq!(first(task), (target.to_owned(), strategy, by), "{task}");
    }
}

#[test]
fn executives_get_the_best_or_nothing() {
    let world = world();
    let question = Question {
        team: of_team(team("executive")),
        preferences: Preferences {
            strategy: Some(Strategy::QualityFirst),
            quality_threshold: Some(0.95),
            ..acceptable(&["gpt-4", "claude-3-opus"])
        },
        ..ask("auto")
    };
    let order = world.order(&question);
    assert_eq!(order.len(), 4, "{order:?}");
    // The better score first; of two equal ones the earlier in the chain.
    assert_eq!(order[0], "openrouter:anthropic/claude-3-opus");
    assert_eq!(order[1], "anthropic:claude-3-opus-20240229");
    assert_eq!(order[2], "openrouter:openai/gpt-4");
    let plan = world.plan(&question);
    assert_eq!(excluded(&plan, "local:llama3-8b"), "not_acceptable");
    assert_eq!(excluded(&plan, "openrouter:openrouter/auto"), "unscored");
    let wish = plan.candidates[0].openrouter.as_ref().unwrap();
    assert_eq!(wish.sort, Some(Sort::Exacto));
    let strict = Question {
        preferences: Preferences {
            quality_threshold: Some(0.99),
            ..question.preferences.clone()
        },
        ..question
    };
    let plan = world.plan(&strict);
    assert_eq!(plan.allowed().count(), 0);
    assert!(
        plan.refusal().contains("below the threshold 0.99"),
        "{}",
        plan.refusal()
    );
}
