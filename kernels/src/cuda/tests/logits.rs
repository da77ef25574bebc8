use super::{Memory, assert_close, run};
use crate::cuda::{self, SUMS, TOP, token_of};
use crate::testing::Random;

/// The first logits of a row in order, by sorting all of them.
fn sorted(row: &[f32]) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(TOP);
    all
}

fn check(rows: &[Vec<f32>]) -> Vec<f32> {
    let (m, n_vocab) = (rows.len(), rows[0].len());
    let logits = Memory::of(&rows.concat());
    let mut top = Memory::<u64>::poisoned(m * TOP);
    let mut sums = Memory::<f32>::poisoned(m * SUMS);
    let shape = [m, n_vocab];
    run(cuda::top_logits(logits.slice(), shape, top.slice_mut(), sums.slice_mut()).unwrap());
    for (keys, row) in top.written().chunks(TOP).zip(rows) {
        let got: Vec<(u32, f32)> = keys.iter().filter_map(|key| token_of(*key)).collect();
        let bits = |pairs: Vec<(u32, f32)>| -> Vec<(u32, u32)> {
            pairs
                .into_iter()
                .map(|(token, logit)| (token, logit.to_bits()))
                .collect()
        };
        assert_eq!(bits(got), bits(sorted(row)));
    }
    sums.written().to_vec()
}

#[test]
fn the_greatest_logits_come_in_order_and_of_equal_ones_the_lowest_token_first() {
    let mut random = Random::new(20);
    // More than a block has threads, fewer than are kept, and one.
    for n_vocab in [3000, 100, 1] {
        let rows: Vec<Vec<f32>> = (0..3)
            .map(|_| random.floats(n_vocab).iter().map(|x| 20.0 * x).collect())
            .collect();
        let sums = check(&rows);
        for (sums, row) in sums.chunks(SUMS).zip(&rows) {
            let greatest = sorted(row)[0].1;
            let weights = row.iter().map(|x| (x - greatest).exp());
            assert_close(&sums[..2], &[greatest, weights.sum::<f32>()], 1e-5);
            assert_eq!(sums[2], 0.0);
        }
    }
    let mut ties = vec![1.5; 600];
    ties[599] = 2.0;
    ties[0] = -0.0;
    ties[1] = 0.0;
    ties[2] = f32::NEG_INFINITY;
    check(&[ties, vec![f32::NEG_INFINITY; 600], vec![-3.25; 600]]);
}

#[test]
fn what_is_no_number_is_counted() {
    let mut random = Random::new(21);
    let mut row = random.floats(700);
    row[5] = f32::NAN;
    row[600] = f32::INFINITY;
    row[601] = f32::NEG_INFINITY;
    let logits = Memory::of(&row);
    let (mut top, mut sums) = (Memory::<u64>::poisoned(TOP), Memory::poisoned(SUMS));
    run(cuda::top_logits(logits.slice(), [1, 700], top.slice_mut(), sums.slice_mut()).unwrap());
    assert_eq!(sums.written()[2], 2.0);
    let short = cuda::top_logits(logits.slice(), [2, 700], top.slice_mut(), sums.slice_mut());
    assert!(short.is_err());
}
