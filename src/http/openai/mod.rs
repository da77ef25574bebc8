//! OpenAI's dialect: `/v1/chat/completions`, `/v1/embeddings` and `/v1/models`.

pub(super) mod chat;
pub(super) mod embeddings;
mod message;
pub(super) mod models;
mod request;
mod response;
mod tools;

pub(super) use request::required;
