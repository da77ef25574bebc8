//! Model files: what is in them, and what may not be.

use crate::gguf_file::TinyLlama;

#[test]
fn a_description_makes_the_same_bytes_every_time() {
    for name in [
        "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K",
        "Q5_K", "Q6_K",
    ] {
        assert_eq!(
            TinyLlama::of_type(name).to_bytes(),
            TinyLlama::of_type(name).to_bytes()
        );
    }
}
