//! The fault wall, one provider at a time: what comes of every case in every dialect.

use std::time::Duration;

use ingle::backend::ProviderFault;
use ingle::chat::FinishReason;

use super::{House, Outcome, ask, ask_for, hello};
use crate::provider_server::script::FAULTS;
use crate::provider_server::{ProviderServer, Shape, tokens};

const SHAPES: [Shape; 3] = [Shape::OpenAi, Shape::OpenRouter, Shape::Anthropic];

/// What a case must come to.
#[expect(clippy::enum_variant_names, reason = "what it comes to")]
enum Comes {
    /// The whole answer; what it took was told, or had to be guessed.
    ToText {
        is_estimated: bool,
    },
    ToCall,
    /// A fault before any content.
    ToFault(fn(ProviderFault) -> bool),
    /// So many tokens, then a fault.
    ToPart(u64),
    /// Silence, which the router's clocks end, after so many tokens.
    ToSilence(u64),
}

fn is(name: &'static str) -> Comes {
    Comes::ToFault(match name {
        "garbled" => |fault| fault == ProviderFault::Garbled,
        "unauthorized" => |fault| fault == ProviderFault::Unauthorized,
        "no_credit" => |fault| fault == ProviderFault::NoCredit,
        "refused" => |fault| fault == ProviderFault::Refused,
        "no_such_model" => |fault| fault == ProviderFault::NoSuchModel,
        "rejected" => |fault| fault == ProviderFault::Rejected,
        "too_long" => |fault| fault == ProviderFault::TooLong,
        "rate_limited" => |fault| matches!(fault, ProviderFault::RateLimited { .. }),
        "unavailable" => |fault| matches!(fault, ProviderFault::Unavailable { .. }),
        other => panic!("no fault {other}"),
    })
}

#[expect(
    clippy::match_same_arms,
    reason = "in the order in which faults are played"
)]
fn expected(case: &str, shape: Shape) -> Comes {
    let is_openrouter = shape == Shape::OpenRouter;
    let is_anthropic = shape == Shape::Anthropic;
    match case {
        "silence" | "headers-then-silence" | "comments-forever" | "roles-then-silence" => {
            Comes::ToSilence(0)
        }
        "stall-after-20" => Comes::ToSilence(20),
        "status-400" | "status-422" => is("rejected"),
        "status-401" => is("unauthorized"),
        "status-402" => is("no_credit"),
        "status-403" if is_openrouter => is("refused"),
        "status-403" => is("unauthorized"),
        "status-404" => is("no_such_model"),
        "status-413" => is("too_long"),
        "status-429" => is("rate_limited"),
        "status-408" | "status-409" | "status-500" | "status-502" | "status-503" | "status-504"
        | "status-524" | "status-529" => is("unavailable"),
        "retry-after-1" => waits(1_000, 1_000),
        "retry-after-120" => waits(120_000, 120_000),
        "retry-date-60" => waits(55_000, 60_000),
        "retry-ms-1500" => waits(1_500, 1_500),
        "quota" => is("no_credit"),
        "too-long" => is("too_long"),
        "guardrail" => is(if is_anthropic {
            "unauthorized"
        } else {
            "refused"
        }),
        "close-at-once" => is("unavailable"),
        "redirect" | "html" | "empty-body" | "invalid-json" | "wrong-type" | "truncated-json"
        | "empty-stream" | "done-only" | "finish-error-first" | "cut-after-0"
        | "malformed-first" | "gzip-broken" | "brotli" | "long-line" => is("garbled"),
        "error-first" | "whole-error" => is("unavailable"),
        "cut-after-40" => Comes::ToPart(40),
        "cut-after-60" => Comes::ToPart(60),
        "reset-after-5" | "ends-after-5" => Comes::ToPart(5),
        "error-after-3" | "finish-error" | "malformed-after-3" => Comes::ToPart(3),
        "done-without-finish" => Comes::ToPart(8),
        "limit-at-500" => Comes::ToPart(1),
        "tool-call-cut" => Comes::ToPart(0),
        "tool-call" | "tool-call-at-once" => Comes::ToCall,
        "usage-missing" | "usage-zero" => Comes::ToText { is_estimated: true },
        _ => Comes::ToText {
            is_estimated: false,
        },
    }
}

fn waits(from_ms: u64, to_ms: u64) -> Comes {
    // A function pointer takes no figures along: they are few.
    Comes::ToFault(match (from_ms, to_ms) {
        (1_000, _) => |fault| waits_for(fault, 1_000, 1_000),
        (120_000, _) => |fault| waits_for(fault, 120_000, 120_000),
        (1_500, _) => |fault| waits_for(fault, 1_500, 1_500),
        _ => |fault| waits_for(fault, 50_000, 60_000),
    })
}

fn waits_for(fault: ProviderFault, from_ms: u64, to_ms: u64) -> bool {
    let ProviderFault::RateLimited {
        retry_after: Some(wait),
    } = fault
    else {
        return false;
    };
    (from_ms..=to_ms).contains(&u64::try_from(wait.as_millis()).unwrap())
}

fn check(case: &str, shape: Shape, outcome: &Outcome) {
    let shown = format!("{case} of {shape:?}: {outcome:?}");
    match expected(case, shape) {
        Comes::ToText { is_estimated } => {
            let (reason, usage) = outcome.end.clone().expect(&shown);
            assert_eq!(reason, FinishReason::Stop, "{shown}");
            assert_eq!(outcome.said.text, tokens(8).concat(), "{shown}");
            assert_eq!(usage.is_estimated, is_estimated, "{shown}");
            assert!(
                usage.completion_tokens >= 8 && usage.prompt_tokens > 0,
                "{shown}"
            );
            let has_cost = shape == Shape::OpenRouter && case != "usage-missing";
            assert_eq!(usage.cost.is_some(), has_cost, "{shown}");
        }
        Comes::ToCall => {
            assert_eq!(
                outcome.end.clone().expect(&shown).0,
                FinishReason::ToolCalls,
                "{shown}"
            );
            let [call] = &*outcome.said.tool_calls else {
                panic!("{shown}")
            };
            assert_eq!(call.name, "weather", "{shown}");
            let whole = case == "tool-call";
            let is_anthropic = shape == Shape::Anthropic;
            let arguments = match (whole, is_anthropic) {
                (true, _) => "{\"city\": \"Paris\"}",
                (false, true) => "{}",
                (false, false) => "",
            };
            assert_eq!(call.arguments, arguments, "{shown}");
        }
        Comes::ToFault(is_right) => {
            assert!(is_right(outcome.fault()), "{shown}");
            assert_eq!(outcome.n_deltas, 0, "{shown}");
        }
        Comes::ToPart(n_tokens) => {
            assert_eq!(outcome.said.text, tokens(n_tokens).concat(), "{shown}");
            let fault = if outcome.n_deltas == 0 {
                ProviderFault::Garbled
            } else {
                ProviderFault::BrokeOff
            };
            assert_eq!(outcome.fault(), fault, "{shown}");
        }
        Comes::ToSilence(n_tokens) => {
            assert_eq!(outcome.fault(), ProviderFault::Stalled, "{shown}");
            assert_eq!(outcome.said.text, tokens(n_tokens).concat(), "{shown}");
        }
    }
    if let Err(error) = &outcome.end
        && outcome.fault() != ProviderFault::Stalled
    {
        let message = &error.message;
        assert!(
            message.starts_with("acme ") && message.contains(case),
            "{message}"
        );
        assert!(!message.ends_with('.') && message.len() < 500, "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_an_answer_or_one_typed_error() {
    let (server, house) = (ProviderServer::start(), House::new());
    let providers = SHAPES.map(|shape| (shape, std::sync::Arc::new(house.at(&server, shape))));
    let is_silent = |case: &str| matches!(expected(case, Shape::OpenAi), Comes::ToSilence(_));
    let (silent, others): (Vec<&str>, Vec<&str>) = FAULTS.iter().partition(|case| is_silent(case));
    let mut n_played = 0;
    for (cases, patience) in others
        .chunks(8)
        .map(|cases| (cases, 60))
        .chain([(&*silent, 4)])
    {
        let mut played = tokio::task::JoinSet::new();
        for case in cases {
            for (shape, provider) in &providers {
                let (case, shape, provider) = ((*case).to_owned(), *shape, provider.clone());
                played.spawn(async move {
                    let (model, patience) =
                        (format!("fault:{case}"), Duration::from_secs(patience));
                    let outcome = ask_for(&provider, &model, &hello(), patience).await;
                    (case, shape, outcome)
                });
            }
        }
        while let Some(done) = played.join_next().await {
            let (case, shape, outcome) = done.unwrap();
            check(&case, shape, &outcome);
            n_played += 1;
        }
    }
    assert_eq!(n_played, FAULTS.len() * 3);
    // Nothing was asked twice, and no redirect was followed.
    assert_eq!(server.n_requests(), n_played);
}

#[tokio::test]
async fn an_answer_cut_at_any_byte_is_whole_or_an_error_never_shorter() {
    let (server, house) = (ProviderServer::start(), House::new());
    for shape in SHAPES {
        let provider = house.at(&server, shape);
        let whole = tokens(8).concat();
        let mut n_whole = 0;
        for at in (0..3_200).step_by(17) {
            let outcome = ask(&provider, &format!("fault:limit-at-{at}")).await;
            assert!(whole.starts_with(&outcome.said.text), "{at}: {outcome:?}");
            if outcome.end.is_ok() {
                assert_eq!(outcome.said.text, whole, "{at}");
                n_whole += 1;
            } else {
                let has_begun = !outcome.said.text.is_empty();
                let fault = if has_begun {
                    ProviderFault::BrokeOff
                } else {
                    ProviderFault::Garbled
                };
                assert_eq!(outcome.fault(), fault, "{at}: {outcome:?}");
            }
        }
        assert!(n_whole > 0, "{shape:?} is longer than was tried");
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let (server, house) = (ProviderServer::start(), House::new());
    for shape in SHAPES {
        let provider = house.at(&server, shape);
        for _ in 0..10 {
            ask(&provider, "say:3").await.end.unwrap();
        }
    }
    assert_eq!(server.n_requests(), 30);
    // One, and perhaps another where the end of an answer came late.
    assert!(server.n_connections() <= 6, "{}", server.n_connections());
}
