//! Tests.
#![cfg(test)]

mod fixtures;
mod gguf;
mod gguf_file;
