//! Random and mutated files: refused or read, never a panic.

use std::path::Path;

use ingle::gguf::{Gguf, Value};
use proptest::prelude::*;

use super::every_type;
use crate::gguf_file::GgufFile;

/// Opens a file and touches all that can be asked of it.
fn walk(bytes: Vec<u8>) {
    let Ok(gguf) = Gguf::from_bytes(Path::new("any"), bytes) else {
        return;
    };
    let keys = gguf.metadata();
    for key in keys.keys() {
        touch(keys.value(key).unwrap().unwrap());
        let _ = (
            keys.str(key),
            keys.u32(key),
            keys.u64(key),
            keys.f32(key),
            keys.bool(key),
        );
        let _ = (
            keys.f32s(key),
            keys.i32s(key),
            keys.strings(key).map(|texts| texts.iter().count()),
        );
    }
    let mut total = 0;
    for tensor in gguf.tensors() {
        assert_eq!(gguf.bytes(tensor).len() as u64, tensor.n_bytes());
        assert_eq!(gguf.tensor(&tensor.name).unwrap().offset(), tensor.offset());
        total += tensor.n_bytes();
    }
    assert!(total <= gguf.file_bytes());
}

fn touch(value: Value<'_>) {
    if let Value::Array(array) = value {
        assert_eq!(array.iter().count(), array.len());
        array.iter().for_each(touch);
    }
}

fn valid() -> GgufFile {
    every_type()
        .with("general.alignment", 32_u32)
        .tensor_f32("a", &[2, 2], &[1.0; 4])
        .tensor("b", 2, &[32, 2], vec![3; 36])
        .tensor("c", 14, &[256], vec![5; 210])
}

/// Without files of past failures: what fails becomes a test of its own.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Numbers that lengths, counts and ids go wrong with.
fn nasty() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(u64::MAX),
        (0_u32..64).prop_map(|bit| 1 << bit),
        (0_u32..64).prop_map(|bit| (1 << bit) - 1),
        any::<u64>(),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        walk(bytes.clone());
        walk([b"GGUF\x03\0\0\0".as_slice(), &bytes].concat());
        let counts = [1_u64.to_le_bytes(), 2_u64.to_le_bytes()].concat();
        walk([b"GGUF\x02\0\0\0".as_slice(), &counts, &bytes].concat());
    }

    #[test]
    fn changed_bytes_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = valid().to_bytes();
        let header = valid().header().len();
        for (place, byte) in changes {
            bytes[place.index(header)] = byte;
        }
        walk(bytes);
    }

    #[test]
    fn nasty_numbers_do_no_harm(
        place in any::<prop::sample::Index>(),
        number in nasty(),
        width in prop_oneof![Just(4), Just(8)],
    ) {
        let mut bytes = valid().to_bytes();
        let at = place.index(valid().header().len() - width);
        bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
        walk(bytes);
    }

    #[test]
    fn cut_and_spliced_files_do_no_harm(
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        len in 0_usize..64,
    ) {
        let bytes = valid().to_bytes();
        let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
        let piece = &bytes[from..bytes.len().min(from + len)];
        walk([&bytes[..to], piece, &bytes[to..]].concat());
        walk([&bytes[..to], &bytes[bytes.len().min(to + len)..]].concat());
    }
}
