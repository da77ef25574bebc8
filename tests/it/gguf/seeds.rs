//! The files the fuzzer starts from.

use std::fs;
use std::path::{Path, PathBuf};

use super::{every_type, open};
use crate::gguf_file::{GgufFile, TinyLlama, Vocabulary};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/gguf_header")
}

/// Small files that between them have every kind of value, several types and both versions.
fn seeds() -> Vec<(&'static str, GgufFile)> {
    let tensors = |file: GgufFile| {
        file.tensor_f32("norm", &[3], &[1.0, 2.0, 3.0])
            .tensor("q8_0", 8, &[32, 2], vec![1; 68])
            .tensor("q6_k", 14, &[256], vec![2; 210])
            .tensor("iq1_m", 29, &[256, 1, 1, 2], vec![3; 112])
    };
    let narrow = GgufFile {
        alignment: 8,
        version: 2,
        ..GgufFile::new()
    };
    let tiny = |vocabulary| {
        let model = TinyLlama {
            n_layers: 1,
            n_embd: 8,
            n_heads: 2,
            n_ff: 8,
            ..TinyLlama::default()
        };
        let mut file = TinyLlama {
            vocabulary,
            ..model
        }
        .file();
        file.tensors
            .retain(|tensor| !tensor.name.starts_with(b"token_embd"));
        file
    };
    vec![
        ("empty.gguf", GgufFile::new()),
        ("values.gguf", every_type()),
        ("tensors.gguf", tensors(GgufFile::new())),
        (
            "aligned-to-8.gguf",
            tensors(narrow.with("general.alignment", 8_u32)),
        ),
        ("bpe.gguf", tiny(Vocabulary::Bpe)),
        ("spm.gguf", tiny(Vocabulary::Spm)),
        ("shard.gguf", tensors(GgufFile::new()).split(2).remove(0)),
    ]
}

#[test]
fn the_fuzzers_seeds_are_what_the_writer_writes() {
    for (name, file) in seeds() {
        let path = folder().join(name);
        let written = fs::read(&path).unwrap_or_default();
        assert!(
            written == file.to_bytes(),
            "{name} is stale: run `write_seeds`, it is ignored"
        );
        if name != "shard.gguf" {
            open(&file);
        }
    }
}

#[test]
#[ignore = "writes fuzz/seeds"]
fn write_seeds() {
    fs::create_dir_all(folder()).unwrap();
    for (name, file) in seeds() {
        file.write(&folder().join(name));
    }
}
