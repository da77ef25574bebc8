//! A whole llama model of a few thousand random weights, with a vocabulary of bytes.

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use ingle::gguf::TensorType;

use super::GgufFile;
use crate::random::Random;

/// The ChatML template.
pub(crate) const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + \
    message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// How text becomes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vocabulary {
    /// Byte-level BPE after SmolLM2: 0 `<|endoftext|>`, 1 `<|im_start|>` (bos), 2 `<|im_end|>`
    /// (eos), from 3 the 256 bytes, then a few merges. No bos is added.
    Bpe,
    /// SentencePiece after Llama 2: 0 `<unk>`, 1 `<s>` (bos, added), 2 `</s>` (eos), from 3 the
    /// 256 byte tokens, then characters and a few words.
    Spm,
}

/// What the model is to be like. The same description makes the same bytes.
#[derive(Clone, Debug)]
pub(crate) struct TinyLlama {
    pub(crate) seed: u64,
    pub(crate) name: &'static str,
    pub(crate) n_layers: u32,
    pub(crate) n_embd: u32,
    pub(crate) n_heads: u32,
    pub(crate) n_kv_heads: u32,
    /// Absent: `n_embd / n_heads`, and the file does not say so.
    pub(crate) head_dim: Option<u32>,
    pub(crate) n_ff: u32,
    /// At least 384; what the vocabulary does not need is filled with unused tokens.
    pub(crate) n_vocab: u32,
    pub(crate) context_length: u32,
    pub(crate) rope_base: f32,
    /// Writes `rope_freqs.weight`, as Llama 3.1 has it.
    pub(crate) rope_factors: bool,
    pub(crate) sliding_window: Option<u32>,
    /// The type of every matrix not named below.
    pub(crate) weight: TensorType,
    /// Types of matrices by a part of their name, the first match counts, e.g. `("attn_v", Q6_K)`.
    pub(crate) overrides: Vec<(&'static str, TensorType)>,
    /// Whether the embedding also serves as the output matrix.
    pub(crate) tied: bool,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) chat_template: Option<&'static str>,
}

impl Default for TinyLlama {
    fn default() -> Self {
        Self {
            seed: 1,
            name: "tiny llama",
            n_layers: 2,
            n_embd: 64,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: None,
            n_ff: 128,
            n_vocab: 384,
            context_length: 512,
            rope_base: 10_000.0,
            rope_factors: false,
            sliding_window: None,
            weight: TensorType::from_name("F32").unwrap(),
            overrides: Vec::new(),
            tied: true,
            vocabulary: Vocabulary::Bpe,
            chat_template: Some(CHATML),
        }
    }
}

impl TinyLlama {
    /// A model whose matrices are all of one type, wide enough for it: 256 for the K types.
    pub(crate) fn of_type(name: &str) -> Self {
        let weight = TensorType::from_name(name).unwrap();
        match weight.block_len() {
            256 => Self {
                weight,
                n_embd: 256,
                n_ff: 256,
                ..Self::default()
            },
            _ => Self {
                weight,
                ..Self::default()
            },
        }
    }

    /// Writes the model.
    pub(crate) fn write(&self, path: &Path) {
        fs::write(path, self.to_bytes()).unwrap();
    }

    /// The model as the bytes of a file.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.file().to_bytes()
    }

    /// The model, open to change before it is written.
    pub(crate) fn file(&self) -> GgufFile {
        let head_dim = self.head_dim.unwrap_or(self.n_embd / self.n_heads);
        let [n_embd, n_ff, n_vocab] = [self.n_embd, self.n_ff, self.n_vocab].map(u64::from);
        let n_q = u64::from(self.n_heads * head_dim);
        let n_kv = u64::from(self.n_kv_heads * head_dim);
        let mut file = self.metadata(head_dim);
        file = self.matrix(file, "token_embd.weight", &[n_embd, n_vocab]);
        for layer in 0..self.n_layers {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            file = self.norm(file, &name("attn_norm"), n_embd);
            file = self.matrix(file, &name("attn_q"), &[n_embd, n_q]);
            file = self.matrix(file, &name("attn_k"), &[n_embd, n_kv]);
            file = self.matrix(file, &name("attn_v"), &[n_embd, n_kv]);
            file = self.matrix(file, &name("attn_output"), &[n_q, n_embd]);
            file = self.norm(file, &name("ffn_norm"), n_embd);
            file = self.matrix(file, &name("ffn_gate"), &[n_embd, n_ff]);
            file = self.matrix(file, &name("ffn_up"), &[n_embd, n_ff]);
            file = self.matrix(file, &name("ffn_down"), &[n_ff, n_embd]);
        }
        file = self.norm(file, "output_norm.weight", n_embd);
        if !self.tied {
            file = self.matrix(file, "output.weight", &[n_embd, n_vocab]);
        }
        if self.rope_factors {
            let factors: Vec<f32> = (0..head_dim / 2).map(|i| 1.0 + i as f32 / 2.0).collect();
            file = file.tensor_f32(
                "rope_freqs.weight",
                &[u64::from(head_dim / 2)],
                factors.as_slice(),
            );
        }
        file
    }

    fn metadata(&self, head_dim: u32) -> GgufFile {
        let mut file = GgufFile::new()
            .with("general.architecture", "llama")
            .with("general.name", self.name)
            .with("llama.block_count", self.n_layers)
            .with("llama.context_length", self.context_length)
            .with("llama.embedding_length", self.n_embd)
            .with("llama.feed_forward_length", self.n_ff)
            .with("llama.attention.head_count", self.n_heads)
            .with("llama.attention.head_count_kv", self.n_kv_heads)
            .with("llama.attention.layer_norm_rms_epsilon", 1e-5_f32)
            .with("llama.rope.freq_base", self.rope_base)
            .with("llama.rope.dimension_count", head_dim)
            .with("llama.vocab_size", self.n_vocab);
        if self.head_dim.is_some() {
            file = file
                .with("llama.attention.key_length", head_dim)
                .with("llama.attention.value_length", head_dim);
        }
        if let Some(window) = self.sliding_window {
            file = file.with("llama.attention.sliding_window", window);
        }
        file = match self.vocabulary {
            Vocabulary::Bpe => self.bpe(file),
            Vocabulary::Spm => self.spm(file),
        };
        match self.chat_template {
            Some(template) => file.with("tokenizer.chat_template", template),
            None => file,
        }
    }

    fn bpe(&self, file: GgufFile) -> GgufFile {
        let merges = [
            "h e", "t h", "t he", "Ġ t", "Ġt he", "i n", "e r", "a n", "an d", "l l",
        ];
        let specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
        let mut tokens: Vec<String> = specials.map(String::from).to_vec();
        let mut types = vec![3; tokens.len()];
        tokens.extend((0..=255).map(|byte| byte_char(byte).to_string()));
        tokens.extend(merges.map(|merge| merge.replace(' ', "")));
        types.resize(tokens.len(), 1);
        self.fill(&mut tokens, &mut types);
        file.with("tokenizer.ggml.model", "gpt2")
            .with("tokenizer.ggml.pre", "smollm")
            .with("tokenizer.ggml.tokens", tokens)
            .with("tokenizer.ggml.token_type", types)
            .with("tokenizer.ggml.merges", merges.map(String::from).to_vec())
            .with("tokenizer.ggml.bos_token_id", 1_u32)
            .with("tokenizer.ggml.eos_token_id", 2_u32)
            .with("tokenizer.ggml.unknown_token_id", 0_u32)
            .with("tokenizer.ggml.add_bos_token", false)
    }

    fn spm(&self, file: GgufFile) -> GgufFile {
        let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
        let mut types = vec![2, 3, 3];
        tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
        types.resize(tokens.len(), 6);
        let mut scores = vec![0.0; tokens.len()];
        let words = ["he", "▁t", "▁the", "in", "er", "an", "nd", "▁and", "ll"].map(String::from);
        tokens.extend(words);
        tokens.push("▁".into());
        tokens.extend((b'!'..=b'~').map(|byte| char::from(byte).to_string()));
        types.resize(tokens.len(), 1);
        scores.extend((0..tokens.len() - scores.len()).map(|rank| -(rank as f32)));
        self.fill(&mut tokens, &mut types);
        scores.resize(tokens.len(), 0.0);
        file.with("tokenizer.ggml.model", "llama")
            .with("tokenizer.ggml.tokens", tokens)
            .with("tokenizer.ggml.scores", scores)
            .with("tokenizer.ggml.token_type", types)
            .with("tokenizer.ggml.bos_token_id", 1_u32)
            .with("tokenizer.ggml.eos_token_id", 2_u32)
            .with("tokenizer.ggml.unknown_token_id", 0_u32)
            .with("tokenizer.ggml.add_bos_token", true)
            .with("tokenizer.ggml.add_space_prefix", true)
    }

    /// Unused tokens up to the size of the vocabulary.
    fn fill(&self, tokens: &mut Vec<String>, types: &mut Vec<i32>) {
        let n_vocab = usize::try_from(self.n_vocab).unwrap();
        assert!(
            tokens.len() <= n_vocab,
            "n_vocab has to be at least {}",
            tokens.len()
        );
        tokens.extend((tokens.len()..n_vocab).map(|id| format!("<|unused_{id}|>")));
        types.resize(n_vocab, 5);
    }

    fn norm(&self, file: GgufFile, name: &str, len: u64) -> GgufFile {
        let mut random = Random::named(self.seed, name);
        let values: Vec<f32> = (0..len).map(|_| 1.0 + 0.1 * random.symmetric()).collect();
        file.tensor_f32(name, &[len], &values)
    }

    fn matrix(&self, file: GgufFile, name: &str, dims: &[u64]) -> GgufFile {
        let named = self.overrides.iter().find(|(part, _)| name.contains(part));
        let ty = named.map_or(self.weight, |(_, ty)| *ty);
        let bytes = random_weights(ty, dims, &mut Random::named(self.seed, name));
        file.tensor(name, ty.id(), dims, bytes)
    }
}

/// Random blocks of a type, their values about as large as 1/√k, so that activations neither
/// vanish nor grow from layer to layer.
fn random_weights(ty: TensorType, dims: &[u64], random: &mut Random) -> Vec<u8> {
    let n_bytes = ty
        .tensor_bytes(dims)
        .unwrap_or_else(|| panic!("{dims:?} in blocks of {ty}"));
    let deviation = 1.0 / (dims[0] as f32).sqrt();
    let n_weights = dims.iter().product();
    let mut floats = || -> Vec<f32> {
        (0..n_weights)
            .map(|_| 1.7 * deviation * random.symmetric())
            .collect()
    };
    match ty.name() {
        "F32" => return floats().iter().flat_map(|v| v.to_le_bytes()).collect(),
        "F16" => {
            return floats()
                .iter()
                .flat_map(|v| f16::from_f32(*v).to_le_bytes())
                .collect();
        }
        "BF16" => {
            return floats()
                .iter()
                .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
                .collect();
        }
        _ => {}
    }
    // Where the scale and the minimum stand in a block, the standard deviation of a weight whose
    // scale is 1 and whose quants are random, and the minimum that centres it.
    let (scale_at, min_at, gain, min) = match ty.name() {
        "Q4_0" => (0, None, 4.6, 0.0),
        "Q4_1" => (0, Some(2), 4.6, -7.5),
        "Q5_0" => (0, None, 9.2, 0.0),
        "Q5_1" => (0, Some(2), 9.2, -15.5),
        "Q8_0" => (0, None, 74.0, 0.0),
        "Q2_K" => (80, Some(82), 14.0, 1.5),
        "Q3_K" => (108, None, 43.0, 0.0),
        "Q4_K" => (0, Some(2), 250.0, 7.5),
        "Q5_K" => (0, Some(2), 520.0, 15.5),
        "Q6_K" => (208, None, 1370.0, 0.0),
        name => panic!("no random weights of type {name}"),
    };
    let mut bytes: Vec<u8> = (0..n_bytes).map(|_| random.byte()).collect();
    for block in bytes.chunks_exact_mut(usize::try_from(ty.block_bytes()).unwrap()) {
        let scale = deviation / gain * (1.0 + 0.3 * random.symmetric());
        block[scale_at..scale_at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        if let Some(at) = min_at {
            block[at..at + 2].copy_from_slice(&f16::from_f32(scale * min).to_le_bytes());
        }
    }
    bytes
}

/// The character GPT-2's vocabulary spells a byte with.
fn byte_char(byte: u8) -> char {
    let printable =
        |byte: u8| matches!(byte, b'!'..=b'~') || matches!(byte, 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let nth = (0..byte).filter(|other| !printable(*other)).count();
    char::from_u32(256 + u32::try_from(nth).unwrap()).unwrap()
}
