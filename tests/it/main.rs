//! Tests.
#![cfg(test)]

mod backend;
mod fixtures;
mod gguf;
mod gguf_file;
mod pool;
