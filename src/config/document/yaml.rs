//! YAML as a [`Node`]. Anchors, aliases and tags are refused: settings need none, and aliases of aliases can ask for any
//! amount of memory.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::{Entry, MAX_DEPTH, MAX_NODES, Node, Value};

/// A line and what is wrong there.
type Wrong = (Option<usize>, String);

/// Reads a document.
pub(super) fn read(text: &str) -> Result<Node, Wrong> {
    let mut events = Events {
        parser: Parser::new_from_str(text),
        n_nodes: 0,
    };
    let mut document = None;
    loop {
        match events.next()? {
            (Event::StreamEnd, _) => break,
            (Event::DocumentStart(_), span) => {
                if document.is_some() {
                    return Err((
                        Some(line(span)),
                        "it is a second document: one is enough".into(),
                    ));
                }
                let first = events.next()?;
                document = Some(events.node(first, 0)?);
            }
            _ => {}
        }
    }
    Ok(document.unwrap_or(Node {
        line: None,
        value: Value::Null,
    }))
}

fn line(span: Span) -> usize {
    span.start.line()
}

struct Events<'a> {
    parser: Parser<'a, StrInput<'a>>,
    n_nodes: usize,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Wrong> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err((Some(error.marker().line()), error.info().to_owned())),
            None => Err((None, "it ends too early".to_owned())),
        }
    }

    /// The value that begins with `event`.
    fn node(&mut self, event: (Event<'a>, Span), depth: usize) -> Result<Node, Wrong> {
        let (event, span) = event;
        let line = Some(line(span));
        self.n_nodes += 1;
        if depth > MAX_DEPTH {
            return Err((
                line,
                format!("more than {MAX_DEPTH} tables stand in each other"),
            ));
        }
        if self.n_nodes > MAX_NODES {
            return Err((line, format!("it has more than {MAX_NODES} values")));
        }
        let value = match event {
            Event::Scalar(_, _, 1.., _)
            | Event::SequenceStart(1.., _)
            | Event::MappingStart(1.., _) => {
                return Err((line, "anchors (&) are not read here".to_owned()));
            }
            Event::Alias(_) => return Err((line, "aliases (*) are not read here".to_owned())),
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return Err((line, "tags (!) are not read here".to_owned()));
            }
            Event::Scalar(text, ScalarStyle::Plain, ..) => plain(&text),
            Event::Scalar(text, ..) => Value::Text(text.into_owned()),
            Event::SequenceStart(..) => self.list(depth)?,
            Event::MappingStart(..) => self.table(depth)?,
            _ => return Err((line, "a value is missing".to_owned())),
        };
        Ok(Node { line, value })
    }

    fn list(&mut self, depth: usize) -> Result<Value, Wrong> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(nodes)),
                event => nodes.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn table(&mut self, depth: usize) -> Result<Value, Wrong> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let line = Some(line(span));
            let key = match event {
                Event::MappingEnd => return Ok(Value::Table(entries)),
                Event::Scalar(text, _, 0, None) => text.into_owned(),
                _ => return Err((line, "a key must be a plain text".to_owned())),
            };
            if entries.iter().any(|entry| entry.key == key) {
                return Err((line, format!("{key} stands here a second time")));
            }
            let value = self.next()?;
            let node = self.node(value, depth + 1)?;
            entries.push(Entry { key, line, node });
        }
    }
}

/// What a text without quotes stands for, in YAML's core schema.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let is_number = text
        .trim_start_matches(['+', '-'])
        .starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if !is_number {
        return Value::Text(text.to_owned());
    }
    match (text.parse(), text.parse()) {
        (Ok(whole), _) => Value::Integer(whole),
        (_, Ok(float)) => Value::Float(float),
        _ => Value::Text(text.to_owned()),
    }
}
