//! The pure decision: what the pool does next. Owns no model, reads no clock, does no I/O.

/// Placeholder until the plan is filled in.
#[derive(Debug)]
pub struct Plan;
