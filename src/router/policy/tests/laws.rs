//! Laws that hold for every question and every world.

use proptest::prelude::*;
use proptest::strategy::Strategy as _;

use super::*;
use crate::config::router::Strategy;
use crate::egress::Keeping;

const MODELS: [&str; 10] = [
    "auto",
    "gpt-4",
    "openai:gpt-4",
    "anthropic:claude-3-opus",
    "openrouter:openai/gpt-4",
    "openrouter:auto",
    "local:llama3-8b",
    "llama3-8b",
    "ours:m",
    "claude-haiku",
];
const LISTS: [&[&str]; 4] = [
    &["gpt-4", "local:*"],
    &["claude-haiku", "ours:*"],
    &["*"],
    &["openrouter:*", "anthropic:claude-3-opus"],
];
const CLASSES: [Privacy; 3] = [Privacy::Any, Privacy::ZdrOnly, Privacy::LocalOnly];
const TARGETS: [&str; 6] = [
    "openai:gpt-4",
    "openrouter:openai/gpt-4",
    "openrouter:openrouter/auto",
    "anthropic:claude-3-opus-20240229",
    "ours:m",
    "local:llama3-8b",
];

fn strategies() -> impl Any<Option<Strategy>> {
    prop::option::of(prop::sample::select(vec![
        Strategy::CostOptimized,
        Strategy::QualityFirst,
        Strategy::SpeedFirst,
        Strategy::LocalFirst,
    ]))
}

/// proptest's strategies, which are called as ours are.
trait Any<T>: proptest::strategy::Strategy<Value = T> {}
impl<T, S: proptest::strategy::Strategy<Value = T>> Any<T> for S {}

fn preferences() -> impl Any<Preferences> {
    let yes_or_no = prop::option::of(any::<bool>());
    (
        strategies(),
        yes_or_no.clone(),
        yes_or_no.clone(),
        yes_or_no,
        prop::option::of(0.0..0.2_f64),
        prop::option::of(0.0..0.0002_f64),
        prop::option::of(0.5..1.0_f64),
        prop::option::of(prop::sample::select(LISTS.to_vec())),
    )
        .prop_map(
            |(strategy, local, faster, cloud, cost, token, quality, list)| Preferences {
                strategy,
                prefer_local: local,
                prefer_faster: faster,
                fallback_to_cloud: cloud,
                max_cost: cost,
                max_cost_per_token: token,
                max_cost_per_1k_tokens: None,
                quality_threshold: quality,
                acceptable_models: list
                    .map(|list| list.iter().map(|text| (*text).to_owned()).collect()),
            },
        )
}

fn questions() -> impl Any<Question> {
    (
        prop::sample::select(MODELS.to_vec()),
        preferences(),
        prop::option::of(any::<bool>()),
        prop::sample::select(CLASSES.to_vec()),
        prop::option::of(1_u64..20_000),
        prop::option::of(1_u32..5000),
        1_u32..10_000,
        prop::option::of(preferences()),
    )
        .prop_map(
            |(model, preferences, enable_fallback, privacy, deadline, max_tokens, prompt, team)| {
                Question {
                    preferences,
                    enable_fallback,
                    privacy,
                    deadline: deadline.map(Duration::from_millis),
                    max_tokens,
                    prompt: crate::chat::PromptSize {
                        about: prompt,
                        at_most: prompt * 4,
                    },
                    team: team.map(|preferences| {
                        Arc::new(Team {
                            preferences,
                            model_preferences: vec!["local:*".into(), "openai:gpt-4".into()],
                            ..super::team("t")
                        })
                    }),
                    ..ask(model)
                }
            },
        )
}

fn worlds() -> impl Any<World> {
    let facts = (
        prop::option::of((0_u64..80, 0_u64..80)),
        prop::option::of(1_u64..20_000),
        0_u8..3,
        prop::option::of(100_u32..20_000),
    );
    let states = prop::sample::select(vec![
        LocalState::Ready,
        LocalState::Stored,
        LocalState::Absent,
        LocalState::Failed,
    ]);
    (
        prop::collection::vec(facts, TARGETS.len()),
        prop::collection::vec((states, 1_u64..20_000, any::<bool>()), 0..3),
        prop::option::of(0_u64..500_000),
        prop::bool::weighted(0.1),
        any::<bool>(),
    )
        .prop_map(|(facts, locals, budget, offline, fallback)| {
            let toml = format!(
                "[router]\nfallback = {fallback}\nlocal_hosts = [\"ours\"]\n\
                 [providers.ours]\nbase_url = \"http://ours/v1\"\n"
            );
            let mut world = World::new(&toml);
            for ((state, first, full), name) in locals.into_iter().zip(["llama3-8b", "tiny"]) {
                world = world.local(name, state, first);
                world.locals.last_mut().unwrap().full = full.then(|| "full".to_owned());
            }
            for ((price, first, breaker, context), target) in facts.into_iter().zip(TARGETS) {
                if let Some((prompt, completion)) = price {
                    world = world.priced(target, prompt as f64, completion as f64);
                }
                let facts = world.facts.entry(target.to_owned()).or_default();
                facts.first = first.map(Duration::from_millis);
                facts.context = context;
                facts.breaker = match breaker {
                    0 => Breaker::Open {
                        retry_after: Duration::from_secs(1),
                    },
                    1 => Breaker::HalfOpen,
                    _ => Breaker::Closed,
                };
            }
            world.budget_left = budget.map(MicroUsd);
            world.offline = offline;
            world
        })
}

fn keeping(world: &World, candidate: &Candidate) -> Keeping {
    let provider = world.settings.providers.get(&candidate.target.provider);
    provider.map_or(Keeping::Ours, |provider| provider.keeping)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_plan_keeps_its_promises(world in worlds(), question in questions()) {
        let plan = world.plan(&question);
        prop_assert_eq!(&plan, &world.plan(&question), "the same question, the same plan");
        let n_allowed = plan.allowed().count();
        prop_assert!(plan.candidates[..n_allowed].iter().all(|it| it.excluded.is_none()));
        let mut targets: Vec<_> = plan.candidates.iter().map(|it| &it.target).collect();
        targets.sort();
        targets.dedup();
        prop_assert_eq!(targets.len(), plan.candidates.len(), "each once");
        if !plan.fallback {
            prop_assert!(n_allowed <= 1);
        }
        for candidate in plan.allowed() {
            prop_assert!(!candidate.why.is_empty());
            let (kept, target) = (keeping(&world, candidate), &candidate.target);
            match question.privacy {
                Privacy::LocalOnly => prop_assert_eq!(kept, Keeping::Ours),
                Privacy::ZdrOnly => prop_assert_ne!(kept, Keeping::Maybe),
                Privacy::Any => {}
            }
            if world.offline {
                prop_assert!(target.is_local());
            }
            if !target.is_local() {
                prop_assert!(candidate.max_tokens.is_some(), "max_tokens is always sent");
            }
            if let Some(left) = world.budget_left {
                prop_assert!(candidate.worst_cost.is_some_and(|worst| worst <= left));
            }
            let team = question.team.as_ref().map(|team| &team.preferences);
            let own = &question.preferences;
            let preferences = team.map_or(own.clone(), |team| own.over(team));
            if let Some(most) = preferences.max_cost {
                prop_assert!(candidate.worst_cost.is_some_and(|worst| worst.to_usd() <= most));
            }
            if let Some(threshold) = preferences.quality_threshold {
                prop_assert!(candidate.quality.is_some_and(|score| score >= threshold));
            }
            if let (Some(most), Some(wish)) = (preferences.max_cost_per_token, &candidate.openrouter) {
                let price = wish.max_price.unwrap();
                prop_assert!(price.prompt.to_usd() <= most * 1e6 * (1.0 + 1e-9));
            }
        }
    }

    #[test]
    fn tightening_privacy_adds_nobody(world in worlds(), question in questions()) {
        // Where the first choice alone may answer, another becomes the first when it is barred.
        let question = Question { enable_fallback: Some(true), ..question };
        let mut wider: Option<Vec<String>> = None;
        for privacy in CLASSES {
            let order = world.order(&Question { privacy, ..question.clone() });
            if let Some(wider) = &wider {
                prop_assert!(order.iter().all(|target| wider.contains(target)));
            }
            wider = Some(order);
        }
    }

    #[test]
    fn who_says_less_gets_no_fewer(world in worlds(), question in questions()) {
        let question = Question { enable_fallback: Some(true), team: None, ..question };
        let strict = world.order(&question);
        let preferences = Preferences {
            strategy: question.preferences.strategy,
            acceptable_models: question.preferences.acceptable_models.clone(),
            ..Preferences::default()
        };
        let loose = world.order(&Question { preferences, ..question });
        // A cap gives OpenRouter's models a price where nobody knows one, which a budget may pay for.
        if world.budget_left.is_none() {
            prop_assert!(strict.iter().all(|target| loose.contains(target)));
        }
    }

    #[test]
    fn what_is_named_at_a_provider_is_tried_first_if_it_may_be(world in worlds(), question in questions()) {
        let question = Question { model: "openai:gpt-4".into(), ..question };
        let plan = world.plan(&question);
        if let Some(candidate) = plan.allowed().find(|it| it.target.provider == "openai") {
            prop_assert_eq!(&plan.candidates[0].target, &candidate.target);
        }
        // Whether others may answer decides who follows, not whether it may answer itself.
        for model in ["openai:gpt-4", "local:llama3-8b"] {
            let alone = |fallback| Question {
                model: model.into(),
                enable_fallback: Some(fallback),
                ..question.clone()
            };
            let may = |fallback| world.order(&alone(fallback)).contains(&model.to_owned());
            prop_assert_eq!(may(true), may(false));
        }
    }
}
