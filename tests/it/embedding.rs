//! Vectors of texts: against sentence-transformers, alone and in company, and from hostile folders.

mod hostile;
mod pool;
mod reference;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ingle::model::{Encoder, EncoderFile, unwatched};
use ingle::text::Sentences;
use ingle_kernels::{Isa, Team};
use serde_json::Value;

/// all-MiniLM-L6-v2 as its authors published it.
pub(crate) fn minilm() -> PathBuf {
    let folder = crate::fixtures::path("all-MiniLM-L6-v2/model.safetensors");
    folder.parent().unwrap().to_owned()
}

/// A text and what sentence-transformers make of it.
pub(crate) struct Reference {
    pub(crate) text: String,
    /// Whether its end was cut off.
    pub(crate) is_cut: bool,
    pub(crate) ids: Vec<u32>,
    pub(crate) vector: Vec<f32>,
}

/// Numbers from the base64 of their little-endian bytes.
pub(crate) fn floats(text: &str) -> Vec<f32> {
    let bytes = STANDARD.decode(text).unwrap();
    let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    bytes.chunks_exact(4).map(float).collect()
}

pub(crate) fn references() -> Vec<Reference> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/embedding/minilm.json");
    let all: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let reference = |entry: &Value| Reference {
        text: entry["text"].as_str().unwrap().to_owned(),
        is_cut: entry["is_cut"].as_bool().unwrap(),
        ids: serde_json::from_value(entry["ids"].clone()).unwrap(),
        vector: floats(entry["vector"].as_str().unwrap()),
    };
    all["texts"]
        .as_array()
        .unwrap()
        .iter()
        .map(reference)
        .collect()
}

/// The cosine of the angle between two vectors.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn load(folder: &Path, n_threads: usize) -> Result<(Encoder, Sentences), String> {
    let file = EncoderFile::open(folder).map_err(|error| error.to_string())?;
    let team: Arc<Team> = Team::new(n_threads.try_into().unwrap(), Isa::detect());
    let encoder = Encoder::load(&file, team, &mut unwatched).map_err(|error| error.to_string())?;
    let sentences = Sentences::from_folder(folder).map_err(|error| error.to_string())?;
    Ok((encoder, sentences))
}
