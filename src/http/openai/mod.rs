//! OpenAI's dialect: `/v1/chat/completions` and `/v1/models`.

pub(super) mod chat;
pub(super) mod models;
mod request;
mod response;
