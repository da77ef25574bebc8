//! Tests.
mod fixtures;
mod gguf;
mod gguf_file;
