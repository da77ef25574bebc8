//! Messages, one a line: read with a bound, written whole.

use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Bytes of one message; the largest that makes sense has a few hundred.
const LINE_MOST: usize = 4 << 20;

/// A message, and the text it came as: that is passed on, to the digit.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) value: Value,
    text: String,
}

impl Message {
    /// Reads one.
    ///
    /// Errors: it is no JSON.
    pub(super) fn read(bytes: &[u8]) -> serde_json::Result<Self> {
        let value: Value = serde_json::from_slice(bytes)?;
        // Only white space can be a line's end there.
        let text = std::str::from_utf8(bytes).ok().map(str::trim);
        let text = text.filter(|text| !text.contains(['\n', '\r']));
        let text = text.map_or_else(|| value.to_string(), ToOwned::to_owned);
        Ok(Self { value, text })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl From<Value> for Message {
    fn from(value: Value) -> Self {
        let text = value.to_string();
        Self { value, text }
    }
}

/// A line of input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Vec<u8>),
    /// More than a message may have; it was read over.
    TooLong,
}

/// Lines of a stream.
pub(super) struct Input<R> {
    reader: BufReader<R>,
}

impl<R: AsyncRead + Unpin> Input<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader: BufReader::new(reader),
        }
    }

    /// The next line that is not blank; `None` at the end. A last one without an end counts.
    ///
    /// Errors: what the operating system says.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<Line>> {
        let (mut line, mut is_too_long) = (Vec::new(), false);
        loop {
            let bytes = self.reader.fill_buf().await?;
            let (part, is_end, n) = match bytes.iter().position(|byte| *byte == b'\n') {
                Some(end) => (&bytes[..end], true, end + 1),
                None => (bytes, bytes.is_empty(), bytes.len()),
            };
            let is_over = bytes.is_empty();
            if line.len() + part.len() > LINE_MOST {
                is_too_long = true;
                line = Vec::new();
            }
            if !is_too_long {
                line.extend_from_slice(part);
            }
            self.reader.consume(n);
            if !is_end {
                continue;
            }
            if is_too_long {
                return Ok(Some(Line::TooLong));
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(Line::Whole(line)));
            }
            if is_over {
                return Ok(None);
            }
            line.clear();
        }
    }
}

/// Where answers are written; many write, a line at a time.
#[derive(Clone)]
pub(super) struct Output {
    writer: Arc<Mutex<dyn AsyncWrite + Send + Unpin>>,
    closed: CancellationToken,
}

impl Output {
    pub(super) fn new(writer: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self {
            writer: Arc::new(Mutex::new(writer)),
            closed: CancellationToken::new(),
        }
    }

    /// Writes a message.
    pub(super) async fn write(&self, message: &Message) {
        let line = format!("{}\n", message.text);
        let mut writer = self.writer.lock().await;
        let written = async {
            writer.write_all(line.as_bytes()).await?;
            writer.flush().await
        };
        if written.await.is_err() {
            self.closed.cancel();
        }
    }

    /// Whether nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_passed_on_to_the_digit_and_on_one_line() {
        for (text, line) in [
            (
                " {\"a\":0.30000000000000004441}\r",
                "{\"a\":0.30000000000000004441}",
            ),
            ("{\"a\":\n1}", "{\"a\":1}"),
        ] {
            assert_eq!(Message::read(text.as_bytes()).unwrap().text(), line);
        }
        assert!(Message::read(b"{").is_err() && Message::read(b"\xff").is_err());
    }

    #[tokio::test]
    async fn lines_are_whole_or_too_long_and_the_next_one_is_read_all_the_same() {
        let long = vec![b'x'; LINE_MOST + 1];
        let text = [b"one\n\n  \r\n", &long[..], b"\ntwo\r\nthree"].concat();
        let mut input = Input::new(&text[..]);
        let mut lines = Vec::new();
        while let Some(line) = input.next().await.unwrap() {
            lines.push(line);
        }
        let whole = |text: &str| Line::Whole(text.as_bytes().to_vec());
        assert_eq!(
            lines,
            [whole("one"), Line::TooLong, whole("two\r"), whole("three")]
        );
    }
}
