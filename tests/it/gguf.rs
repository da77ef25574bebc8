//! Model files: what is in them reads back, in one file and in several.

mod hostile;
mod mutated;
mod seeds;
mod shards;

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::Path;

use ingle::gguf::{Error, Gguf, TensorInfo, TensorType, Value, ValueType};
use ingle_kernels::{Isa, Matrix, Team};

use crate::fixtures;
use crate::gguf_file::{CHATML, GgufFile, Meta, TinyLlama, Vocabulary};

const WEIGHTS: [&str; 13] = [
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
    "Q6_K",
];

/// Opens a file that is to be good.
fn open(file: &GgufFile) -> Gguf {
    Gguf::from_bytes(Path::new("test.gguf"), file.to_bytes()).unwrap()
}

/// Why a file is refused.
fn refusal(bytes: Vec<u8>) -> String {
    Gguf::from_bytes(Path::new("test.gguf"), bytes)
        .unwrap_err()
        .to_string()
}

/// A file with a value of every type.
fn every_type() -> GgufFile {
    GgufFile::new()
        .with("u8", u8::MAX)
        .with("i8", i8::MIN)
        .with("u16", u16::MAX)
        .with("i16", i16::MIN)
        .with("u32", u32::MAX)
        .with("i32", i32::MIN)
        .with("u64", u64::MAX)
        .with("i64", i64::MIN)
        .with("f32", 1.5_f32)
        .with("f64", 2.5_f64)
        .with("bool", true)
        .with("str", "größer")
        .with("not utf-8", Meta::Str(vec![0xff, 0xfe]))
        .with("u8s", vec![1_u8, 2])
        .with("bools", vec![true, false])
        .with("u32s", vec![7_u32, u32::MAX])
        .with("i32s", vec![-1_i32, 2, i32::MAX])
        .with("i64s", vec![-5_i64, 6])
        .with("f32s", vec![0.5_f32, -0.25])
        .with(
            "strs",
            Meta::Array(
                8,
                vec![Meta::from("a"), Meta::from(""), Meta::Str(vec![0xe2])],
            ),
        )
        .with("none", Meta::Array(8, Vec::new()))
        .with(
            "nested",
            Meta::Array(9, vec![vec![1_u16, 2].into(), vec!["x".to_string()].into()]),
        )
}

#[test]
fn every_value_reads_back() {
    let gguf = open(&every_type());
    let keys = gguf.metadata();
    assert_eq!(keys.keys().len(), 22);
    assert_eq!(keys.keys().next(), Some("u8"), "the order of the file");
    assert_eq!(
        (keys.u32("u8").unwrap(), keys.u32("u16").unwrap()),
        (255, 65_535)
    );
    assert_eq!(
        (keys.u32("u32").unwrap(), keys.u64("u64").unwrap()),
        (u32::MAX, u64::MAX)
    );
    assert!(matches!(keys.value("i64"), Ok(Some(Value::I64(i64::MIN)))));
    assert!(matches!(keys.value("i8"), Ok(Some(Value::I8(i8::MIN)))));
    assert_eq!(
        (keys.f32("f32").unwrap(), keys.f32("f64").unwrap()),
        (1.5, 2.5)
    );
    assert!(keys.bool("bool").unwrap());
    assert_eq!(keys.str("str").unwrap(), "größer");
    assert_eq!(keys.i32s("i32s").unwrap(), [-1, 2, i32::MAX]);
    assert_eq!(keys.i32s("i64s").unwrap(), [-5, 6]);
    assert_eq!(keys.f32s("f32s").unwrap(), [0.5, -0.25]);
    let strings = keys.strings("strs").unwrap();
    assert_eq!(strings.len(), 3);
    assert_eq!(
        strings.iter().collect::<Vec<_>>(),
        [b"a".as_slice(), b"", b"\xe2"]
    );
    assert!(keys.strings("none").unwrap().is_empty());
    assert_eq!(keys.opt_len("u8s").unwrap(), Some(2));
    assert!(keys.contains("nested") && !keys.contains("nest"));
    let Ok(Some(Value::Array(nested))) = keys.value("nested") else {
        panic!("no array")
    };
    let inner: Vec<_> = nested.iter().map(|value| format!("{value:?}")).collect();
    assert_eq!(inner, ["Array([u16; 2])", "Array([str; 1])"]);
}

#[test]
fn an_absent_key_is_none_or_named() {
    let gguf = open(&every_type());
    let keys = gguf.metadata();
    assert_eq!(keys.opt_str("x").unwrap(), None);
    assert_eq!(keys.opt_u32("x").unwrap(), None);
    assert_eq!(keys.opt_f32("x").unwrap(), None);
    assert_eq!(keys.opt_bool("x").unwrap(), None);
    assert_eq!(keys.opt_len("x").unwrap(), None);
    assert!(keys.opt_strings("x").unwrap().is_none());
    let error = keys.u32("llama.block_count").unwrap_err();
    assert_eq!(error.to_string(), "the file has no key llama.block_count");
    let error = keys.architecture().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the file has no key general.architecture"
    );
}

#[test]
fn a_key_of_another_type_is_an_error_that_says_so() {
    let gguf = open(&every_type());
    let keys = gguf.metadata();
    let says = |error: Error, sentence: &str| assert_eq!(error.to_string(), sentence);
    says(
        keys.str("u8").unwrap_err(),
        "key u8 should be a text but is a u8",
    );
    says(
        keys.str("not utf-8").unwrap_err(),
        "key not utf-8 holds text that is not UTF-8",
    );
    says(
        keys.u32("f32").unwrap_err(),
        "key f32 should be an unsigned 32-bit integer but is an f32",
    );
    says(
        keys.u32("i32").unwrap_err(),
        "key i32 is -2147483648, which does not fit an unsigned 32-bit integer",
    );
    says(
        keys.opt_u32("u64").unwrap_err(),
        "key u64 is 18446744073709551615, which does not fit an unsigned 32-bit integer",
    );
    says(
        keys.f32("u32").unwrap_err(),
        "key u32 should be a floating-point number but is a u32",
    );
    says(
        keys.bool("u8").unwrap_err(),
        "key u8 should be a bool but is a u8",
    );
    says(
        keys.strings("u8s").unwrap_err(),
        "key u8s should be an array of texts but is an array of 2 u8",
    );
    says(
        keys.f32s("str").unwrap_err(),
        "key str should be an array of f32 but is a text",
    );
    says(
        keys.i32s("u8s").unwrap_err(),
        "key u8s should be an array of 32-bit integers but is an array of 2 u8",
    );
    says(
        keys.i32s("u32s").unwrap_err(),
        "key u32s is 4294967295, which does not fit an array of 32-bit integers",
    );
    says(
        keys.opt_len("bool").unwrap_err(),
        "key bool should be an array but is a bool",
    );
}

#[test]
fn tensors_read_back_whatever_the_version_and_the_alignment() {
    for (version, alignment) in [(2, 32), (3, 32), (3, 8), (3, 4096)] {
        let mut file = GgufFile::new().with("general.architecture", "llama");
        file.version = version;
        file.alignment = alignment;
        let said = u32::try_from(alignment).unwrap();
        file = file
            .with("general.alignment", said)
            .tensor_f32("norm", &[3], &[1.0, 2.0, 3.0])
            .tensor("odd", 24, &[5], vec![9; 5])
            .tensor("matrix", 8, &[64, 3], (0..204).collect())
            .tensor("cube", 16, &[256, 1, 2, 1], vec![7; 132]);
        let gguf = open(&file);
        assert_eq!(
            (gguf.version(), gguf.alignment()),
            (version, u64::from(said))
        );
        assert_eq!(gguf.file_bytes(), file.to_bytes().len() as u64);
        assert_eq!(gguf.tensors().len(), 4);
        for (tensor, written) in gguf.tensors().iter().zip(&file.tensors) {
            assert_eq!(tensor.name.as_bytes(), written.name);
            assert_eq!(
                (tensor.ty.id(), &tensor.dims),
                (written.type_id, &written.dims)
            );
            assert_eq!(*gguf.bytes(tensor), written.bytes);
            assert_eq!(tensor.n_bytes(), written.bytes.len() as u64);
            assert!(tensor.offset().is_multiple_of(u64::from(said)));
        }
        assert_eq!(gguf.tensor("matrix").unwrap().n_elements(), 192);
        assert_eq!(gguf.tensor("cube").unwrap().ty.name(), "IQ2_XXS");
        assert_eq!(gguf.tensor("cube").unwrap().ty.weight_type(), None);
        assert!(gguf.tensor("cub").is_none());
    }
}

#[test]
fn tensor_bytes_outlive_the_reader() {
    let file = GgufFile::new().tensor_f32("x", &[1], &[0.5]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    file.write(&path);
    let gguf = Gguf::open(&path).unwrap();
    gguf.advise_sequential().unwrap();
    let bytes = gguf.bytes(&gguf.tensors()[0]);
    drop(gguf);
    assert_eq!(*bytes, 0.5_f32.to_le_bytes());
}

#[test]
fn a_file_may_hold_a_vocabulary_and_no_tensors() {
    let mut vocabulary = TinyLlama::default().file();
    vocabulary.tensors.clear();
    let gguf = open(&vocabulary);
    assert!(gguf.tensors().is_empty());
    assert_eq!(
        gguf.metadata()
            .strings("tokenizer.ggml.tokens")
            .unwrap()
            .len(),
        384
    );
}

#[test]
fn tiny_models_of_every_type_are_good_files_and_the_same_each_time() {
    for name in WEIGHTS {
        let model = TinyLlama {
            rope_factors: true,
            tied: false,
            ..TinyLlama::of_type(name)
        };
        assert_eq!(model.to_bytes(), model.to_bytes());
        let gguf = open(&model.file());
        let ty = TensorType::from_name(name).unwrap();
        assert_eq!(gguf.tensor("blk.1.ffn_down.weight").unwrap().ty, ty);
        assert_eq!(gguf.tensors().len(), 2 * 9 + 2 + 1 + 1);
    }
}

/// Weights that are too large or not finite would make every test of a tiny model worthless.
#[test]
fn weights_of_tiny_models_are_as_large_as_those_of_real_ones() {
    let team = Team::new(NonZeroUsize::MIN, Isa::Scalar);
    for name in WEIGHTS {
        let gguf = open(&TinyLlama::of_type(name).file());
        let tensor = gguf.tensor("blk.0.ffn_up.weight").unwrap();
        let [k, n] = [0, 1].map(|dim| usize::try_from(tensor.dims[dim]).unwrap());
        let ty = tensor.ty.weight_type().unwrap();
        let matrix = Matrix::new(&team.take_turn(), ty, n, k, &gguf.bytes(tensor)).unwrap();
        let mut weights = vec![0.0; n * k];
        for (row, weights) in weights.chunks_exact_mut(k).enumerate() {
            matrix.dequantize_row(row, weights).unwrap();
        }
        let squares: f32 = weights.iter().map(|weight| weight * weight).sum();
        let deviation = (squares / (n * k) as f32 * k as f32).sqrt();
        assert!(
            (0.8..1.3).contains(&deviation),
            "{name}: {deviation} of 1/√k"
        );
        let mean = weights.iter().sum::<f32>() / (n * k) as f32 * (k as f32).sqrt();
        assert!(mean.abs() < 0.15, "{name}: the mean is {mean} of 1/√k");
    }
}

#[test]
fn tiny_models_have_either_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    for (vocabulary, name, list) in [
        (Vocabulary::Bpe, "gpt2", "tokenizer.ggml.merges"),
        (Vocabulary::Spm, "llama", "tokenizer.ggml.scores"),
    ] {
        TinyLlama {
            vocabulary,
            n_vocab: 400,
            ..TinyLlama::default()
        }
        .write(&path);
        let gguf = Gguf::open(&path).unwrap();
        let keys = gguf.metadata();
        assert_eq!(keys.str("tokenizer.ggml.model").unwrap(), name);
        assert_eq!(keys.str("tokenizer.chat_template").unwrap(), CHATML);
        assert_eq!(keys.strings("tokenizer.ggml.tokens").unwrap().len(), 400);
        assert_eq!(keys.i32s("tokenizer.ggml.token_type").unwrap().len(), 400);
        assert!(keys.contains(list));
        assert_eq!(gguf.tensor("token_embd.weight").unwrap().dims, [64, 400]);
    }
}

#[test]
fn smollm2_is_what_it_is_known_to_be() {
    let path = fixtures::smollm2();
    let gguf = Gguf::open(&path).unwrap();
    let keys = gguf.metadata();
    assert_eq!(keys.architecture().unwrap(), "llama");
    assert_eq!(keys.u32("llama.block_count").unwrap(), 30);
    assert_eq!(keys.u32("llama.embedding_length").unwrap(), 576);
    assert_eq!(keys.u32("llama.attention.head_count").unwrap(), 9);
    assert_eq!(keys.u32("llama.attention.head_count_kv").unwrap(), 3);
    assert_eq!(keys.strings("tokenizer.ggml.tokens").unwrap().len(), 49_152);
    assert_eq!(
        keys.i32s("tokenizer.ggml.token_type").unwrap().len(),
        49_152
    );
    assert_eq!(gguf.tensors().len(), 272);
    assert_eq!(
        gguf.tensors()
            .iter()
            .map(TensorInfo::n_elements)
            .sum::<u64>(),
        134_515_008
    );
    assert_eq!(gguf.file_bytes(), 98_362_432);
    assert_eq!(gguf.path(), path);
    let query = gguf.tensor("blk.0.attn_q.weight").unwrap();
    assert_eq!(
        (query.ty.name(), query.dims.as_slice()),
        ("Q4_1", [576, 576].as_slice())
    );
    assert_eq!(gguf.bytes(query).len(), 576 * 576 / 32 * 20);
}

/// candle's reader is written by others: what both say of a real file can be believed.
#[test]
fn candle_finds_the_same_tensors_in_smollm2() {
    let gguf = Gguf::open(&fixtures::smollm2()).unwrap();
    let mut file = std::fs::File::open(gguf.path()).unwrap();
    let candle = candle_core::quantized::gguf_file::Content::read(&mut file).unwrap();
    assert_eq!(gguf.tensors().len(), candle.tensor_infos.len());
    for tensor in gguf.tensors() {
        let theirs = &candle.tensor_infos[&tensor.name];
        let dims = theirs.shape.dims().iter().rev().map(|dim| *dim as u64);
        assert!(dims.eq(tensor.dims.iter().copied()), "{tensor:?}");
        assert_eq!(
            tensor.offset(),
            candle.tensor_data_offset + theirs.offset,
            "{tensor:?}"
        );
        let n_bytes = theirs.ggml_dtype.type_size() as u64 * tensor.n_elements()
            / theirs.ggml_dtype.block_size() as u64;
        assert_eq!(tensor.n_bytes(), n_bytes, "{tensor:?}");
        assert_eq!(
            tensor.ty.name().replace('_', ""),
            format!("{:?}", theirs.ggml_dtype).replace('_', "")
        );
    }
    let ours: HashSet<&str> = gguf.metadata().keys().collect();
    assert_eq!(ours, candle.metadata.keys().map(String::as_str).collect());
}

#[test]
fn vocabularies_of_llama_cpp_open() {
    for name in ["gpt-2", "llama-bpe", "llama-spm", "phi-3"] {
        let gguf = Gguf::open(&fixtures::path(&format!("ggml-vocab-{name}.gguf"))).unwrap();
        assert!(
            gguf.metadata()
                .strings("tokenizer.ggml.tokens")
                .unwrap()
                .len()
                > 30_000
        );
        assert!(gguf.tensors().is_empty());
    }
}

#[test]
fn value_types_have_names() {
    let gguf = open(&every_type());
    for key in [
        "u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bool", "str",
    ] {
        assert_eq!(
            gguf.metadata()
                .value(key)
                .unwrap()
                .unwrap()
                .value_type()
                .name(),
            key
        );
    }
    assert_eq!(ValueType::Array.name(), "array");
}
