//! The integration tests, in one binary.
#![cfg(test)]

mod backend;
mod catalog;
mod cli;
mod embedding;
mod engine;
mod fixtures;
mod gguf;
mod gguf_file;
mod house_rules;
mod http;
mod model;
mod money;
mod pool;
mod provider;
mod provider_server;
mod random;
mod router;
mod text;
