use super::WeightType;

/// Made by `dequantized.py` beside it with the `gguf` package's own decoder.
const REFERENCE: &[u8] = include_bytes!("../../tests/data/dequantized.bin");

#[test]
fn every_kind_decodes_as_the_gguf_package_decodes_it() {
    let mut rest = REFERENCE;
    for kind in WeightType::ALL
        .into_iter()
        .filter(|kind| *kind != WeightType::F32)
    {
        let n_values = if kind.block_len() == 1 {
            64
        } else {
            2 * kind.block_len()
        };
        let (row, after) = rest.split_at(kind.row_bytes(n_values).unwrap());
        let (values, after) = after.split_at(4 * n_values);
        rest = after;
        let mut expected = vec![0.0; n_values];
        WeightType::F32.dequantize(values, &mut expected).unwrap();
        let mut decoded = vec![0.0; n_values];
        kind.dequantize(row, &mut decoded).unwrap();
        for (i, (decoded, expected)) in decoded.iter().zip(&expected).enumerate() {
            // One rounding more or less: the order of the products is free.
            let tolerance = 2e-6 * expected.abs() + 1e-5;
            assert!(
                (decoded - expected).abs() <= tolerance,
                "{kind:?} {i}: {decoded} {expected}"
            );
        }
    }
    assert!(rest.is_empty());
}

#[test]
fn geometry_knows_whole_rows_only() {
    assert_eq!(WeightType::Q4_1.row_bytes(576), Some(18 * 20));
    assert_eq!(WeightType::Q4K.row_bytes(512), Some(288));
    assert_eq!(WeightType::Q4K.row_bytes(576), None);
    assert_eq!(WeightType::F32.row_bytes(usize::MAX), None);
    assert!(WeightType::Q6K.group(&[0; 210], 8).is_none());
}

#[test]
fn a_row_of_the_wrong_length_is_an_error() {
    let error = WeightType::Q8_0
        .dequantize(&[0; 34], &mut [0.0; 64])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the bytes of a row has 34 elements where 68 are needed"
    );
    let error = WeightType::Q8_0
        .dequantize(&[0; 34], &mut [0.0; 31])
        .unwrap_err();
    assert!(error.to_string().contains("31"), "{error}");
}
