//! TOML as a [`Node`].

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Entry, MAX_DEPTH, Node, Value};

/// A line and what is wrong there.
type Wrong = (Option<usize>, String);

/// Reads a document.
pub(super) fn read(text: &str) -> Result<Node, Wrong> {
    let lines = Lines::of(text);
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map(|span| lines.at(span.start));
        (line, error.message().replace('\n', ", "))
    })?;
    let value = entries(table.get_ref(), &lines, 0)?;
    Ok(Node { line: None, value })
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(breaks.map(|(at, _)| at).collect())
    }

    /// The line of the byte at `offset`, counted from 1.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset) + 1
    }
}

fn entries(table: &DeTable<'_>, lines: &Lines, depth: usize) -> Result<Value, Wrong> {
    let entries = table.iter().map(|(key, value)| {
        let line = Some(lines.at(key.span().start));
        Ok(Entry {
            key: key.get_ref().to_string(),
            line,
            node: node(value, lines, depth + 1)?,
        })
    });
    let mut entries: Vec<Entry> = entries.collect::<Result<_, Wrong>>()?;
    // In the order of the file.
    entries.sort_by_key(|entry| entry.line);
    Ok(Value::Table(entries))
}

fn node(value: &Spanned<DeValue<'_>>, lines: &Lines, depth: usize) -> Result<Node, Wrong> {
    let line = Some(lines.at(value.span().start));
    if depth > MAX_DEPTH {
        return Err((
            line,
            format!("more than {MAX_DEPTH} tables stand in each other"),
        ));
    }
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(whole) => {
            let read = i64::from_str_radix(whole.as_str(), whole.radix());
            Value::Integer(read.map_err(|_| (line, format!("{whole} is too large")))?)
        }
        DeValue::Float(float) => {
            let read = float.as_str().parse();
            Value::Float(read.map_err(|_| (line, format!("{float} is no number")))?)
        }
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(values) => {
            let nodes = values.iter().map(|value| node(value, lines, depth + 1));
            Value::List(nodes.collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => entries(table, lines, depth)?,
    };
    Ok(Node { line, value })
}
