//! The arithmetic of Ingle on processors: quantised matrix products, attention over paged KV, norms.
//!
//! Knows slices, shapes and an instruction set, and nothing of tensors, models or requests. Every
//! operation runs on a [`team::Team`] of threads, checks its shapes before it starts, and gives a row
//! the same bits whatever else is in the batch, however many threads there are, and however the work
//! was cut.

pub mod activation;
pub mod attention;
pub mod block;
mod columns;
pub mod cuda;
mod dense;
mod elementary;
pub mod encode;
mod error;
mod half_floats;
pub mod heap;
pub mod isa;
pub mod limits;
pub mod matmul;
mod memory;
pub mod norm;
mod pack;
pub mod quantize;
pub mod rope;
pub mod team;
#[cfg(test)]
mod testing;

pub use attention::{AttentionArgs, KvShape, KvType};
pub use block::WeightType;
pub use columns::Columns;
pub use error::ShapeError;
pub use isa::{Isa, IsaError};
pub use matmul::{Matrix, Out, Output, Part};
pub use rope::RopeTable;
pub use team::{Team, Turn};
