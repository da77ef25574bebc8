//! The messages of an answer: one as JSON, or several as server-sent events.

use reqwest::{Response, header};

use super::lines::Message;
use crate::cli::running::Lines;

/// The messages of one answer.
pub(super) enum Messages {
    /// All of it, not read yet.
    One(Option<Response>),
    Stream(Lines),
}

impl Messages {
    pub(super) fn of(answer: Response) -> Self {
        let kind = answer.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.starts_with("text/event-stream") {
            Self::Stream(Lines::new(answer))
        } else {
            Self::One(Some(answer))
        }
    }

    /// The next one; `None` at the end, also where the connection broke.
    pub(super) async fn next(&mut self) -> Option<Message> {
        match self {
            Self::One(answer) => {
                let bytes = answer.take()?.bytes().await.ok()?;
                Message::read(&bytes).ok()
            }
            Self::Stream(lines) => loop {
                let data = event(lines).await?;
                // An event without data is there to begin the stream.
                if let Ok(message) = Message::read(&data) {
                    return Some(message);
                }
            },
        }
    }
}

/// The data of the next event.
async fn event(lines: &mut Lines) -> Option<Vec<u8>> {
    let mut data: Option<Vec<u8>> = None;
    loop {
        let line = lines.next().await.ok()??;
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if line.is_empty() {
            if let Some(data) = data {
                return Some(data);
            }
        } else if let Some(part) = line.strip_prefix(b"data:") {
            let part = part.strip_prefix(b" ").unwrap_or(part);
            let data = data.get_or_insert_default();
            if !data.is_empty() {
                data.push(b'\n');
            }
            data.extend_from_slice(part);
        }
    }
}
