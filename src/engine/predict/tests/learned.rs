//! What is learned, and how fast a prediction is.

use std::time::Instant;

use super::super::{
    Calibration, CostFit, OutputLengths, Prediction, Quantiles, SequenceLoad, StepShape,
    TrafficMeter, predict,
};
use super::Random;
use super::law::{outlook, seconds, some_cost};
use super::world::LIMITS;

#[test]
fn three_hundred_who_wait_take_no_tenth_of_a_millisecond() {
    let mut outlook = outlook(LIMITS, some_cost());
    outlook.n_free_blocks = 3000;
    let mut random = Random(9);
    for ticket in 0..316 {
        let load = SequenceLoad::new(ticket, 50 + random.below(1951), 16 + random.below(497));
        if ticket < 16 {
            outlook.running.push(SequenceLoad {
                n_pending: 1,
                n_computed: load.n_pending,
                n_generated: 1,
                n_blocks: load.n_pending.div_ceil(32) + 1,
                ..load
            });
        } else {
            outlook.waiting.push(load);
        }
    }
    let mut times = Vec::new();
    for _ in 0..50 {
        let begun = Instant::now();
        let prediction = predict(&outlook, 500, 100).unwrap();
        times.push(begun.elapsed());
        assert!(prediction.ttft.p50 > 100.0, "{prediction:?}");
    }
    times.sort();
    println!("{:?}", times[25]);
    let most = if cfg!(debug_assertions) { 20_000 } else { 100 };
    assert!(times[5].as_micros() < most, "{:?}", times[5]);
}

fn shape(n_prompt_tokens: u32, start: u32, n_decodes: u32, context: u32) -> StepShape {
    let n = f64::from(n_prompt_tokens);
    StepShape {
        n_prompt_tokens,
        prompt_context: n * f64::from(start) + n * (n + 1.0) / 2.0,
        n_decodes,
        decode_context: f64::from(n_decodes * context),
    }
}

#[test]
fn a_steps_cost_is_found_among_noise_and_hiccups_and_follows_the_machine() {
    let mut fit = CostFit::default();
    assert_eq!(fit.cost(), None);
    let mut random = Random(4);
    let mut feed = |fit: &mut CostFit, n_steps: u32, pace: f64| {
        for step in 0..n_steps {
            let some = shape(
                [0, 0, 128, 128, 37][step as usize % 5],
                random.below(1800),
                random.below(16).max(u32::from(step % 5 < 2)),
                random.below(2000),
            );
            let noise = 0.9 + 0.2 * random.share();
            // Now and then something else has the machine.
            let hiccup = if random.below(40) == 0 { 8.0 } else { 1.0 };
            fit.add(&some, seconds(&some) * noise * hiccup * pace);
        }
    };
    let near = |fit: &CostFit, pace: f64, most: f64| {
        let cost = fit.cost().unwrap();
        for some in [
            shape(128, 0, 0, 0),
            shape(128, 1500, 15, 700),
            shape(0, 0, 1, 200),
            shape(0, 0, 16, 1500),
        ] {
            let off = cost.of(&some) / (seconds(&some) * pace) - 1.0;
            assert!(off.abs() < most, "{some:?}: off by {off}");
        }
    };
    feed(&mut fit, 600, 1.0);
    near(&fit, 1.0, 0.3);
    feed(&mut fit, 80, 1.5);
    near(&fit, 1.5, 0.35);
    // Twenty minutes of decoding alone do not make it forget what a prompt costs.
    for _ in 0..20_000 {
        let some = shape(0, 0, 2, 500);
        fit.add(&some, seconds(&some));
    }
    near(&fit, 1.0, 0.35);
}

#[test]
fn the_first_steps_alone_give_a_cost_that_is_no_nonsense() {
    let mut fit = CostFit::default();
    for some in [shape(32, 0, 0, 0), shape(0, 0, 1, 33), shape(0, 0, 1, 34)] {
        fit.add(&some, seconds(&some));
    }
    let cost = fit.cost().unwrap();
    for some in [
        shape(128, 0, 0, 0),
        shape(0, 0, 1, 500),
        shape(128, 500, 3, 300),
    ] {
        let times = cost.of(&some) / seconds(&some);
        assert!((0.3..3.0).contains(&times), "{some:?}: {times} times");
    }
}

#[test]
fn answers_are_as_long_as_they_were_and_those_that_were_cut_longer() {
    let mut lengths = OutputLengths::default();
    let at_first = lengths.quantile(0, 0.5, 10_000);
    assert!((100..300).contains(&at_first), "{at_first}");
    let mut random = Random(8);
    for _ in 0..600 {
        lengths.ended(100 + random.below(200));
    }
    let middle = lengths.quantile(0, 0.5, 10_000);
    assert!((180..220).contains(&middle), "{middle}");
    let (low, high) = (
        lengths.quantile(0, 0.05, 10_000),
        lengths.quantile(0, 0.95, 10_000),
    );
    assert!(
        (90..130).contains(&low) && (270..340).contains(&high),
        "{low} {high}"
    );
    // Who has come far has little left; the bound holds; one more token at least.
    assert!(lengths.quantile(280, 0.5, 10_000) < 310);
    assert_eq!(lengths.quantile(0, 0.5, 50), 50);
    assert_eq!(lengths.quantile(49, 0.0, 50), 50);
    for _ in 0..600 {
        lengths.cut(64);
    }
    assert!(
        lengths.quantile(0, 0.5, 10_000) > 64,
        "cut answers would have gone on"
    );
    assert_eq!(lengths.quantile(0, 0.2, 64), 64);
}

#[test]
fn errors_correct_what_is_predicted_next_and_show_as_buckets() {
    let times = |seconds: f64| Quantiles {
        p05: seconds * 0.9,
        p50: seconds,
        p90: seconds * 1.1,
    };
    let raw = Prediction {
        ttft: times(1.0),
        total: times(10.0),
    };
    let mut calibration = Calibration::default();
    assert_eq!(calibration.correct(&raw), raw, "nothing is known");
    let mut random = Random(5);
    for _ in 0..400 {
        // Twice as long as predicted, up to three times.
        calibration.add_ttft(&raw, 2.0 + random.share());
        calibration.add_total(&raw, 10.0);
    }
    let better = calibration.correct(&raw);
    assert!((2.2..2.6).contains(&better.ttft.p50), "{better:?}");
    assert!((2.5..3.1).contains(&better.ttft.p90), "{better:?}");
    assert!((1.85..2.15).contains(&better.ttft.p05), "{better:?}");
    assert!((9.4..=11.0).contains(&better.total.p50), "{better:?}");
    let buckets: Vec<_> = calibration.ttft.to_p50.buckets().collect();
    let n: f32 = buckets.iter().map(|bucket| bucket.n).sum();
    let within = buckets
        .iter()
        .filter(|bucket| bucket.most > 2.0 && bucket.most < 3.3);
    assert!((within.map(|bucket| bucket.n).sum::<f32>() / n - 1.0).abs() < 0.01);
}

#[test]
fn traffic_is_what_the_last_minutes_had() {
    let mut meter = TrafficMeter::default();
    for second in 0..600_u32 {
        meter.add(100 + second % 2 * 100, f64::from(second));
    }
    let traffic = meter.traffic(600.0);
    assert!((0.95..1.05).contains(&traffic.per_second), "{traffic:?}");
    assert!(
        (145..=155).contains(&traffic.n_prompt_tokens),
        "{traffic:?}"
    );
    let later = meter.traffic(660.0).per_second;
    assert!((later / traffic.per_second - 0.5).abs() < 0.02, "{later}");
}

#[test]
fn what_a_step_pays_for_being_learned_from_is_microseconds() {
    let mut fit = CostFit::default();
    let mut random = Random(6);
    let begun = Instant::now();
    for step in 0..2000_u32 {
        let some = shape(step % 3 * 64, random.below(900), random.below(17), 300);
        fit.add(&some, seconds(&some));
    }
    let each = begun.elapsed() / 2000;
    println!("{each:?}");
    assert!(each.as_micros() < 200, "{each:?}");
}
