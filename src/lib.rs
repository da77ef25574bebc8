//! Ingle: a native local LLM engine and the router in front of it.
//!
//! The modules are floors of one house; imports point down only. ARCHITECTURE.md has the map and
//! `tests/it/house_rules.rs` holds the code to it.

pub mod backend;
pub mod caller;
pub mod catalog;
pub mod chat;
pub mod cli;
pub mod config;
pub mod convert;
pub mod egress;
pub mod embedding;
pub mod engine;
pub mod gguf;
pub mod http;
pub mod keep_alive;
pub mod keys;
pub mod limit;
pub mod model;
pub mod money;
pub mod pool;
pub mod price;
pub mod router;
pub mod secret;
pub mod telemetry;
pub mod text;
