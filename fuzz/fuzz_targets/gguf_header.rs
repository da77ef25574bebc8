//! Any bytes as a model file: refused or read, and whatever is read can be asked for everything.
#![no_main]

use std::hint::black_box;
use std::path::Path;

use libfuzzer_sys::fuzz_target;

// The reader's sources themselves instead of the `ingle` package: the module needs nothing else of
// it, and instrumenting tensors, tokenizers and the HTTP server would take minutes for nothing.
#[path = "../../src/gguf/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the target asks for less than the engine")]
#[allow(unfulfilled_lint_expectations, reason = "this package has fewer lints than the project")]
mod gguf;

use gguf::{Gguf, Metadata, TensorType, Value};

fuzz_target!(|bytes: &[u8]| {
    match Gguf::from_bytes(Path::new("fuzz-00001-of-00002.gguf"), bytes.to_vec()) {
        Ok(gguf) => walk(&gguf, bytes.len() as u64),
        // Every error has to have its sentence.
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

fn walk(gguf: &Gguf, n_bytes: u64) {
    assert_eq!(gguf.file_bytes(), n_bytes);
    assert!(gguf.alignment().is_power_of_two());
    let keys = gguf.metadata();
    for key in keys.keys() {
        assert!(keys.contains(key));
        let value = keys.value(key).expect("checked at open").expect("listed");
        touch(value);
        getters(keys, key);
    }
    let mut tensor_bytes = 0;
    for tensor in gguf.tensors() {
        let bytes = gguf.bytes(tensor);
        assert_eq!(bytes.len() as u64, tensor.n_bytes());
        assert_eq!(tensor.ty.tensor_bytes(&tensor.dims), Some(tensor.n_bytes()));
        assert_eq!(TensorType::from_id(tensor.ty.id()), Some(tensor.ty));
        assert!(tensor.n_elements() >= 1 && tensor.offset().is_multiple_of(gguf.alignment()));
        black_box(bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
        let found = gguf.tensor(&tensor.name).expect("listed");
        assert_eq!(found.offset(), tensor.offset());
        tensor_bytes += tensor.n_bytes();
    }
    assert!(tensor_bytes <= n_bytes, "tensors overlap");
}

/// Asks a key for every type: a value or an error, never more than the file holds.
fn getters(keys: &Metadata, key: &str) {
    let _ = black_box((keys.str(key), keys.opt_u32(key), keys.opt_u64(key), keys.architecture()));
    let _ = black_box((keys.opt_f32(key), keys.opt_bool(key), keys.opt_len(key)));
    let _ = black_box((keys.f32s(key), keys.i32s(key)));
    if let Ok(texts) = keys.strings(key) {
        assert_eq!(texts.iter().map(black_box).count(), texts.len());
    }
}

fn touch(value: Value<'_>) {
    if let Value::Array(array) = value {
        assert_eq!(array.iter().count(), array.len());
        array.iter().for_each(touch);
    }
    black_box((value.value_type().name(), value.integer()));
}
