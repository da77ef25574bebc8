//! Stub.
/// x
pub struct ModelFetch;
