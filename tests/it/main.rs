//! Tests.
mod fixtures;
