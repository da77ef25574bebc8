//! JSON as Python's `json.dumps` writes it, paid for while it is written.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Deeper values are refused: writing them takes stack.
const MAX_DEPTH: usize = 64;

/// Takes the price of so many bytes.
type Pay<'a> = dyn Fn(usize) -> Result<(), Error> + 'a;

/// Writes a value. With `indent`, in lines.
///
/// Errors: it is nested too deeply, a key is no text, or it cannot be paid for.
pub(super) fn write(value: &Value, indent: Option<usize>, pay: &Pay<'_>) -> Result<String, Error> {
    let mut writer = Writer {
        text: String::new(),
        indent,
        pay,
    };
    writer.value(value, 0)?;
    Ok(writer.text)
}

struct Writer<'a> {
    text: String,
    indent: Option<usize>,
    pay: &'a Pay<'a>,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "JSON is nested too deeply",
            ));
        }
        match value.kind() {
            ValueKind::None | ValueKind::Undefined => self.push("null"),
            ValueKind::Bool | ValueKind::Number => {
                // Python's true and false, and a float keeps its point.
                let text = if value.is_integer() || value.kind() == ValueKind::Bool {
                    value.to_string().to_lowercase()
                } else {
                    f64::try_from(value.clone())
                        .map_or_else(|_| value.to_string(), |x| format!("{x:?}"))
                };
                self.push(&text)
            }
            ValueKind::Map => {
                let keys: Vec<Value> = value.try_iter()?.collect();
                self.list(['{', '}'], keys.len(), depth, &mut |writer, idx| {
                    let key = &keys[idx];
                    writer.string(&key.to_string())?;
                    writer.push(": ")?;
                    writer.value(&value.get_item(key)?, depth + 1)
                })
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(['[', ']'], items.len(), depth, &mut |writer, idx| {
                    writer.value(&items[idx], depth + 1)
                })
            }
            _ => match value.as_str() {
                Some(text) => self.string(text),
                None => self.string(&value.to_string()),
            },
        }
    }

    fn list(
        &mut self,
        [open, close]: [char; 2],
        n_items: usize,
        depth: usize,
        item: &mut dyn FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        (self.pay)(n_items)?;
        self.text.push(open);
        for idx in 0..n_items {
            if idx > 0 {
                self.push(if self.indent.is_some() { "," } else { ", " })?;
            }
            self.line(depth + 1)?;
            item(self, idx)?;
        }
        if n_items > 0 {
            self.line(depth)?;
        }
        self.text.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) -> Result<(), Error> {
        let Some(indent) = self.indent else {
            return Ok(());
        };
        let n_spaces = indent.min(64) * depth;
        (self.pay)(n_spaces)?;
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n(' ', n_spaces));
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        // Serialising a text cannot fail.
        self.push(&serde_json::to_string(text).unwrap_or_default())
    }

    fn push(&mut self, text: &str) -> Result<(), Error> {
        (self.pay)(text.len())?;
        self.text.push_str(text);
        Ok(())
    }
}
