//! Tests.
mod fixtures;
mod house_rules;
