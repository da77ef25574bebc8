use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::engine::tests::network::top_of;

fn sampler(sampling: &Sampling) -> Sampler {
    Sampler::new(sampling, 99, &[], &[])
}

fn draw(sampler: &Sampler, logits: &[f32], position: u32) -> Result<TokenId, EngineError> {
    sampler.sample(logits, position, &mut Scratch::default())
}

fn sampling() -> Sampling {
    Sampling {
        seed: Some(5),
        ..Sampling::default()
    }
}

/// How often each token is drawn at 40 000 positions.
fn shares(sampling: &Sampling, logits: &[f32]) -> HashMap<TokenId, f64> {
    let sampler = sampler(sampling);
    let mut n_drawn: HashMap<TokenId, u32> = HashMap::new();
    for position in 0..40_000 {
        *n_drawn
            .entry(draw(&sampler, logits, position).unwrap())
            .or_default() += 1;
    }
    let share = |(token, n): (TokenId, u32)| (token, f64::from(n) / 40_000.0);
    n_drawn.into_iter().map(share).collect()
}

/// The logits of given probabilities.
fn logits(shares: &[f32]) -> Vec<f32> {
    shares.iter().map(|share| share.ln()).collect()
}

fn assert_shares(sampling: &Sampling, logits: &[f32], expected: &[f64]) {
    let got = shares(sampling, logits);
    for (token, expected) in (0..).zip(expected) {
        let got = got.get(&token).copied().unwrap_or_default();
        // Five standard deviations of 40 000 draws; what is cut away never comes.
        let tolerance = 5.0 * (expected * (1.0 - expected) / 40_000.0).sqrt();
        assert!(
            (got - expected).abs() <= tolerance,
            "token {token}: {got} is not {expected}"
        );
    }
}

#[test]
fn draws_by_probability_and_temperature_sharpens_or_flattens() {
    let shares = [0.5, 0.2, 0.2, 0.1];
    let logits = logits(&[0.5, 0.2, 0.2, 0.1]);
    assert_shares(&sampling(), &logits, &shares);
    for temperature in [0.5, 2.0] {
        let power = |share: &f64| share.powf(1.0 / f64::from(temperature));
        let total: f64 = shares.iter().map(power).sum();
        let expected: Vec<f64> = shares.iter().map(|share| power(share) / total).collect();
        assert_shares(
            &Sampling {
                temperature: Some(temperature),
                ..sampling()
            },
            &logits,
            &expected,
        );
    }
}

#[test]
fn top_k_top_p_and_min_p_cut_what_they_say_and_the_rest_keeps_its_proportions() {
    // Not in order of likelihood.
    let logits = logits(&[0.1, 0.4, 0.2, 0.3]);
    let cases = [
        (
            Sampling {
                top_k: Some(2),
                ..sampling()
            },
            [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0],
        ),
        (
            Sampling {
                top_k: Some(0),
                ..sampling()
            },
            [0.1, 0.4, 0.2, 0.3],
        ),
        (
            Sampling {
                top_p: 0.65,
                ..sampling()
            },
            [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0],
        ),
        (
            Sampling {
                top_p: 0.75,
                ..sampling()
            },
            [0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0],
        ),
        (
            Sampling {
                top_p: 0.0,
                ..sampling()
            },
            [0.0, 1.0, 0.0, 0.0],
        ),
        (
            Sampling {
                min_p: 0.6,
                ..sampling()
            },
            [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0],
        ),
        // Top-p is measured among what top-k kept: 4/9 do not reach a half, 7/9 do.
        (
            Sampling {
                top_k: Some(3),
                top_p: 0.5,
                ..sampling()
            },
            [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0],
        ),
        (
            Sampling {
                top_p: 0.95,
                min_p: 0.9,
                ..sampling()
            },
            [0.0, 1.0, 0.0, 0.0],
        ),
    ];
    for (sampling, expected) in cases {
        assert_shares(&sampling, &logits, &expected);
    }
}

#[test]
fn greedy_takes_the_greatest_and_of_equal_ones_the_lowest_token() {
    let greedy = sampler(&Sampling {
        temperature: Some(0.0),
        ..sampling()
    });
    for position in 0..50 {
        assert_eq!(draw(&greedy, &[1.0, 7.0, 7.0, -2.0], position).unwrap(), 1);
    }
    let smallest = sampler(&Sampling {
        temperature: Some(f32::MIN_POSITIVE),
        ..sampling()
    });
    assert_eq!(draw(&smallest, &[1.0, 6.9, 7.0, -2.0], 0).unwrap(), 2);
}

#[test]
fn what_is_no_number_is_named_and_what_is_masked_is_never_drawn() {
    let one = sampler(&sampling());
    for bad in [f32::NAN, f32::INFINITY] {
        let error = draw(&one, &[0.0, f32::NEG_INFINITY, bad, bad], 12).unwrap_err();
        let EngineError::Logits {
            position: 12,
            token: 2,
            value,
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!(value.is_nan(), bad.is_nan());
    }
    let nothing = [f32::NEG_INFINITY; 3];
    for temperature in [0.0, 1.0] {
        let one = sampler(&Sampling {
            temperature: Some(temperature),
            ..sampling()
        });
        let error = draw(&one, &nothing, 4).unwrap_err();
        assert!(
            matches!(error, EngineError::NoTokenLeft { position: 4 }),
            "{error:?}"
        );
    }
}

#[test]
fn stop_tokens_are_masked_under_ignore_eos_and_until_min_tokens() {
    let logits = [0.0, 9.0, 8.0];
    let greedy = Sampling {
        temperature: Some(0.0),
        ..sampling()
    };
    let waits = Sampling {
        min_tokens: 2,
        ..greedy.clone()
    };
    let mut waits = Sampler::new(&waits, 0, &[], &[1, 700]);
    for expected in [2, 2, 1, 1] {
        let token = draw(&waits, &logits, 0).unwrap();
        assert_eq!(token, expected);
        waits.observe(token);
    }
    let ignores = Sampling {
        ignore_eos: true,
        ..greedy
    };
    let mut ignores = Sampler::new(&ignores, 0, &[], &[1]);
    for _ in 0..10 {
        assert_eq!(draw(&ignores, &logits, 0).unwrap(), 2);
        ignores.observe(2);
    }
}

#[test]
fn penalties_come_before_the_choice() {
    let logits = [4.0, 3.0, 1.0];
    let greedy = Sampling {
        temperature: Some(0.0),
        ..sampling()
    };
    let repetition = Sampling {
        repetition_penalty: 1.5,
        ..greedy.clone()
    };
    let of_prompt = Sampler::new(&repetition, 0, &[0], &[]);
    assert_eq!(draw(&of_prompt, &logits, 0).unwrap(), 1);
    let presence = Sampling {
        presence_penalty: 1.5,
        ..greedy
    };
    let mut of_answer = Sampler::new(&presence, 0, &[0], &[]);
    assert_eq!(draw(&of_answer, &logits, 0).unwrap(), 0);
    of_answer.observe(0);
    assert_eq!(draw(&of_answer, &logits, 0).unwrap(), 1);
}

#[test]
fn a_seed_of_the_request_counts_and_the_engines_only_without_one() {
    let logits = [0.0; 50];
    let first = |seed, engines| {
        let one = Sampler::new(
            &Sampling {
                seed,
                ..Sampling::default()
            },
            engines,
            &[],
            &[],
        );
        (0..20)
            .map(|position| draw(&one, &logits, position).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(first(Some(3), 1), first(Some(3), 2));
    assert_ne!(first(Some(3), 1), first(Some(4), 1));
    assert_ne!(first(None, 1), first(None, 2));
    assert_eq!(first(None, 7), first(Some(7), 1));
}

/// The tokens that may be drawn, by the definition: everything sorted, nothing clever.
fn allowed(sampling: &Sampling, logits: &[f32]) -> Vec<TokenId> {
    let mut sorted: Vec<(TokenId, f32)> = (0..).zip(logits.iter().copied()).collect();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let max = sorted[0].1;
    if let Some(top_k) = sampling.top_k.filter(|k| *k > 0) {
        sorted.truncate(top_k as usize);
    }
    let weight = |logit: f32| f64::from(((logit - max) / sampling.temperature.unwrap()).exp());
    let total: f64 = sorted.iter().map(|(_, logit)| weight(*logit)).sum();
    let mut share = 0.0;
    let mut n_kept = sorted.len();
    if sampling.top_p < 1.0 {
        // As loose as the rounding of sums in another order.
        let reaches = sorted.iter().position(|(_, logit)| {
            share += weight(*logit);
            share >= (f64::from(sampling.top_p) + 1e-9) * total
        });
        n_kept = reaches.map_or(n_kept, |last| last + 1);
    }
    let kept = sorted[..n_kept].iter();
    let kept = kept.filter(|(_, logit)| weight(*logit) >= f64::from(sampling.min_p));
    kept.map(|(token, _)| *token).collect()
}

proptest! {
    #[test]
    fn only_what_the_cuts_leave_is_drawn_and_always_something(
        logits in prop::collection::vec(-12f32..12.0, 1..700),
        temperature in 0.05f32..5.0,
        top_k in prop::option::of(0u32..200),
        top_p in prop_oneof![Just(1.0f32), 0.0f32..=1.0],
        min_p in prop_oneof![Just(0.0f32), 0.0f32..=1.0],
        seed: u64,
    ) {
        let sampling = Sampling {
            temperature: Some(temperature), top_k, top_p, min_p, seed: Some(seed), ..Sampling::default()
        };
        let allowed = allowed(&sampling, &logits);
        let sampler = sampler(&sampling);
        for position in 0..20 {
            let token = draw(&sampler, &logits, position).unwrap();
            prop_assert!(allowed.contains(&token), "{} of {:?}", token, allowed);
        }
    }
}

proptest! {
    #[test]
    fn the_greatest_logits_draw_as_the_whole_row_does_or_ask_for_it(
        row in prop::collection::vec(-8.0_f32..8.0, 1..80),
        n_top in 1_usize..90,
        temperature in prop::sample::select(vec![0.0_f32, 0.5, 1.0, 1.7]),
        top_k in prop::sample::select(vec![None, Some(1), Some(7), Some(500)]),
        top_p in prop::sample::select(vec![0.1_f32, 0.6, 1.0]),
        min_p in prop::sample::select(vec![0.0_f32, 0.2]),
        position in 0_u32..50,
    ) {
        let sampling = Sampling { temperature: Some(temperature), top_k, top_p, min_p, ..sampling() };
        let sampler = sampler(&sampling);
        let top = top_of(&row, n_top);
        let drawn = sampler.sample_top(&top, position, &mut Scratch::default());
        if let Some(token) = drawn {
            prop_assert_eq!(Ok(token), draw(&sampler, &row, position).map_err(|_| ()));
        }
        // Where they are enough they must be used.
        let is_cut = top_k.is_some_and(|k| k as usize <= top.logits.len() || top.is_all);
        if temperature == 0.0 || is_cut {
            prop_assert!(drawn.is_some());
        }
    }
}

#[test]
fn penalties_masks_and_faults_need_the_whole_row() {
    let top = top_of(&[1.0, 3.0, 2.0], 2);
    let sample =
        |sampler: &Sampler, top: &TopLogits| sampler.sample_top(top, 0, &mut Scratch::default());
    let greedy = Sampling {
        temperature: Some(0.0),
        ..sampling()
    };
    assert_eq!(sample(&sampler(&greedy), &top), Some(1));
    let penalized = Sampling {
        presence_penalty: 0.5,
        ..greedy.clone()
    };
    assert_eq!(sample(&sampler(&penalized), &top), None);
    let masking = Sampling {
        min_tokens: 3,
        ..greedy.clone()
    };
    assert_eq!(sample(&Sampler::new(&masking, 9, &[], &[1]), &top), None);
    for row in [
        [1.0, f32::NAN],
        [f32::INFINITY, 0.0],
        [f32::NEG_INFINITY; 2],
    ] {
        assert_eq!(sample(&sampler(&greedy), &top_of(&row, 2)), None);
    }
}
