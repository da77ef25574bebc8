//! OpenAI's chat completions, as OpenAI, OpenRouter and everybody else speak them.

mod calls;
mod deltas;
mod request;

pub(super) use deltas::Deltas;
pub(super) use request::{body, dropped, sampling, short};
