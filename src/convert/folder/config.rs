//! `config.json`: the shape of the network, and the keys that say it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value as Json;

use super::super::{Error, files};
use crate::gguf::{Value, Writer, printable};

/// The architectures that are all one network.
const ARCHITECTURES: [&str; 4] = [
    "LlamaForCausalLM",
    "LLaMAForCausalLM",
    "MistralForCausalLM",
    "LlamaModel",
];
/// More layers no network has.
const LAYERS_MOST: u32 = 4096;

/// What is read of `config.json`. The names are its own.
#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    architectures: Vec<String>,
    hidden_size: u32,
    intermediate_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    max_position_embeddings: u32,
    #[serde(default = "default_eps")]
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeFields>,
    /// What newer files have in place of both.
    rope_parameters: Option<RopeFields>,
    vocab_size: u32,
    sliding_window: Option<u32>,
    #[serde(default)]
    tie_word_embeddings: bool,
    quantization_config: Option<Json>,
    #[serde(flatten)]
    others: serde_json::Map<String, Json>,
}

fn default_eps() -> f64 {
    1e-6
}

#[derive(Clone, Default, Deserialize)]
struct RopeFields {
    rope_type: Option<String>,
    #[serde(rename = "type")]
    old_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<u32>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
}

/// How positions are scaled.
enum Scaling {
    None,
    Linear {
        factor: f64,
    },
    Yarn {
        factor: f64,
        original_context: u32,
        others: [(&'static str, Option<f64>); 3],
    },
    /// By a factor for each frequency.
    Llama3(Vec<f32>),
}

/// A checked `config.json`.
pub(super) struct Config {
    path: PathBuf,
    fields: Fields,
    rope_theta: f64,
    scaling: Scaling,
}

impl Config {
    /// Errors: the file cannot be read, says what cannot be, or asks for what is not built.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let needed = "name a folder with a model as Hugging Face has it, or a GGUF file";
        let fields: Fields = files::json(path, needed)?;
        let mut this = Self {
            path: path.to_owned(),
            fields,
            rope_theta: 10_000.0,
            scaling: Scaling::None,
        };
        this.check()?;
        let both = [&this.fields.rope_parameters, &this.fields.rope_scaling];
        let rope = both
            .into_iter()
            .flatten()
            .next()
            .cloned()
            .unwrap_or_default();
        let theta = rope.rope_theta.or(this.fields.rope_theta);
        this.rope_theta = theta.unwrap_or(this.rope_theta);
        if !(this.rope_theta > 0.0 && this.rope_theta.is_finite()) {
            return Err(this.wrong("rope_theta", &this.rope_theta, "it must be above 0"));
        }
        this.scaling = this.scaling(&rope)?;
        Ok(this)
    }

    fn wrong(&self, key: &str, got: &dyn std::fmt::Display, must_be: &str) -> Error {
        let got = printable(&format!("{got}"));
        Error::content(&self.path, format!("says {key} is {got}: {must_be}"))
    }

    fn check(&self) -> Result<(), Error> {
        let fields = &self.fields;
        let known = |name: &String| ARCHITECTURES.contains(&&**name);
        if !fields.architectures.iter().any(known) {
            let names = fields.architectures.join(", ");
            let must_be = "LlamaForCausalLM and MistralForCausalLM can be converted";
            return Err(self.wrong("architectures", &format!("[{names}]"), must_be));
        }
        if fields
            .quantization_config
            .as_ref()
            .is_some_and(|it| !it.is_null())
        {
            let problem =
                "says the weights are quantised already: take the folder of the model itself";
            return Err(Error::content(&self.path, problem));
        }
        let sizes = [
            ("hidden_size", fields.hidden_size),
            ("intermediate_size", fields.intermediate_size),
            ("num_hidden_layers", fields.num_hidden_layers),
            ("num_attention_heads", fields.num_attention_heads),
            (
                "num_key_value_heads",
                fields.num_key_value_heads.unwrap_or(1),
            ),
            ("head_dim", fields.head_dim.unwrap_or(2)),
            ("max_position_embeddings", fields.max_position_embeddings),
            ("vocab_size", fields.vocab_size),
        ];
        if let Some((key, got)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(self.wrong(key, &got, "it must be at least 1"));
        }
        if fields.num_hidden_layers > LAYERS_MOST {
            let must_be = format!("it must be at most {LAYERS_MOST}");
            return Err(self.wrong("num_hidden_layers", &fields.num_hidden_layers, &must_be));
        }
        if fields.head_dim.is_none()
            && !fields
                .hidden_size
                .is_multiple_of(fields.num_attention_heads)
        {
            let must_be = format!(
                "it must be a multiple of the {} heads",
                fields.num_attention_heads
            );
            return Err(self.wrong("hidden_size", &fields.hidden_size, &must_be));
        }
        if !self.head_dim().is_multiple_of(2) {
            return Err(self.wrong("head_dim", &self.head_dim(), "it must be even"));
        }
        let n_kv_heads = fields
            .num_key_value_heads
            .unwrap_or(fields.num_attention_heads);
        if !fields.num_attention_heads.is_multiple_of(n_kv_heads) {
            let must_be = format!("it must divide the {} heads", fields.num_attention_heads);
            return Err(self.wrong("num_key_value_heads", &n_kv_heads, &must_be));
        }
        Ok(())
    }

    fn scaling(&self, rope: &RopeFields) -> Result<Scaling, Error> {
        let kind = rope.rope_type.as_ref().or(rope.old_type.as_ref());
        let factor = || {
            let positive = rope
                .factor
                .filter(|factor| *factor > 0.0 && factor.is_finite());
            positive.ok_or_else(|| {
                let got = rope
                    .factor
                    .map_or("nothing".to_owned(), |factor| factor.to_string());
                self.wrong("rope_scaling.factor", &got, "it must be a number above 0")
            })
        };
        let original = rope.original_max_position_embeddings;
        match kind.map(|kind| kind.to_ascii_lowercase()).as_deref() {
            None | Some("default") => Ok(Scaling::None),
            Some("linear") => Ok(Scaling::Linear { factor: factor()? }),
            Some("yarn") => Ok(Scaling::Yarn {
                factor: factor()?,
                original_context: original.unwrap_or(self.fields.max_position_embeddings),
                others: [
                    ("yarn_attn_factor", rope.attention_factor),
                    ("yarn_beta_fast", rope.beta_fast),
                    ("yarn_beta_slow", rope.beta_slow),
                ],
            }),
            Some("llama3") => {
                let factor = rope.factor.unwrap_or(8.0);
                let low = rope.low_freq_factor.unwrap_or(1.0);
                let high = rope.high_freq_factor.unwrap_or(4.0);
                let context = f64::from(original.unwrap_or(8192));
                let factors = self.llama3(context, factor, (low, high));
                match factors.iter().find(|it| !(**it > 0.0 && it.is_finite())) {
                    Some(factor) => {
                        let must_be = "rope_scaling has to make them numbers above 0";
                        Err(self.wrong("a factor of frequencies", &factor, must_be))
                    }
                    None => Ok(Scaling::Llama3(factors)),
                }
            }
            Some(other) => {
                let must_be = "linear, yarn and llama3 can be converted";
                Err(self.wrong("rope_scaling.rope_type", &other, must_be))
            }
        }
    }

    /// Low frequencies are divided by `factor`, high ones stay, those between change over.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "single precision is what the factors are computed in elsewhere"
    )]
    fn llama3(&self, context: f64, factor: f64, (low, high): (f64, f64)) -> Vec<f32> {
        let dim = self.head_dim();
        let base = self.rope_theta as f32;
        let one = |i: u32| {
            let frequency = 1.0 / base.powf((2 * i) as f32 / dim as f32);
            let wavelength = (2.0 * std::f64::consts::PI) as f32 / frequency;
            if f64::from(wavelength) < context / high {
                1.0
            } else if f64::from(wavelength) > context / low {
                factor as f32
            } else {
                let smooth = (context as f32 / wavelength - low as f32) / (high - low) as f32;
                1.0 / ((1.0 - smooth) / factor as f32 + smooth)
            }
        };
        (0..dim / 2).map(one).collect()
    }

    pub(super) fn n_layers(&self) -> usize {
        self.fields.num_hidden_layers as usize
    }

    pub(super) fn n_heads(&self) -> usize {
        self.fields.num_attention_heads as usize
    }

    pub(super) fn n_kv_heads(&self) -> usize {
        let fields = &self.fields;
        fields
            .num_key_value_heads
            .unwrap_or(fields.num_attention_heads) as usize
    }

    pub(super) fn head_dim(&self) -> u32 {
        let fields = &self.fields;
        let even = fields.hidden_size.checked_div(fields.num_attention_heads);
        fields.head_dim.or(even).unwrap_or_default()
    }

    pub(super) fn n_vocab(&self) -> u32 {
        self.fields.vocab_size
    }

    pub(super) fn hidden_size(&self) -> u64 {
        self.fields.hidden_size.into()
    }

    pub(super) fn intermediate_size(&self) -> u64 {
        self.fields.intermediate_size.into()
    }

    /// Whether the embedding is the output matrix as well.
    pub(super) fn is_tied(&self) -> bool {
        self.fields.tie_word_embeddings
    }

    /// The id of a special token, e.g. of `bos_token_id`; lists are for those who generate.
    pub(super) fn token_id(&self, kind: &str) -> Option<u64> {
        self.fields
            .others
            .get(&format!("{kind}_token_id"))?
            .as_u64()
    }

    /// What each frequency is divided by.
    pub(super) fn rope_factors(&self) -> Option<&[f32]> {
        match &self.scaling {
            Scaling::Llama3(factors) => Some(factors),
            _ => None,
        }
    }

    /// Writes the network's keys.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "single precision is what the keys have"
    )]
    pub(super) fn write(&self, writer: &mut Writer) {
        let fields = &self.fields;
        let (head_dim, n_kv_heads) = (self.head_dim(), self.n_kv_heads());
        let numbers = [
            ("block_count", fields.num_hidden_layers),
            ("context_length", fields.max_position_embeddings),
            ("embedding_length", fields.hidden_size),
            ("feed_forward_length", fields.intermediate_size),
            ("attention.head_count", fields.num_attention_heads),
            (
                "attention.head_count_kv",
                u32::try_from(n_kv_heads).unwrap_or_default(),
            ),
            ("attention.key_length", head_dim),
            ("attention.value_length", head_dim),
            ("vocab_size", fields.vocab_size),
            ("rope.dimension_count", head_dim),
        ];
        for (key, number) in numbers {
            writer.key(&format!("llama.{key}"), Value::U32(number));
        }
        if let Some(window) = fields.sliding_window.filter(|window| *window > 0) {
            writer.key("llama.attention.sliding_window", Value::U32(window));
        }
        let mut float = |key: &str, value: f64| {
            writer.key(&format!("llama.{key}"), Value::F32(value as f32));
        };
        float("rope.freq_base", self.rope_theta);
        float("attention.layer_norm_rms_epsilon", fields.rms_norm_eps);
        match &self.scaling {
            Scaling::None | Scaling::Llama3(_) => {}
            Scaling::Linear { factor } => {
                float("rope.scaling.factor", *factor);
                writer.key("llama.rope.scaling.type", Value::Str(b"linear"));
            }
            Scaling::Yarn {
                factor,
                original_context,
                others,
            } => {
                float("rope.scaling.factor", *factor);
                for (key, value) in others {
                    if let Some(value) = value {
                        float(&format!("rope.scaling.{key}"), *value);
                    }
                }
                let original = Value::U32(*original_context);
                writer.key("llama.rope.scaling.original_context_length", original);
                writer.key("llama.rope.scaling.type", Value::Str(b"yarn"));
            }
        }
    }
}
