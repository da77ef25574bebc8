//! all-MiniLM-L6-v2 against the vectors that sentence-transformers made of the same texts.

use ingle::model::{Pooling, Readout, Shorter};

use super::{cosine, load, minilm, references};

/// The least a cosine with a reference may be.
const COSINE_LEAST: f64 = 0.9999;
/// How far a number of a vector may move with what is computed beside it.
const APART_MOST: f32 = 1e-5;

#[test]
fn every_text_has_the_tokens_and_the_vector_of_sentence_transformers() {
    let (encoder, sentences) = load(&minilm(), 2).unwrap();
    assert_eq!(sentences.max_tokens(), Some(256));
    let config = encoder.config();
    let readout = Readout {
        pooling: Pooling::Mean,
        is_normalised: true,
    };
    assert_eq!(
        (config.readout, config.readout_source),
        (readout, "modules.json")
    );
    assert_eq!(config.shorter, Shorter::Never);
    let references = references();
    assert!(references.len() > 30);
    for reference in &references {
        let text = &reference.text;
        let mut tokens = sentences.encode(text).unwrap();
        assert_eq!(tokens.ids.len() > 256, reference.is_cut, "{text:?}");
        tokens.truncate(256);
        assert_eq!(tokens.ids, reference.ids, "{text:?}");
        let vectors = encoder.encode(&[&tokens.ids]).unwrap();
        let near = cosine(&vectors[0], &reference.vector);
        assert!(near >= COSINE_LEAST, "{text:?}: {near}");
    }
}

#[test]
fn a_text_has_one_vector_alone_in_company_and_on_any_number_of_threads() {
    let references = references();
    let (alone, _) = load(&minilm(), 1).unwrap();
    let alone: Vec<Vec<f32>> = references
        .iter()
        .map(|reference| alone.encode(&[&reference.ids]).unwrap().remove(0))
        .collect();
    let (encoder, _) = load(&minilm(), 3).unwrap();
    // Short ones padded to long ones, in three mixes.
    for n_apart in [1, 5, 12] {
        for first in 0..n_apart {
            let places: Vec<usize> = (first..references.len()).step_by(n_apart).take(9).collect();
            let inputs: Vec<&[u32]> = places
                .iter()
                .map(|place| &*references[*place].ids)
                .collect();
            let vectors = encoder.encode(&inputs).unwrap();
            for (vector, place) in vectors.iter().zip(places) {
                let apart = vector.iter().zip(&alone[place]).map(|(a, b)| (a - b).abs());
                let apart = apart.fold(0.0, f32::max);
                assert!(apart < APART_MOST, "{:?}: {apart}", references[place].text);
                let near = cosine(vector, &references[place].vector);
                assert!(near >= COSINE_LEAST, "{:?}: {near}", references[place].text);
            }
        }
    }
}

#[test]
fn inputs_that_cannot_be_are_errors() {
    let (encoder, _) = load(&minilm(), 1).unwrap();
    let error = |inputs: &[&[u32]]| encoder.encode(inputs).unwrap_err().to_string();
    assert_eq!(
        error(&[]),
        "the number of inputs is 0: it must be at least 1"
    );
    let empty = "the length of an input is 0: it must be between 1 and 512";
    assert_eq!(error(&[&[101, 102], &[]]), empty);
    let long = "the length of an input is 513: it must be between 1 and 512";
    assert_eq!(error(&[&[7; 513]]), long);
    assert_eq!(
        error(&[&[101, 30522]]),
        "a token is 30522: it must be below 30522"
    );
    assert!(encoder.encode(&[&[7; 512]]).is_ok());
}
