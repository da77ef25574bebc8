use super::{Memory, assert_close, run, team};
use crate::cuda::{self, Into};
use crate::quantize::{quantize_rows, row_words};
use crate::testing::Random;
use crate::{Output, RopeTable};

#[test]
fn norms_are_the_processors() {
    let mut random = Random::new(2);
    for (m, n) in [(1, 1), (3, 17), (2, 576), (1, 4096)] {
        let (x, weight) = (random.floats(m * n), random.floats(n));
        let mut expected = vec![0.0; m * n];
        let team = team();
        crate::norm::rms_norm(&team.take_turn(), &x, &weight, 1e-5, &mut expected).unwrap();
        let (x, weight) = (Memory::of(&x), Memory::of(&weight));
        let mut out = Memory::poisoned(m * n);
        run(cuda::rms_norm(x.slice(), weight.slice(), 1e-5, m, out.slice_mut()).unwrap());
        assert_close(out.written(), &expected, 1e-6);
    }
}

#[test]
fn quantised_rows_have_the_processors_bits() {
    let mut random = Random::new(3);
    for (m, k) in [(1, 32), (3, 96), (2, 576)] {
        let mut x = random.floats(m * k);
        // What has no scale: nothing at all, almost nothing, and what is no number.
        x[..32].fill(0.0);
        if m > 1 {
            x[32..64].fill(1e-38);
            x[70] = f32::INFINITY;
            x[k + 1] = f32::NAN;
            x[k + 32] = 1e30;
        }
        let team = team();
        let mut expected = vec![0; m * row_words(k)];
        quantize_rows(&team.take_turn(), &x, k, &mut expected).unwrap();
        let x = Memory::of(&x);
        let mut words = Memory::poisoned(expected.len());
        run(cuda::quantize_rows(x.slice(), m, k, words.slice_mut()).unwrap());
        for (got, expected) in words.written().chunks(11).zip(expected.chunks(11)) {
            let scale = f32::from_bits(expected[8]);
            if scale.is_nan() {
                // Nothing but the scale matters.
                assert!(f32::from_bits(got[8]).is_nan());
            } else {
                assert_eq!(got, expected);
            }
        }
    }
}

#[test]
fn heads_turn_with_the_processors_bits_and_what_follows_stays() {
    let mut random = Random::new(4);
    for (n_heads, head_dim, rope_dim, stride) in [(3, 64, 64, 200), (2, 16, 12, 32)] {
        let table = RopeTable::new(head_dim, rope_dim, 1e4, None, 40).unwrap();
        let positions = [0, 1, 39, 7];
        let mut expected = random.floats(positions.len() * stride);
        let mut x = Memory::of(&expected);
        let team = team();
        let turn = team.take_turn();
        crate::rope::rope(&turn, &mut expected, n_heads, stride, &positions, &table).unwrap();
        let (turns, positions) = (Memory::of(table.values()), Memory::of(&positions));
        let shape = [n_heads, head_dim, stride];
        let turns = turns.slice();
        run(cuda::rope(x.slice_mut(), shape, positions.indices(), turns, rope_dim).unwrap());
        assert_eq!(x.written(), expected);
    }
}

#[test]
fn gates_are_the_processors() {
    let mut random = Random::new(5);
    for (m, n) in [(1, 1), (3, 300), (2, 1536)] {
        let gate_up: Vec<f32> = random.floats(2 * m * n).iter().map(|x| 20.0 * x).collect();
        let mut expected = vec![0.0; m * n];
        let team = team();
        crate::activation::silu_mul(&team.take_turn(), &gate_up, n, &mut expected).unwrap();
        let gate_up = Memory::of(&gate_up);
        let mut out = Memory::poisoned(m * n);
        run(cuda::silu_mul(gate_up.slice(), m, n, out.slice_mut()).unwrap());
        assert_close(out.written(), &expected, 1e-6);
    }
}

#[test]
fn rows_are_gathered_and_products_placed() {
    let mut random = Random::new(6);
    let n = 300;
    let x = random.floats(5 * n);
    let rows = [4_u32, 0, 4];
    let expected: Vec<f32> = rows
        .iter()
        .flat_map(|row| x[*row as usize * n..(*row as usize + 1) * n].to_vec())
        .collect();
    let (x, rows) = (Memory::of(&x), Memory::of(&rows));
    let mut picked = Memory::poisoned(3 * n);
    run(cuda::gather(x.slice(), rows.indices(), n, picked.slice_mut()).unwrap());
    assert_eq!(picked.written(), expected);

    let stride = n + 7;
    let before = random.floats(3 * stride);
    for output in [Output::Write, Output::Add] {
        let mut out = Memory::of(&before);
        let into = Into {
            values: out.slice_mut(),
            stride,
            column: 5,
            output,
        };
        run(cuda::place(picked.slice(), 3, n, into).unwrap());
        for (i, (got, before)) in out.written().iter().zip(&before).enumerate() {
            let (row, column) = (i / stride, i % stride);
            let placed = (5..5 + n).contains(&column);
            let wanted = match (placed, output) {
                (false, _) => *before,
                (true, Output::Write) => expected[row * n + column - 5],
                (true, Output::Add) => before + expected[row * n + column - 5],
            };
            assert_eq!(*got, wanted, "{i}");
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error_before_the_launch() {
    let (x, words) = (Memory::<f32>::poisoned(64), Memory::of(&[0_u32, 3]));
    let slice = x.slice();
    let mut out = Memory::poisoned(64);
    assert!(cuda::rms_norm(slice, slice, 1e-5, 2, out.slice_mut()).is_err());
    assert!(cuda::silu_mul(slice, 1, 33, out.slice_mut()).is_err());
    assert!(cuda::gather(slice, words.indices(), 32, out.slice_mut()).is_err());
    assert!(cuda::gather(slice, words.indices(), 0, out.slice_mut()).is_err());
    let mut bytes = Memory::poisoned(21);
    assert!(cuda::quantize_rows(slice, 1, 33, bytes.slice_mut()).is_err());
    assert!(cuda::quantize_rows(slice, 1, 64, bytes.slice_mut()).is_err());
    let shape = [1, 32, 32];
    let error = cuda::rope(out.slice_mut(), shape, words.indices(), slice, 32).unwrap_err();
    assert_eq!(error.to_string(), "the position is 3, which is not below 2");
    // An empty step has nothing to launch, and a device refuses to.
    let empty = cuda::silu_mul(slice, 0, 32, out.slice_mut()).unwrap();
    assert!(empty.is_empty());
}
