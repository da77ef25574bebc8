//! The turns of every position, from what the file says of them.

use ingle_kernels::RopeTable;

use super::config::{ModelConfig, Rope};
use super::error::Error;
use super::memory::Limits;

/// The table of all positions a sequence can reach; `factors` are divisors of the frequencies.
///
/// Errors: a factor is not above 0, or there are not as many as pairs.
pub(super) fn rope_table(
    config: &ModelConfig,
    limits: &Limits,
    factors: Option<&[f32]>,
) -> Result<RopeTable, Error> {
    let Rope { base, dim, scale } = config.rope;
    let factors: Vec<f32> = match factors {
        Some(factors) => factors.iter().map(|factor| factor * scale).collect(),
        None => vec![scale; dim / 2],
    };
    if let Some(factor) = factors
        .iter()
        .find(|factor| **factor <= 0.0 || factor.is_nan())
    {
        return Err(Error::Key {
            key: "rope_freqs.weight".to_owned(),
            value: factor.to_string(),
            must_be: "above 0".to_owned(),
        });
    }
    let n_positions = limits.n_positions(config);
    RopeTable::new(config.head_dim, dim, base, Some(&factors), n_positions).map_err(|problem| {
        Error::Matrix {
            name: "rope_freqs.weight".to_owned(),
            problem,
        }
    })
}
