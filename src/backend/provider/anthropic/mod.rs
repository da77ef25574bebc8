//! Anthropic's messages: a request put into its words, and its answers put back into ours.

mod conversation;
mod deltas;
mod request;

pub(super) use deltas::Deltas;
pub(super) use request::{body, dropped};
