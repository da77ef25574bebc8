//! A file of settings as a tree that knows its lines, from TOML, YAML or JSON. What a reader does not know it names,
//! with the nearest right word; it goes on after the first problem and tells all of them.

mod nearest;
mod toml;
mod yaml;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt::Display;
use std::fs::File;
use std::io::Read as _;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

use serde_json::Value as Json;

pub use nearest::nearest;

/// How deep lists and tables may stand in each other.
const MAX_DEPTH: usize = 32;
/// Values of one document at most.
const MAX_NODES: usize = 100_000;
/// Characters of a value that a sentence repeats.
const SHOWN_CHARS: usize = 60;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its line, counted from 1; none in what has no lines.
    pub line: Option<usize>,
    /// The value.
    pub value: Value,
}

/// What can stand in a document.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The line of the key, counted from 1.
    pub line: Option<usize>,
    /// The value.
    pub node: Node,
}

/// Something wrong in a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct Problem {
    /// The path of the key, e.g. `router.strategy`; empty where the whole document is wrong.
    pub key: String,
    /// Where it stands: the key, the file and the line.
    pub place: String,
    /// What is wrong with it: one clause.
    pub problem: String,
}

impl Node {
    /// Reads a TOML document. `file` is what it is called in messages.
    ///
    /// # Errors
    /// A [`Problem`] with the line.
    pub fn from_toml(text: &str, file: &str) -> Result<Self, Problem> {
        toml::read(text).map_err(|(line, problem)| whole(file, line, problem))
    }

    /// Reads a YAML document. `file` is what it is called in messages.
    ///
    /// # Errors
    /// A [`Problem`] with the line.
    pub fn from_yaml(text: &str, file: &str) -> Result<Self, Problem> {
        yaml::read(text).map_err(|(line, problem)| whole(file, line, problem))
    }

    /// A JSON value, which has no lines.
    pub fn from_json(value: &Json) -> Self {
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(whole) => Value::Integer(whole),
                None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(values) => Value::List(values.iter().map(Self::from_json).collect()),
            Json::Object(object) => Value::Table(
                object
                    .iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        line: None,
                        node: Self::from_json(value),
                    })
                    .collect(),
            ),
        };
        Self { line: None, value }
    }

    fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Text(text) => format!("the text {}", quoted(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        }
    }
}

/// The text of a file that is no longer than `max_bytes`.
///
/// # Errors
/// A [`Problem`] with the path.
pub fn read_bounded(path: &Path, max_bytes: u64) -> Result<String, Problem> {
    let file = path.display().to_string();
    let wrong = |problem: String| whole(&file, None, problem);
    let opened = File::open(path).map_err(|error| wrong(format!("it cannot be read: {error}")))?;
    let mut text = String::new();
    let read = opened.take(max_bytes + 1).read_to_string(&mut text);
    read.map_err(|error| wrong(format!("it cannot be read: {error}")))?;
    if text.len() as u64 > max_bytes {
        return Err(wrong(format!("it is longer than {max_bytes} bytes")));
    }
    Ok(text)
}

/// A text in quotes, cut where it is long.
fn quoted(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARS {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(SHOWN_CHARS).collect();
    format!("{start:?}…")
}

fn whole(file: &str, line: Option<usize>, problem: String) -> Problem {
    let place = match line {
        Some(line) => format!("{file}, line {line}"),
        None => file.to_owned(),
    };
    Problem {
        key: String::new(),
        place,
        problem,
    }
}

/// The reading of one document: what is wrong with it is gathered here.
#[derive(Debug)]
pub struct Reading {
    /// What the document is called; empty where the key's path alone says where it is.
    file: String,
    problems: RefCell<Vec<Problem>>,
}

impl Reading {
    /// Begins to read what is called `file`.
    pub fn new(file: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            problems: RefCell::default(),
        }
    }

    /// The document as a table, its keys under `path`.
    pub fn table<'a>(&'a self, node: &'a Node, path: &str) -> Table<'a> {
        let entries = match &node.value {
            Value::Table(entries) => &entries[..],
            // An empty YAML document says nothing.
            Value::Null => &[],
            _ => {
                let problem = format!("it must be a table, not {}", node.describe());
                self.note(path, node.line, problem);
                &[]
            }
        };
        Table {
            reading: self,
            entries,
            path: path.to_owned(),
            line: node.line,
        }
    }

    /// What was read, unless something was wrong.
    ///
    /// # Errors
    /// All that was wrong, in the order of reading; never empty.
    pub fn finish<T>(self, value: T) -> Result<T, Vec<Problem>> {
        let problems = self.problems.into_inner();
        if problems.is_empty() {
            Ok(value)
        } else {
            Err(problems)
        }
    }

    fn note(&self, key: &str, line: Option<usize>, problem: String) {
        let place = match (key.is_empty(), self.file.is_empty()) {
            (false, false) => format!("{key} in {}", self.file),
            (false, true) => key.to_owned(),
            (true, _) => self.file.clone(),
        };
        let place = match line {
            Some(line) => format!("{place}, line {line}"),
            None => place,
        };
        self.problems.borrow_mut().push(Problem {
            key: key.to_owned(),
            place,
            problem,
        });
    }
}

/// A table that is being read. A key that is null counts as absent; a wrong value is noted and counts as absent too.
#[derive(Clone, Debug)]
pub struct Table<'a> {
    reading: &'a Reading,
    entries: &'a [Entry],
    path: String,
    line: Option<usize>,
}

impl<'a> Table<'a> {
    /// Notes the keys that are not in `known`.
    pub fn only(&self, known: &[&str]) {
        self.known(&|key| {
            if known.contains(&key) {
                return Ok(());
            }
            let nearest = nearest(key, known.iter().copied());
            Err(format!("there is no such key{nearest}"))
        });
    }

    /// Notes the keys that `check` refuses, with what it says.
    pub fn known(&self, check: &dyn Fn(&str) -> Result<(), String>) {
        for entry in self.entries {
            if let Err(problem) = check(&entry.key) {
                self.reading
                    .note(&self.key(&entry.key), entry.line, problem);
            }
        }
    }

    /// The entries that say something.
    pub fn entries(&self) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let entries = self.entries.iter();
        entries.filter(|entry| entry.node.value != Value::Null)
    }

    /// The path of a key of this table.
    pub fn key(&self, key: &str) -> String {
        match (self.path.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (_, true) => self.path.clone(),
            _ => format!("{}.{key}", self.path),
        }
    }

    /// Notes that the table itself is wrong.
    pub fn refuse_it(&self, problem: impl Into<String>) {
        self.reading.note(&self.path, self.line, problem.into());
    }

    fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries().find(|entry| entry.key == key)
    }

    /// Whether the key is there and says something.
    pub fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Notes that the value of `key` is wrong.
    pub fn refuse(&self, key: &str, problem: impl Into<String>) {
        let line = self.entry(key).and_then(|entry| entry.node.line);
        self.reading.note(&self.key(key), line, problem.into());
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let entry = self.entry(key)?;
        let value = read(&entry.node.value);
        if value.is_none() {
            let problem = format!("it must be {expected}, not {}", entry.node.describe());
            self.reading.note(&self.key(key), entry.node.line, problem);
        }
        value
    }

    /// A text.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.read(key, "a text", |value| match value {
            Value::Text(text) => Some(&**text),
            _ => None,
        })
    }

    /// A text that stands for something.
    pub fn parsed<T: FromStr<Err: Display>>(&self, key: &str) -> Option<T> {
        match self.text(key)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(key, error.to_string());
                None
            }
        }
    }

    /// True or false.
    pub fn bool(&self, key: &str) -> Option<bool> {
        self.read(key, "true or false", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// A number within `range`.
    pub fn number(&self, key: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let (least, most) = (*range.start(), *range.end());
        let expected = if most.is_finite() {
            format!("a number from {least} to {most}")
        } else {
            format!("a number from {least} on")
        };
        self.read(key, &expected, |value| {
            match value {
                Value::Integer(value) => Some(*value as f64),
                Value::Float(value) => Some(*value),
                _ => None,
            }
            .filter(|value| value.is_finite() && range.contains(value))
        })
    }

    /// A whole number within `range`.
    pub fn whole(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(key, &expected, |value| {
            match value {
                Value::Integer(value) => u64::try_from(*value).ok(),
                _ => None,
            }
            .filter(|value| range.contains(value))
        })
    }

    /// A list of texts, none of them empty.
    pub fn texts(&self, key: &str) -> Option<Vec<String>> {
        self.read(key, "a list of texts", |value| match value {
            Value::List(nodes) => nodes
                .iter()
                .map(|node| match &node.value {
                    Value::Text(text) if !text.trim().is_empty() => Some(text.clone()),
                    _ => None,
                })
                .collect(),
            _ => None,
        })
    }

    /// A list.
    pub fn list(&self, key: &str) -> Option<&'a [Node]> {
        self.read(key, "a list", |value| match value {
            Value::List(nodes) => Some(&nodes[..]),
            _ => None,
        })
    }

    /// A table within this one.
    pub fn table(&self, key: &str) -> Option<Self> {
        let entry = self.entry(key)?;
        Some(self.reading.table(&entry.node, &self.key(key)))
    }

    /// The tables within this one, with their names.
    pub fn tables(&self) -> Vec<(&'a str, Self)> {
        let tables = self.entries().map(|entry| {
            let table = self.reading.table(&entry.node, &self.key(&entry.key));
            (&*entry.key, table)
        });
        tables.collect()
    }
}
