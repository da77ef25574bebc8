//! Real models and vocabularies, laid out by `tests/fixtures.py` (`make fixtures`).

use std::path::PathBuf;

/// The folder the fixtures lie in: `fixtures` beside the build's own folders.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .join("fixtures")
}

/// A fixture by its name, e.g. `SmolLM2-135M-Instruct.Q4_1.gguf`.
pub(crate) fn path(name: &str) -> PathBuf {
    let path = root().join(name);
    assert!(
        path.exists(),
        "{} is missing: run `make fixtures`",
        path.display()
    );
    path
}

/// SmolLM2-135M-Instruct, Q4_1: a real chat model of architecture `llama`.
pub(crate) fn smollm2() -> PathBuf {
    path("SmolLM2-135M-Instruct.Q4_1.gguf")
}
