//! Folders that lie: each is an error that names what is wrong, at once and without much memory.

use std::fs;
use std::path::Path;

use ingle::model::Pooling;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::load;

/// A network small enough to be written out whole.
struct Folder {
    config: Value,
    /// Name, shape, type.
    tensors: Vec<(String, Vec<usize>, &'static str)>,
    fill: f32,
    ground: TempDir,
}

const N_EMBD: usize = 4;
const N_FF: usize = 8;
const N_VOCAB: usize = 7;

impl Folder {
    fn new() -> Self {
        let mut tensors: Vec<(String, Vec<usize>, &'static str)> = Vec::new();
        let mut add =
            |name: &str, shape: &[usize]| tensors.push((name.to_owned(), shape.to_vec(), "F32"));
        add("embeddings.word_embeddings.weight", &[N_VOCAB, N_EMBD]);
        add("embeddings.position_embeddings.weight", &[16, N_EMBD]);
        add("embeddings.token_type_embeddings.weight", &[2, N_EMBD]);
        let linears = [
            ("attention.self.query", N_EMBD, N_EMBD),
            ("attention.self.key", N_EMBD, N_EMBD),
            ("attention.self.value", N_EMBD, N_EMBD),
            ("attention.output.dense", N_EMBD, N_EMBD),
            ("intermediate.dense", N_EMBD, N_FF),
            ("output.dense", N_FF, N_EMBD),
        ];
        for (name, n_in, n_out) in linears {
            add(&format!("encoder.layer.0.{name}.weight"), &[n_out, n_in]);
            add(&format!("encoder.layer.0.{name}.bias"), &[n_out]);
        }
        for name in [
            "embeddings",
            "encoder.layer.0.attention.output",
            "encoder.layer.0.output",
        ] {
            add(&format!("{name}.LayerNorm.weight"), &[N_EMBD]);
            add(&format!("{name}.LayerNorm.bias"), &[N_EMBD]);
        }
        Self {
            config: json!({
                "model_type": "bert", "hidden_size": N_EMBD, "num_attention_heads": 2,
                "num_hidden_layers": 1, "intermediate_size": N_FF, "vocab_size": N_VOCAB,
                "max_position_embeddings": 16, "type_vocab_size": 2, "hidden_act": "gelu",
            }),
            tensors,
            fill: 0.25,
            ground: tempfile::tempdir().unwrap(),
        }
    }

    fn safetensors(&self) -> Vec<u8> {
        let mut header = Map::new();
        let mut data = Vec::new();
        for (name, shape, ty) in &self.tensors {
            let begin = data.len();
            for n in 0..shape.iter().product::<usize>() {
                let value = self.fill + f32::from(u8::try_from(n % 5).unwrap()) / 8.0;
                data.extend(value.to_le_bytes());
            }
            header.insert(
                name.clone(),
                json!({"dtype": ty, "shape": shape, "data_offsets": [begin, data.len()]}),
            );
        }
        let header = Value::Object(header).to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.ground.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn write_all(&self) {
        self.write("config.json", self.config.to_string().as_bytes());
        self.write("model.safetensors", &self.safetensors());
        let vocabulary: Map<String, Value> = ["[UNK]", "[CLS]", "[SEP]", "a", "b", "##a", "##b"]
            .iter()
            .enumerate()
            .map(|(id, token)| ((*token).to_owned(), json!(id)))
            .collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": null, "decoder": null,
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100, "vocab": vocabulary},
        });
        self.write("tokenizer.json", tokenizer.to_string().as_bytes());
    }

    fn path(&self) -> &Path {
        self.ground.path()
    }

    /// Why it cannot be loaded.
    fn error(&self) -> String {
        let loaded = load(self.path(), 1);
        loaded.err().expect("it is not loaded")
    }
}

#[test]
fn a_small_folder_is_computed_by_default_as_the_mean_of_length_one() {
    let folder = Folder::new();
    folder.write_all();
    let (encoder, sentences) = load(folder.path(), 1).unwrap();
    assert_eq!(encoder.config().readout_source, "the default");
    let tokens = sentences.encode("ab ba").unwrap().ids;
    assert_eq!(tokens, [3, 6, 4, 5]);
    let vector = encoder.encode(&[&tokens]).unwrap().remove(0);
    let squares: f32 = vector.iter().map(|value| value * value).sum();
    assert!((squares - 1.0).abs() < 1e-5, "{vector:?}");
}

/// A key of `config.json`, what it is set to, and what is then said.
const KEYS: &[(&str, &str, &str)] = &[
    (
        "model_type",
        "\"xlnet\"",
        "model type \"xlnet\" is not supported",
    ),
    ("model_type", "null", "model type \"\" is not supported"),
    (
        "hidden_size",
        "0",
        "hidden_size of config.json is 0: it must be a whole number from 1",
    ),
    ("hidden_size", "-4", "hidden_size of config.json is -4"),
    ("hidden_size", "1e30", "hidden_size of config.json is 1e+30"),
    (
        "hidden_size",
        "\"wide\"",
        "hidden_size of config.json is \"wide\"",
    ),
    (
        "hidden_size",
        "null",
        "hidden_size of config.json is missing",
    ),
    (
        "num_attention_heads",
        "0",
        "num_attention_heads of config.json is 0",
    ),
    (
        "num_attention_heads",
        "3",
        "num_attention_heads of config.json is 3: it must be a divisor",
    ),
    (
        "num_hidden_layers",
        "100000",
        "num_hidden_layers of config.json is 100000",
    ),
    (
        "num_hidden_layers",
        "2",
        "no tensor encoder.layer.1.attention.self.query.weight",
    ),
    (
        "vocab_size",
        "16777216",
        "tensor embeddings.word_embeddings.weight has shape [7, 4]",
    ),
    (
        "max_position_embeddings",
        "8388608",
        "embeddings.position_embeddings.weight has shape",
    ),
    (
        "intermediate_size",
        "16777216",
        "intermediate.dense.weight has shape [8, 4]",
    ),
    (
        "hidden_act",
        "\"swish\"",
        "hidden_act of config.json is \"swish\"",
    ),
    (
        "layer_norm_eps",
        "-1.0",
        "layer_norm_eps of config.json is -1.0",
    ),
    (
        "position_embedding_type",
        "\"relative_key\"",
        "positions of type \"relative_key\"",
    ),
    ("is_decoder", "true", "is_decoder"),
    (
        "matryoshka_dimensions",
        "[2, 5]",
        "matryoshka_dimensions of config.json",
    ),
];

#[test]
fn a_configuration_that_cannot_be_is_named_with_its_key() {
    for (key, value, expected) in KEYS {
        let mut folder = Folder::new();
        folder.config[*key] = serde_json::from_str(value).unwrap();
        folder.write_all();
        let error = folder.error();
        assert!(error.contains(expected), "{key} {value}: {error}");
    }
    for (bytes, expected) in [
        (&b"{"[..], "not valid JSON"),
        (b"[1]", "must be a JSON object"),
        (&vec![b' '; 5 << 20], "at most 4194304 are read"),
    ] {
        let folder = Folder::new();
        folder.write_all();
        folder.write("config.json", bytes);
        let error = folder.error();
        assert!(error.contains(expected), "{error}");
    }
}

/// What is done to a sound folder.
type Spoil = fn(&mut Folder);

#[test]
fn tensors_that_lie_are_named() {
    let cases: [(Spoil, &str); 5] = [
        (
            |f| drop(f.tensors.remove(0)),
            "no tensor embeddings.word_embeddings.weight",
        ),
        (
            |f| drop(f.tensors.pop()),
            "no tensor encoder.layer.0.output.LayerNorm.bias",
        ),
        (
            |f| f.tensors[4].1 = vec![N_EMBD, 1],
            "self.query.bias has shape [4, 1]",
        ),
        (|f| f.tensors[4].2 = "I32", "self.query.bias of type I32"),
        (|f| f.fill = f32::NAN, "number 0 of the vector is NaN"),
    ];
    for (spoil, expected) in cases {
        let mut folder = Folder::new();
        spoil(&mut folder);
        folder.write_all();
        let error = match load(folder.path(), 1) {
            Err(error) => error,
            Ok((encoder, _)) => encoder.encode(&[&[1, 2]]).unwrap_err().to_string(),
        };
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn no_cut_and_no_flipped_byte_of_a_safetensors_file_brings_it_down() {
    let folder = Folder::new();
    folder.write_all();
    let sound = folder.safetensors();
    let n_header = sound.len()
        - 4 * folder
            .tensors
            .iter()
            .map(|t| t.1.iter().product::<usize>())
            .sum::<usize>();
    let mut n_refused = 0;
    for at in (0..n_header).step_by(7) {
        folder.write("model.safetensors", &sound[..at]);
        assert!(
            folder.error().contains("no sound safetensors file"),
            "cut at {at}"
        );
        for with in [0, b'9', 0xFF] {
            let mut bytes = sound.clone();
            bytes[at] = with;
            folder.write("model.safetensors", &bytes);
            n_refused += usize::from(load(folder.path(), 1).is_err());
        }
    }
    assert!(n_refused > n_header / 7, "{n_refused}");
    for claimed in [u64::MAX, 1 << 40, sound.len() as u64] {
        let mut bytes = sound.clone();
        bytes[..8].copy_from_slice(&claimed.to_le_bytes());
        folder.write("model.safetensors", &bytes);
        assert!(folder.error().contains("no sound safetensors file"));
    }
}

/// Files that are written (or removed, where nothing is to be in them), and what is then said.
type Beside = (
    &'static [(&'static str, Option<&'static str>)],
    &'static str,
);

const POOLED: (&str, Option<&str>) = (
    "modules.json",
    Some(r#"[{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1_Pooling"}]"#),
);
const BESIDE: &[Beside] = &[
    (&[("config.json", None)], "it has no config.json"),
    (&[("model.safetensors", None)], "model.safetensors"),
    (
        &[("tokenizer.json", None)],
        "it says how texts become tokens",
    ),
    (&[("tokenizer.json", Some("{}"))], "tokenizer.json"),
    (
        &[("modules.json", Some("["))],
        "modules.json: it is not valid JSON",
    ),
    (&[("modules.json", Some("[]"))], "it names no pooling"),
    (
        &[(
            "modules.json",
            Some(r#"[{"type": "x.Dense", "path": "2"}]"#),
        )],
        "a module \"x.Dense\"",
    ),
    (
        &[(
            "modules.json",
            Some(r#"[{"type": "x.Pooling", "path": "../../etc"}]"#),
        )],
        "must be a folder beside it",
    ),
    (&[POOLED], "modules.json names it"),
    (
        &[POOLED, ("1_Pooling/config.json", Some("{}"))],
        "pooling_mode of 1_Pooling/config.json is missing",
    ),
    (
        &[
            POOLED,
            ("1_Pooling/config.json", Some(r#"{"pooling_mode": "sum"}"#)),
        ],
        "pooling \"sum\"",
    ),
    (
        &[
            POOLED,
            (
                "1_Pooling/config.json",
                Some(r#"{"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true}"#),
            ),
        ],
        "2 poolings side by side",
    ),
    (
        &[(
            "sentence_bert_config.json",
            Some(r#"{"max_seq_length": 1}"#),
        )],
        "max_seq_length is 1",
    ),
    (
        &[("sentence_bert_config.json", Some("{"))],
        "not valid JSON",
    ),
    (
        &[(
            "config_sentence_transformers.json",
            Some(r#"{"default_prompt_name": "query"}"#),
        )],
        "which prompts does not hold",
    ),
];

#[test]
fn what_stands_beside_the_weights_is_checked_too() {
    for (files, expected) in BESIDE {
        let folder = Folder::new();
        folder.write_all();
        for (name, text) in *files {
            match text {
                Some(text) => folder.write(name, text.as_bytes()),
                None => fs::remove_file(folder.path().join(name)).unwrap(),
            }
        }
        let error = folder.error();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn poolings_and_prompts_are_taken_from_their_files() {
    for (config, expected) in [
        (json!({"pooling_mode_cls_token": true}), Pooling::First),
        (json!({"pooling_mode": "lasttoken"}), Pooling::Last),
        (
            json!({"pooling_mode": "max", "include_prompt": true}),
            Pooling::Max,
        ),
    ] {
        let folder = Folder::new();
        folder.write_all();
        let modules = json!([{"type": "a.b.Pooling", "path": "1_Pooling"}]);
        folder.write("modules.json", modules.to_string().as_bytes());
        folder.write("1_Pooling/config.json", config.to_string().as_bytes());
        let prompts = json!({"prompts": {"query": "b a"}, "default_prompt_name": "query"});
        folder.write(
            "config_sentence_transformers.json",
            prompts.to_string().as_bytes(),
        );
        let (encoder, sentences) = load(folder.path(), 1).unwrap();
        let readout = encoder.config().readout;
        assert_eq!((readout.pooling, readout.is_normalised), (expected, false));
        assert_eq!(sentences.encode("b").unwrap().ids, [4, 3, 6]);
    }
}
