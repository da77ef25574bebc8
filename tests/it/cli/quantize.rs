//! `ingle quantize` on folders of strangers. What it makes of good ones is held to llama.cpp's quantiser
//! by tests/clients/test_quantize.py.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use ingle::gguf::Gguf;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use super::Ground;

const HIDDEN: usize = 64;
const KEYS: usize = 32;
const VOCAB: usize = 5;

type Tensor = (Dtype, Vec<usize>, Vec<u8>);

fn view<'a>((name, tensor): (&'a String, &'a Tensor)) -> (String, TensorView<'a>) {
    let (dtype, shape, bytes) = tensor;
    let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
    (name.clone(), view)
}

/// A folder's files, to be spoilt one at a time.
struct Folder {
    config: Value,
    tokenizer: Value,
    tensors: BTreeMap<String, Tensor>,
}

impl Folder {
    fn new() -> Self {
        let shapes = [
            ("model.embed_tokens", vec![VOCAB, HIDDEN]),
            ("model.norm", vec![HIDDEN]),
            ("model.layers.0.input_layernorm", vec![HIDDEN]),
            ("model.layers.0.self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("model.layers.0.self_attn.k_proj", vec![KEYS, HIDDEN]),
            ("model.layers.0.self_attn.v_proj", vec![KEYS, HIDDEN]),
            ("model.layers.0.self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("model.layers.0.post_attention_layernorm", vec![HIDDEN]),
            ("model.layers.0.mlp.gate_proj", vec![96, HIDDEN]),
            ("model.layers.0.mlp.up_proj", vec![96, HIDDEN]),
            ("model.layers.0.mlp.down_proj", vec![HIDDEN, 96]),
        ];
        let tensor = |(name, shape): (&str, Vec<usize>)| {
            let n: usize = shape.iter().product();
            let values = (0..n).map(|i| (i % 251) as f32 / 128.0 - 1.0);
            let bytes = values.flat_map(f32::to_le_bytes).collect();
            (format!("{name}.weight"), (Dtype::F32, shape, bytes))
        };
        Self {
            config: json!({
                "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN, "intermediate_size": 96,
                "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
                "max_position_embeddings": 128, "vocab_size": VOCAB, "tie_word_embeddings": true,
                "eos_token_id": 4
            }),
            tokenizer: json!({
                "added_tokens": [{"id": 4, "content": "<|end|>", "special": true}],
                "pre_tokenizer": {"type": "ByteLevel"},
                "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3},
                          "merges": [["a", "b"]]}
            }),
            tensors: shapes.into_iter().map(tensor).collect(),
        }
    }

    fn write(&self, path: &Path) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("config.json"), self.config.to_string()).unwrap();
        fs::write(path.join("tokenizer.json"), self.tokenizer.to_string()).unwrap();
        let views = self.tensors.iter().map(view);
        let bytes = safetensors::serialize(views, None).unwrap();
        fs::write(path.join("model.safetensors"), bytes).unwrap();
    }
}

/// The sentence that ends a run on the folder `model`, which leaves no file behind.
async fn refusal(ground: &Ground, more: &[&str]) -> String {
    let arguments = [&["quantize", "model", "out.gguf", "--type", "Q4_K_M"], more].concat();
    let ended = ground.run(&arguments).await;
    let sentence = ended.sentence().to_owned();
    for file in ["out.gguf", "out.gguf.part"] {
        assert!(!ground.path(file).exists(), "{file} after {sentence:?}");
    }
    sentence
}

#[tokio::test]
async fn a_folder_becomes_a_file_whose_heads_alternate() {
    let ground = Ground::new();
    let folder = Folder::new();
    folder.write(&ground.path("model"));
    let ended = ground
        .run(&["quantize", "model", "out.gguf", "--type", "f32"])
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.contains("F32, 11 tensors"), "{ended:?}");
    let gguf = Gguf::open(&ground.path("out.gguf")).unwrap();
    let row = |name: &str, row: usize| {
        let bytes = gguf.bytes(gguf.tensor(name).unwrap());
        bytes[row * 4 * HIDDEN..(row + 1) * 4 * HIDDEN].to_vec()
    };
    let (_, _, queries) = &folder.tensors["model.layers.0.self_attn.q_proj.weight"];
    let theirs = |row: usize| queries[row * 4 * HIDDEN..(row + 1) * 4 * HIDDEN].to_vec();
    for (ours, row_idx) in [
        (0, 0),
        (1, 16),
        (2, 1),
        (3, 17),
        (32, 32),
        (33, 48),
        (63, 63),
    ] {
        assert_eq!(
            row("blk.0.attn_q.weight", ours),
            theirs(row_idx),
            "row {ours}"
        );
    }
    let metadata = gguf.metadata();
    assert_eq!(metadata.str("tokenizer.ggml.pre").unwrap(), "gpt-2");
    assert_eq!(metadata.u32("tokenizer.ggml.eos_token_id").unwrap(), 4);
    assert_eq!(metadata.u32("llama.attention.key_length").unwrap(), 32);
}

#[tokio::test]
async fn a_mix_says_where_it_had_to_take_smaller_blocks() {
    let ground = Ground::new();
    Folder::new().write(&ground.path("model"));
    let ended = ground
        .run(&["quantize", "model", "out.gguf", "-t", "q4_k_m"])
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .err
            .contains("7 tensors are in a type of smaller blocks"),
        "{ended:?}"
    );
    let gguf = Gguf::open(&ground.path("out.gguf")).unwrap();
    let ty = |name: &str| gguf.tensor(name).unwrap().ty.name();
    assert_eq!(ty("token_embd.weight"), "Q8_0");
    assert_eq!(ty("blk.0.attn_q.weight"), "Q5_0");
    assert_eq!(ty("blk.0.attn_norm.weight"), "F32");
    let again = ["quantize", "out.gguf", "again.gguf", "--type", "Q4_0"];
    let sentence = ground.run(&again).await.sentence().to_owned();
    assert!(sentence.contains("is Q5_0 already"), "{sentence}");
    let ended = ground
        .run(&[&again[..], &["--allow-requantize"]].concat())
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let same = ground
        .run(&["quantize", "out.gguf", "./out.gguf", "--type", "Q8_0"])
        .await;
    assert!(same.sentence().contains("is what is read"), "{same:?}");
}

type Spoil = fn(&mut Folder);

async fn each_is_one_sentence_and_no_file(faults: &[(Spoil, &str)]) {
    for (spoil, expected) in faults {
        let ground = Ground::new();
        let mut folder = Folder::new();
        spoil(&mut folder);
        folder.write(&ground.path("model"));
        let sentence = refusal(&ground, &[]).await;
        assert!(sentence.contains(expected), "{sentence}");
    }
}

#[tokio::test]
async fn a_shape_that_cannot_be_is_one_sentence_and_no_file() {
    let faults: [(Spoil, &str); 8] = [
        (
            |it| it.config["architectures"] = json!(["GPT2LMHeadModel"]),
            "says architectures is [GPT2LMHeadModel]",
        ),
        (
            |it| it.config["hidden_size"] = json!(-1),
            "config.json cannot be used: invalid value",
        ),
        (
            |it| it.config["num_attention_heads"] = json!(0),
            "says num_attention_heads is 0",
        ),
        (
            |it| it.config["num_key_value_heads"] = json!(3),
            "says num_key_value_heads is 3: it must divide",
        ),
        (
            |it| it.config["num_hidden_layers"] = json!(4_000_000_000_u32),
            "it must be at most 4096",
        ),
        (
            |it| it.config["num_hidden_layers"] = json!(2),
            "model.layers.1.input_layernorm.weight is missing",
        ),
        (
            |it| it.config["vocab_size"] = json!(4_000_000_000_u32),
            "has 5 tokens, but config.json claims",
        ),
        (
            |it| it.config["vocab_size"] = json!(4),
            "token \"<|end|>\" the id 4, but config.json has 4",
        ),
    ];
    each_is_one_sentence_and_no_file(&faults).await;
}

#[tokio::test]
async fn what_cannot_be_converted_is_one_sentence_and_no_file() {
    let faults: [(Spoil, &str); 8] = [
        (
            |it| it.config["quantization_config"] = json!({"bits": 4}),
            "quantised already",
        ),
        (
            |it| it.config["rope_scaling"] = json!({"type": "spiral"}),
            "rope_type is spiral",
        ),
        (
            |it| it.config["tie_word_embeddings"] = json!(false),
            "lm_head.weight is missing",
        ),
        (
            |it| it.tokenizer["model"]["type"] = json!("WordPiece"),
            "a model of type \"WordPiece\"",
        ),
        (
            |it| it.tokenizer["pre_tokenizer"] = json!(null),
            "cuts text into words by \"nothing\"",
        ),
        (
            |it| {
                let moved = it.tensors.remove("model.norm.weight").unwrap();
                it.tensors.insert("model.norm.wait".to_owned(), moved);
            },
            "model.norm.wait is none that a network",
        ),
        (
            |it| it.tensors.get_mut("model.norm.weight").unwrap().1 = vec![32, 2],
            "has shape [32, 2] where",
        ),
        (
            |it| {
                let (_, _, bytes) = it
                    .tensors
                    .get_mut("model.layers.0.mlp.up_proj.weight")
                    .unwrap();
                bytes[4 * HIDDEN * 7..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
            },
            "tensor blk.0.ffn_up.weight: row 7 holds a weight that is not finite",
        ),
    ];
    each_is_one_sentence_and_no_file(&faults).await;
}

#[tokio::test]
async fn files_of_weights_are_believed_nothing() {
    let ground = Ground::new();
    Folder::new().write(&ground.path("model"));
    let path = ground.path("model/model.safetensors");
    let good = fs::read(&path).unwrap();
    let index = |map: Value| json!({ "weight_map": map }).to_string();
    let index_path = ground.path("model/model.safetensors.index.json");
    let with_header = |header: &str| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes
    };
    let outside = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,99999999999]}}"#;
    let overflow = r#"{"a":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,8]}}"#;
    let files: [(Vec<u8>, &str); 6] = [
        (b"short".to_vec(), "is 5 bytes long"),
        (
            u64::MAX.to_le_bytes().repeat(2),
            "claims a header of 18446744073709551615 bytes",
        ),
        (with_header("[1, 2]"), "has a header that cannot be used"),
        (with_header(outside), "has a header that cannot be used"),
        (with_header(overflow), "has a header that cannot be used"),
        (
            good[..good.len() - 1].to_vec(),
            "bytes of tensors where its header makes it",
        ),
    ];
    for (bytes, expected) in files {
        fs::write(&path, bytes).unwrap();
        let sentence = refusal(&ground, &[]).await;
        assert!(sentence.contains(expected), "{sentence}");
    }
    fs::write(&path, &good).unwrap();
    let indices = [
        (
            index(json!({"a": "../model.safetensors"})),
            "names the file \"../model.safetensors\"",
        ),
        (
            index(json!({"a": "/etc/passwd"})),
            "names the file \"/etc/passwd\"",
        ),
        (
            index(json!({"a": "model-2.safetensors"})),
            "model-2.safetensors is missing",
        ),
        (
            index(json!({"a": "model.safetensors"})),
            "tensor a is named by",
        ),
        (index(json!(["a"])), "index.json cannot be used"),
        ("{".to_owned(), "index.json cannot be used"),
    ];
    for (text, expected) in indices {
        fs::write(&index_path, text).unwrap();
        let sentence = refusal(&ground, &[]).await;
        assert!(sentence.contains(expected), "{sentence}");
    }
}

#[tokio::test]
async fn an_importance_matrix_of_another_model_is_refused() {
    let ground = Ground::new();
    Folder::new().write(&ground.path("model"));
    let entry = |name: &str, n_values: usize| {
        let mut bytes = 1_i32.to_le_bytes().to_vec();
        bytes.extend(i32::try_from(name.len()).unwrap().to_le_bytes());
        bytes.extend(name.as_bytes());
        bytes.extend(1_i32.to_le_bytes());
        bytes.extend(i32::try_from(n_values).unwrap().to_le_bytes());
        bytes.extend(vec![0; 4 * n_values]);
        bytes
    };
    let matrices = [
        (
            entry("blk.0.ffn_up.weight", 63),
            "has 64 columns and the importance matrix 63",
        ),
        (b"nonsense of some length".to_vec(), "or is none"),
        (vec![1, 0, 0, 0, 1], "ends in the middle"),
        (entry("x", 4)[..20].to_vec(), "ends in the middle"),
        (Vec::new(), "ends in the middle"),
    ];
    for (bytes, expected) in matrices {
        fs::write(ground.path("imatrix"), bytes).unwrap();
        let sentence = refusal(&ground, &["--imatrix", "imatrix"]).await;
        assert!(sentence.contains(expected), "{sentence}");
    }
    fs::write(ground.path("imatrix"), entry("blk.0.ffn_up.weight", 64)).unwrap();
    let arguments = [
        "quantize",
        "model",
        "out.gguf",
        "-t",
        "Q4_0",
        "--imatrix",
        "imatrix",
    ];
    let ended = ground.run(&arguments).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.err.contains("says nothing of 7 tensors"), "{ended:?}");
}

#[tokio::test]
async fn a_file_that_another_run_writes_is_left_to_it() {
    let ground = Ground::new();
    Folder::new().write(&ground.path("model"));
    let part = File::create(ground.path("out.gguf.part")).unwrap();
    part.lock().unwrap();
    let arguments = ["quantize", "model", "out.gguf", "--type", "Q4_0"];
    let sentence = ground.run(&arguments).await.sentence().to_owned();
    assert!(
        sentence.contains("is being written by another run"),
        "{sentence}"
    );
    part.unlock().unwrap();
    fs::write(ground.path("out.gguf.part"), vec![7; 1 << 20]).unwrap();
    let ended = ground.run(&arguments).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ground.path("out.gguf.part").exists());
    assert!(Gguf::open(&ground.path("out.gguf")).is_ok());
}

#[cfg(unix)]
#[tokio::test]
async fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
    let ground = Ground::new();
    Folder::new().write(&ground.path("model"));
    let path = ground.path("model/tokenizer.json");
    fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success());
    let sentence = refusal(&ground, &[]).await;
    assert!(
        sentence.ends_with("tokenizer.json is no regular file"),
        "{sentence}"
    );
}
