//! What is learned, and how fast a prediction is.

use std::time::Instant;

use super::super::{SequenceLoad, predict};
use super::Random;
use super::law::{outlook, some_cost};
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
