use super::{Memory, assert_close, run, team};
use crate::cuda::{self, DeviceMatrix, Into};
use crate::matmul::{linear_f32, linear_quantized};
use crate::quantize::{quantize_rows, row_words};
use crate::testing::{Random, random_blocks};
use crate::{Matrix, Out, Output, Part, WeightType};

#[test]
fn rows_of_every_kind_decode_as_on_the_processor() {
    let mut random = Random::new(7);
    for weight_type in WeightType::ALL {
        let (n, k) = (5, 512);
        let bytes = random_blocks(weight_type, n * k, &mut random);
        let table = Memory::of(&bytes);
        let table = DeviceMatrix {
            weight_type,
            n,
            k,
            bytes: table.slice(),
        };
        let token_ids = Memory::of(&[4_u32, 0, 2]);
        let mut out = Memory::poisoned(3 * k);
        run(cuda::embed(table, token_ids.indices(), out.slice_mut()).unwrap());
        let row_bytes = weight_type.row_bytes(k).unwrap();
        for (token, got) in [4, 0, 2].into_iter().zip(out.written().chunks(k)) {
            let mut expected = vec![0.0; k];
            let row = &bytes[token * row_bytes..(token + 1) * row_bytes];
            weight_type.dequantize(row, &mut expected).unwrap();
            assert_eq!(got, expected, "{weight_type:?}");
        }
    }
}

/// Products by the processor.
fn expected(
    weight_type: WeightType,
    [m, n, k]: [usize; 3],
    bytes: &[u8],
    x: &[f32],
    out: &mut Out<'_>,
) {
    let team = team();
    let turn = team.take_turn();
    let matrix = Matrix::new(&turn, weight_type, n, k, bytes).unwrap();
    let parts = [Part {
        matrix: &matrix,
        column: 2,
    }];
    if weight_type.takes_quantized() {
        let mut words = vec![0; m * row_words(k)];
        quantize_rows(&turn, x, k, &mut words).unwrap();
        linear_quantized(&turn, &parts, &words, out).unwrap();
    } else {
        linear_f32(&turn, &parts, x, out).unwrap();
    }
}

/// Products by the kernels: rows from `first` on, `m` of them.
fn got(
    matrix: DeviceMatrix<'_>,
    x: &[f32],
    m: usize,
    before: &[f32],
    stride: usize,
    output: Output,
) -> Vec<f32> {
    let x = Memory::of(x);
    let mut out = Memory::of(before);
    let into = Into {
        values: out.slice_mut(),
        stride,
        column: 2,
        output,
    };
    if matrix.weight_type.takes_quantized() {
        let mut words = Memory::poisoned(m * row_words(matrix.k));
        run(cuda::quantize_rows(x.slice(), m, matrix.k, words.slice_mut()).unwrap());
        run(cuda::linear_quantized(words.slice(), matrix, m, into).unwrap());
    } else {
        run(cuda::linear_f32(x.slice(), matrix, m, into).unwrap());
    }
    out.written().to_vec()
}

#[test]
fn products_of_every_kind_are_the_processors_and_alike_in_any_batch() {
    let mut random = Random::new(8);
    for weight_type in WeightType::ALL {
        // Rows that are no whole number of warps' steps, or of blocks of threads.
        let shapes = [[1, 6, 256], [11, 5, 1280]];
        for [m, n, k] in shapes {
            let bytes = random_blocks(weight_type, n * k, &mut random);
            let device_bytes = Memory::of(&bytes);
            let matrix = DeviceMatrix {
                weight_type,
                n,
                k,
                bytes: device_bytes.slice(),
            };
            let stride = n + 3;
            let (x, before) = (random.floats(m * k), random.floats(m * stride));
            for output in [Output::Write, Output::Add] {
                let mut wanted = before.clone();
                let mut out = Out {
                    values: &mut wanted,
                    stride,
                    output,
                };
                expected(weight_type, [m, n, k], &bytes, &x, &mut out);
                let all = got(matrix, &x, m, &before, stride, output);
                assert_close(&all, &wanted, 2e-6);
                // The last row alone has the same bits.
                let (row, last) = (&x[(m - 1) * k..], &before[(m - 1) * stride..]);
                let alone = got(matrix, row, 1, last, stride, output);
                assert_eq!(alone, all[(m - 1) * stride..], "{weight_type:?}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error_before_the_launch() {
    let bytes = Memory::<u8>::poisoned(4 * 36);
    let matrix = |weight_type, n, k| DeviceMatrix {
        weight_type,
        n,
        k,
        bytes: bytes.slice(),
    };
    let (words, floats) = (Memory::<u32>::poisoned(22), Memory::<f32>::poisoned(64));
    let mut out = Memory::<f32>::poisoned(4);
    let q4 = matrix(WeightType::Q4_0, 4, 64);
    let words = words.slice();
    let mut quantized = |matrix, m, stride, column| {
        let into = into(&mut out, stride, column);
        cuda::linear_quantized(words, matrix, m, into).map(|_| ())
    };
    assert_eq!(quantized(q4, 1, 4, 0), Ok(()));
    assert!(quantized(q4, 2, 4, 0).is_err());
    assert!(quantized(q4, 1, 4, 1).is_err());
    assert!(quantized(matrix(WeightType::Q4_0, 5, 64), 1, 5, 0).is_err());
    assert!(quantized(matrix(WeightType::Q4_0, 1, 63), 1, 5, 0).is_err());
    let error = cuda::linear_f32(floats.slice(), q4, 1, into(&mut out, 4, 0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a Q4_0 matrix takes quantised activations"
    );
    let token_ids = Memory::of(&[4_u32]);
    let error = cuda::embed(q4, token_ids.indices(), out.slice_mut()).unwrap_err();
    assert_eq!(error.to_string(), "the token is 4, which is not below 4");
}

fn into(out: &mut Memory<f32>, stride: usize, column: usize) -> Into<'_> {
    Into {
        values: out.slice_mut(),
        stride,
        column,
        output: Output::Write,
    }
}
