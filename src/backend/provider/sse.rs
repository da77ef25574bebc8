//! Server-sent events out of chunks of bytes, wherever these were cut.

use std::mem;

/// Bytes of an event: what is longer is none.
pub(super) const EVENT_MOST: usize = 1 << 20;

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Its name; empty where it has none.
    pub(super) name: String,
    /// Its lines of data, joined.
    pub(super) data: String,
}

/// Bytes that are no events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoEvent {
    #[error("an event is longer than {} MiB", EVENT_MOST >> 20)]
    TooLong,
    #[error("an event is not in UTF-8")]
    NotUtf8,
}

/// Reads events as bytes come in.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// A line that has not ended.
    line: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
    /// Whether the event has data, perhaps empty.
    has_data: bool,
    /// The last line ended with a carriage return, to which a line feed may belong.
    after_return: bool,
    /// A line was read: no byte-order mark any more.
    has_begun: bool,
}

impl Events {
    /// Takes bytes in and puts the events they end into `found`.
    pub(super) fn push(&mut self, mut bytes: &[u8], found: &mut Vec<Event>) -> Result<(), NoEvent> {
        while let Some((first, rest)) = bytes.split_first() {
            if mem::take(&mut self.after_return) && *first == b'\n' {
                bytes = rest;
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.line.extend_from_slice(bytes);
                return self.check_length();
            };
            self.after_return = bytes[end] == b'\r';
            let line = mem::take(&mut self.line);
            if line.is_empty() {
                self.end_line(&bytes[..end], found)?;
            } else {
                let line = [&line, &bytes[..end]].concat();
                self.end_line(&line, found)?;
            }
            bytes = &bytes[end + 1..];
        }
        Ok(())
    }

    /// The event that the last bytes began, where nothing follows them: some servers leave out the empty line
    /// behind it.
    pub(super) fn end(mut self) -> Option<Event> {
        let line = mem::take(&mut self.line);
        let mut found = Vec::new();
        let lines: [&[u8]; 2] = [&line, b""];
        for line in lines {
            self.end_line(line, &mut found).ok()?;
        }
        found.pop()
    }

    fn end_line(&mut self, line: &[u8], found: &mut Vec<Event>) -> Result<(), NoEvent> {
        let begun = mem::replace(&mut self.has_begun, true);
        let mark: &[u8] = "\u{feff}".as_bytes();
        let line = if begun {
            line
        } else {
            line.strip_prefix(mark).unwrap_or(line)
        };
        if line.is_empty() {
            return self.end_event(found);
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = match colon {
            // A comment.
            Some(0) => return Ok(()),
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            b"event" => self.name = value.to_vec(),
            _ => {}
        }
        self.check_length()
    }

    fn end_event(&mut self, found: &mut Vec<Event>) -> Result<(), NoEvent> {
        let (name, data) = (mem::take(&mut self.name), mem::take(&mut self.data));
        if mem::take(&mut self.has_data) {
            found.push(Event {
                name: String::from_utf8(name).map_err(|_| NoEvent::NotUtf8)?,
                data: String::from_utf8(data).map_err(|_| NoEvent::NotUtf8)?,
            });
        }
        Ok(())
    }

    fn check_length(&self) -> Result<(), NoEvent> {
        let n_bytes = self.line.len() + self.data.len() + self.name.len();
        if n_bytes > EVENT_MOST {
            return Err(NoEvent::TooLong);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(name: &str, data: &str) -> Event {
        Event {
            name: name.to_owned(),
            data: data.to_owned(),
        }
    }

    fn read(chunks: &[&[u8]]) -> Result<Vec<Event>, NoEvent> {
        let (mut events, mut found) = (Events::default(), Vec::new());
        for chunk in chunks {
            events.push(chunk, &mut found)?;
        }
        found.extend(events.end());
        Ok(found)
    }

    const STREAM: &str = "\u{feff}: hello\r\nevent: a\ndata: é1\ndata:2\r\r\n: c\r\ndata\n\nid: 5\nretry: 1\n\n\
         data:  two spaces\r\n\r\nevent: lost\n\ndata: [DONE]";

    fn expected() -> Vec<Event> {
        vec![
            event("a", "é1\n2"),
            event("", ""),
            event("", " two spaces"),
            event("", "[DONE]"),
        ]
    }

    #[test]
    fn a_stream_cut_anywhere_has_the_same_events() {
        let bytes = STREAM.as_bytes();
        assert_eq!(read(&[bytes]).unwrap(), expected());
        for at in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(read(&[head, tail]).unwrap(), expected(), "cut at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&single).unwrap(), expected());
    }

    #[test]
    fn what_is_too_long_or_no_text_is_no_event() {
        let long = vec![b'x'; EVENT_MOST + 1];
        assert_eq!(read(&[b"data: ", &long]), Err(NoEvent::TooLong));
        let lines = "data: 0123456789\n".repeat(EVENT_MOST / 10);
        assert_eq!(read(&[lines.as_bytes()]), Err(NoEvent::TooLong));
        assert_eq!(read(&[b"data: \xff\n\n"]), Err(NoEvent::NotUtf8));
        // Comments without end are no event and take no memory.
        let comment = ": OPENROUTER PROCESSING\n\n".repeat(100_000);
        assert_eq!(read(&[comment.as_bytes()]), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let joined = chunks.concat();
            let whole = read(&[&joined]);
            prop_assert_eq!(read(&chunks).is_ok(), whole.is_ok());
        }
    }
}
