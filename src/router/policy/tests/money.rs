//! What may be spent, and what nobody knows the price of.

use super::*;

fn capped(preferences: Preferences) -> Question {
    Question {
        preferences,
        ..ask("openai:gpt-4")
    }
}

fn max_cost(usd: f64) -> Preferences {
    Preferences {
        max_cost: Some(usd),
        ..Preferences::default()
    }
}

#[test]
fn an_answer_of_no_given_length_is_shortened_to_what_is_paid_for() {
    let world = World::new("").priced("openai:gpt-4", 30.0, 60.0);
    // 400 tokens of prompt cost 0.012; what is left of 0.05 pays for 633 tokens.
    let plan = world.plan(&capped(max_cost(0.05)));
    let candidate = &plan.candidates[0];
    assert_eq!(candidate.max_tokens, Some(633));
    assert!(candidate.worst_cost.unwrap() <= MicroUsd(50_000));
    // Whoever says how long it may be means it.
    let long = Question {
        max_tokens: Some(700),
        ..capped(max_cost(0.05))
    };
    let plan = world.plan(&long);
    assert_eq!(excluded(&plan, "openai:gpt-4"), "over_max_cost");
    let plan = world.plan(&capped(max_cost(0.0125)));
    assert_eq!(excluded(&plan, "openai:gpt-4"), "over_max_cost");
}

#[test]
fn what_has_no_price_is_not_free() {
    let mut world = World::new("").local("llama3-8b", LocalState::Ready, 100);
    let plan = world.plan(&capped(max_cost(0.05)));
    assert_eq!(excluded(&plan, "openai:gpt-4"), "unpriced");
    world.budget_left = Some(MicroUsd(1_000_000));
    let plan = world.plan(&ask("openai:gpt-4"));
    assert_eq!(excluded(&plan, "openai:gpt-4"), "unpriced");
    assert_eq!(world.order(&ask("openai:gpt-4")), ["local:llama3-8b"]);
    world.budget_left = None;
    assert_eq!(world.order(&ask("openai:gpt-4"))[0], "openai:gpt-4");
}

#[test]
fn a_budget_that_is_used_up_leaves_this_machine() {
    let mut world = World::new("")
        .local("llama3-8b", LocalState::Ready, 100)
        .priced("openai:gpt-4", 30.0, 60.0);
    world.budget_left = Some(MicroUsd::ZERO);
    assert_eq!(world.order(&ask("openai:gpt-4")), ["local:llama3-8b"]);
    let plan = world.plan(&ask("openai:gpt-4"));
    assert_eq!(excluded(&plan, "openai:gpt-4"), "over_budget");
}

#[test]
fn openrouter_is_held_to_the_cap_where_nobody_knows_a_price() {
    let mut world = World::new("");
    world.budget_left = Some(MicroUsd(10_000_000));
    let auto = "openrouter:openrouter/auto";
    assert_eq!(excluded(&world.plan(&ask("auto")), auto), "unpriced");
    let cap = Preferences {
        max_cost_per_token: Some(0.0001),
        ..Preferences::default()
    };
    let question = Question {
        preferences: cap,
        ..ask("auto")
    };
    let plan = world.plan(&question);
    let candidate = plan.allowed().find(|it| it.target.to_string() == auto);
    let candidate = candidate.unwrap();
    let price = candidate.openrouter.as_ref().unwrap().max_price.unwrap();
    assert_eq!(
        (price.prompt.to_usd(), price.completion.to_usd()),
        (100.0, 100.0)
    );
    // What is held is what the cap allows: 400 + 4096 tokens at it.
    assert_eq!(candidate.price.unwrap().worst(400, 4096), MicroUsd(449_600));
    assert_eq!(candidate.worst_cost, Some(MicroUsd(449_600)));
    let question = Question {
        preferences: max_cost(0.01),
        ..ask("auto")
    };
    let plan = world.plan(&question);
    let candidate = plan.allowed().find(|it| it.target.to_string() == auto);
    let candidate = candidate.unwrap();
    assert!(candidate.worst_cost.unwrap() <= MicroUsd(10_000));
    let price = candidate.openrouter.as_ref().unwrap().max_price.unwrap();
    assert_eq!(price.prompt, MicroUsd(10_000 * 1_000_000 / 4496));
}

#[test]
fn preferences_become_openrouters_prices_by_their_units() {
    for (per_token, per_1k, usd) in [
        (Some(0.0001), None, 100.0),
        (None, Some(0.001), 1.0),
        (Some(0.0001), Some(0.001), 1.0),
        (Some(0.000_000_3), None, 0.3),
    ] {
        let preferences = Preferences {
            max_cost_per_token: per_token,
            max_cost_per_1k_tokens: per_1k,
            ..Preferences::default()
        };
        let question = Question {
            preferences,
            ..ask("openrouter:auto")
        };
        let plan = World::new("").plan(&question);
        let wish = plan.candidates[0].openrouter.as_ref().unwrap();
        assert_eq!(wish.max_price.unwrap().prompt.to_usd(), usd);
        assert_eq!(wish.allow_fallbacks, None);
    }
}

#[test]
fn a_conversation_that_does_not_fit_is_not_sent() {
    let mut world = World::new("");
    let facts = Facts {
        context: Some(8192),
        max_output: Some(4096),
        tools: Some(false),
        ..Facts::default()
    };
    world.facts.insert("openai:gpt-4".into(), facts);
    let of = |question: Question| {
        let plan = world.plan(&question);
        let by = excluded(&plan, "openai:gpt-4").to_owned();
        (
            by,
            plan.candidates
                .iter()
                .find(|it| it.target.provider == "openai")
                .unwrap()
                .max_tokens,
        )
    };
    let long = |about| Question {
        prompt: crate::chat::PromptSize {
            about,
            ..ask("openai:gpt-4").prompt
        },
        ..ask("openai:gpt-4")
    };
    assert_eq!(of(long(100)), (String::new(), Some(4096)));
    assert_eq!(of(long(8000)), (String::new(), Some(192)));
    assert_eq!(of(long(8192)).0, "context_too_long");
    let wants = |max_tokens, prompt_tokens| Question {
        max_tokens: Some(max_tokens),
        ..long(prompt_tokens)
    };
    assert_eq!(of(wants(5000, 100)).0, "output_too_long");
    assert_eq!(of(wants(4000, 5000)).0, "context_too_long");
    let mut tools = long(100);
    tools.needs.tools = true;
    assert_eq!(of(tools).0, "lacks");
}

#[test]
fn hours_of_this_machine_have_their_price_too() {
    let mut world = World::new("router.strategy = \"cost_optimized\"\n")
        .local("llama3-8b", LocalState::Ready, 250)
        .priced("openai:gpt-4", 0.1, 0.1);
    let price = |usd: f64| Price {
        per_hour: MicroUsd::at_least(usd).unwrap(),
        ..Price::FREE
    };
    // An answer takes a second here, and costs 36 micro-dollars there.
    for (usd_per_hour, first) in [(0.1, "local:llama3-8b"), (0.2, "openai:gpt-4")] {
        let facts = world.facts.entry("local:llama3-8b".into()).or_default();
        facts.price = Some(price(usd_per_hour));
        assert_eq!(world.order(&ask("auto"))[0], first, "{usd_per_hour}");
    }
}
