//! Calls of tools, put in order: some providers number them, some only name them, some do both late.

use serde_json::Value;
use uuid::Uuid;

use crate::backend::provider::fault::Fault;
use crate::chat::ToolCallDelta;

/// Calls an answer may hold.
const CALLS_MOST: usize = 128;

/// The calls of one answer.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<Call>);

#[derive(Debug)]
struct Call {
    /// The provider's number, if it has one.
    number: Option<u64>,
    id: String,
    name: String,
    /// Arguments that came before the name.
    held: String,
    has_begun: bool,
}

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a piece of a call; absent: it says nothing new yet.
    pub(super) fn piece(&mut self, piece: &Value) -> Result<Option<ToolCallDelta>, Fault> {
        let text = |place: &str| {
            piece
                .pointer(place)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (id, name) = (text("/id"), text("/function/name"));
        let arguments = match piece.pointer("/function/arguments") {
            Some(Value::String(text)) => text.clone(),
            // Some do not write them as text.
            Some(object @ Value::Object(_)) => object.to_string(),
            _ => String::new(),
        };
        let index = self.index_of(piece.get("index").and_then(Value::as_u64), id, name)?;
        let Some(call) = self.0.get_mut(index) else {
            return Ok(None);
        };
        if call.id.is_empty() {
            id.clone_into(&mut call.id);
        }
        if call.has_begun {
            let says = !arguments.is_empty();
            return Ok(says.then(|| delta(index, arguments)));
        }
        call.name.push_str(name);
        call.held.push_str(&arguments);
        if call.name.is_empty() {
            return Ok(None);
        }
        call.has_begun = true;
        if call.id.is_empty() {
            call.id = format!("call_{}", Uuid::new_v4().simple());
        }
        Ok(Some(ToolCallDelta {
            id: Some(call.id.clone()),
            name: Some(call.name.clone()),
            ..delta(index, std::mem::take(&mut call.held))
        }))
    }

    /// No piece follows.
    ///
    /// Errors: a call of no tool.
    pub(super) fn end(&self) -> Result<(), Fault> {
        let nameless = self.0.iter().any(|call| !call.has_begun);
        if nameless {
            return Err(Fault::garbled("it calls a tool without a name"));
        }
        Ok(())
    }

    /// The call that a piece belongs to.
    fn index_of(&mut self, number: Option<u64>, id: &str, name: &str) -> Result<usize, Fault> {
        let belongs = |call: &Call| match number {
            // The same number under another id is another call: not everybody counts.
            Some(_) => {
                call.number == number && (id.is_empty() || call.id.is_empty() || call.id == id)
            }
            None => !id.is_empty() && call.id == id,
        };
        if let Some(index) = self.0.iter().rposition(belongs) {
            return Ok(index);
        }
        let goes_on = number.is_none() && id.is_empty() && name.is_empty();
        if let (true, Some(last)) = (goes_on, self.0.len().checked_sub(1)) {
            return Ok(last);
        }
        if self.0.len() >= CALLS_MOST {
            return Err(Fault::garbled(format!(
                "it calls more than {CALLS_MOST} tools"
            )));
        }
        self.0.push(Call {
            number,
            id: id.to_owned(),
            name: String::new(),
            held: String::new(),
            has_begun: false,
        });
        Ok(self.0.len() - 1)
    }
}

fn delta(index: usize, arguments: String) -> ToolCallDelta {
    ToolCallDelta {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        arguments,
        ..ToolCallDelta::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chat::{ChatDelta, Said, ToolCall};

    fn put_together(pieces: &[Value]) -> Vec<ToolCall> {
        let (mut calls, mut said) = (Calls::default(), Said::default());
        for piece in pieces {
            if let Some(delta) = calls.piece(piece).unwrap() {
                said.push(ChatDelta::ToolCall(delta));
            }
        }
        calls.end().unwrap();
        said.tool_calls
    }

    fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
        ToolCall {
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        }
    }

    #[test]
    fn calls_are_told_apart_however_they_are_numbered() {
        let two = [call("a", "f", "{\"x\":1}"), call("b", "g", "{}")];
        let numbered = [
            json!({"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}),
            json!({"index": 0, "function": {"arguments": "{\"x\""}}),
            json!({"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}),
            json!({"index": 0, "function": {"arguments": ":1}"}}),
        ];
        assert_eq!(put_together(&numbered), two);
        let all_nought = [
            json!({"index": 0, "id": "a", "function": {"name": "f", "arguments": "{\"x\":1}"}}),
            json!({"index": 0, "id": "b", "function": {"name": "g", "arguments": "{}"}}),
        ];
        assert_eq!(put_together(&all_nought), two);
        let unnumbered = [
            json!({"id": "a", "function": {"name": "f", "arguments": "{\"x\""}}),
            json!({"function": {"arguments": ":1}"}}),
            json!({"id": "b", "function": {"name": "g", "arguments": {}}}),
        ];
        assert_eq!(put_together(&unnumbered), two);
    }

    #[test]
    fn arguments_that_come_before_the_name_are_kept() {
        let late = [
            json!({"index": 0, "function": {"arguments": "{\"x\""}}),
            json!({"index": 0, "id": "a", "function": {"name": "f", "arguments": ":1}"}}),
        ];
        assert_eq!(put_together(&late), [call("a", "f", "{\"x\":1}")]);
        let nameless = json!({"index": 0, "function": {"name": "f", "arguments": "{}"}});
        assert!(put_together(&[nameless])[0].id.starts_with("call_"));
    }

    #[test]
    fn strange_calls_are_faults_not_memory() {
        let mut calls = Calls::default();
        calls.piece(&json!({"index": 7})).unwrap();
        assert!(calls.end().is_err());
        let many = (0..200).map(|i| calls.piece(&json!({"index": i, "function": {"name": "f"}})));
        assert!(many.collect::<Result<Vec<_>, _>>().is_err());
        for strange in [json!(null), json!(5), json!({"index": -1, "function": []})] {
            let _ = Calls::default().piece(&strange);
        }
    }
}
