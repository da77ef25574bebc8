//! A conversation as Anthropic's models take it: user and assistant by turns, and right behind each turn that calls
//! tools all their results.

use std::collections::BTreeSet;
use std::mem;

use serde_json::{Value, json};

use crate::chat::{ContentPart, Image, Message, Role, ToolCall};

/// What a model is told where a call was never answered.
const NO_RESULT: &str = "no result was given";
/// What a user says where an assistant begins.
const BEGIN: &str = ".";

/// A conversation.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// What stands above it.
    pub(super) system: Vec<String>,
    pub(super) turns: Vec<Turn>,
}

#[derive(Debug)]
pub(super) struct Turn {
    is_users: bool,
    blocks: Vec<Block>,
}

#[derive(Debug)]
enum Block {
    Plain(Value),
    Call {
        id: String,
        name: String,
        input: Value,
    },
    Result {
        id: String,
        content: Value,
        is_error: bool,
    },
}

impl Conversation {
    pub(super) fn of(messages: &[Message]) -> Self {
        let mut conversation = Self::default();
        for message in messages {
            match message.role {
                Role::System => {
                    let text = message.to_text();
                    if !text.is_empty() {
                        conversation.system.push(text);
                    }
                }
                Role::User => conversation.say(true, plain(&message.content)),
                Role::Assistant => {
                    let mut blocks = plain(&message.content);
                    blocks.extend(message.tool_calls.iter().map(call));
                    conversation.say(false, blocks);
                }
                Role::Tool => conversation.say(true, vec![result(message)]),
            }
        }
        conversation.answer_calls();
        conversation.begin_with_user();
        conversation.trim_end();
        conversation
    }

    /// The tools that were called.
    pub(super) fn tools_used(&self) -> BTreeSet<&str> {
        let blocks = self.turns.iter().flat_map(|turn| &turn.blocks);
        let names = blocks.filter_map(|block| match block {
            Block::Call { name, .. } => Some(name.as_str()),
            _ => None,
        });
        names.collect()
    }

    pub(super) fn messages(&self) -> Value {
        let message = |turn: &Turn| {
            let role = if turn.is_users { "user" } else { "assistant" };
            let content: Value = turn.blocks.iter().map(Block::written).collect();
            json!({"role": role, "content": content})
        };
        self.turns.iter().map(message).collect()
    }

    /// Adds to the last turn, or begins another.
    fn say(&mut self, is_users: bool, blocks: Vec<Block>) {
        if blocks.is_empty() {
            return;
        }
        match self.turns.last_mut() {
            Some(last) if last.is_users == is_users => last.blocks.extend(blocks),
            _ => self.turns.push(Turn { is_users, blocks }),
        }
    }

    /// Puts the results first in the turn behind their calls, one for each call, and makes plain text of results
    /// that belong to none.
    fn answer_calls(&mut self) {
        let mut open: Vec<String> = Vec::new();
        let turns = mem::take(&mut self.turns);
        for mut turn in turns {
            if turn.is_users {
                let wanted = mem::take(&mut open);
                turn.blocks = answered(wanted, turn.blocks);
            } else {
                let ids = turn.blocks.iter().filter_map(|block| match block {
                    Block::Call { id, .. } => Some(id.clone()),
                    _ => None,
                });
                open = ids.collect();
            }
            self.turns.push(turn);
        }
        if !open.is_empty() {
            let blocks = answered(open, Vec::new());
            self.turns.push(Turn {
                is_users: true,
                blocks,
            });
        }
    }

    /// The user begins; instructions without a question are one.
    fn begin_with_user(&mut self) {
        let blocks = match self.turns.first() {
            Some(first) if first.is_users => return,
            Some(_) => vec![text(BEGIN)],
            None => mem::take(&mut self.system)
                .iter()
                .map(|said| text(said))
                .collect(),
        };
        if !blocks.is_empty() {
            self.turns.insert(
                0,
                Turn {
                    is_users: true,
                    blocks,
                },
            );
        }
    }

    /// What an answer shall go on from must not end in spaces.
    fn trim_end(&mut self) {
        let Some(last) = self.turns.last_mut().filter(|turn| !turn.is_users) else {
            return;
        };
        if let Some(Block::Plain(block)) = last.blocks.last_mut()
            && let Some(said) = block.get("text").and_then(Value::as_str)
        {
            let trimmed = said.trim_end().to_owned();
            if trimmed.is_empty() {
                last.blocks.pop();
            } else {
                block["text"] = json!(trimmed);
            }
        }
        if last.blocks.is_empty() {
            self.turns.pop();
        }
    }
}

/// A user's turn with exactly one result for each of `wanted`, those first.
fn answered(wanted: Vec<String>, blocks: Vec<Block>) -> Vec<Block> {
    let mut results: Vec<Option<Block>> = wanted.iter().map(|_| None).collect();
    let mut others = Vec::new();
    for block in blocks {
        let place = match &block {
            Block::Result { id, .. } => wanted.iter().position(|wanted| wanted == id),
            _ => None,
        };
        match (place.and_then(|place| results.get_mut(place)), block) {
            (Some(result @ None), block) => *result = Some(block),
            (_, Block::Result { id, content, .. }) => {
                let said = content
                    .as_str()
                    .map_or_else(|| content.to_string(), str::to_owned);
                others.push(text(&format!("Result of the tool call {id}: {said}")));
            }
            (_, block) => others.push(block),
        }
    }
    let placed = wanted.into_iter().zip(results).map(|(id, result)| {
        result.unwrap_or_else(|| Block::Result {
            id,
            content: json!(NO_RESULT),
            is_error: true,
        })
    });
    placed.chain(others).collect()
}

impl Block {
    fn written(&self) -> Value {
        match self {
            Self::Plain(block) => block.clone(),
            Self::Call { id, name, input } => {
                json!({"type": "tool_use", "id": id, "name": name, "input": input})
            }
            Self::Result {
                id,
                content,
                is_error,
            } => {
                let mut result =
                    json!({"type": "tool_result", "tool_use_id": id, "content": content});
                if *is_error {
                    result["is_error"] = json!(true);
                }
                result
            }
        }
    }
}

fn text(said: &str) -> Block {
    Block::Plain(json!({"type": "text", "text": said}))
}

/// Texts that say something, and pictures.
fn plain(parts: &[ContentPart]) -> Vec<Block> {
    let block = |part: &ContentPart| match part {
        ContentPart::Text(said) if said.is_empty() => None,
        ContentPart::Text(said) => Some(text(said)),
        ContentPart::Image(image) => {
            let source = match image {
                Image::Url { url, .. } => json!({"type": "url", "url": url}),
                Image::Data {
                    media_type, base64, ..
                } => {
                    json!({"type": "base64", "media_type": media_type, "data": base64})
                }
            };
            Some(Block::Plain(json!({"type": "image", "source": source})))
        }
    };
    parts.iter().filter_map(block).collect()
}

fn call(call: &ToolCall) -> Block {
    let input = serde_json::from_str(&call.arguments).unwrap_or(Value::Null);
    Block::Call {
        id: id(&call.id),
        name: call.name.clone(),
        input: if input.is_object() { input } else { json!({}) },
    }
}

fn result(message: &Message) -> Block {
    let blocks = plain(&message.content);
    let content = match &*message.content {
        [] => json!(""),
        [ContentPart::Text(said)] => json!(said),
        _ => blocks.iter().map(Block::written).collect(),
    };
    Block::Result {
        id: id(message.tool_call_id.as_deref().unwrap_or_default()),
        content,
        is_error: false,
    }
}

/// A call's id in the letters that are allowed there.
fn id(id: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let id: String = id
        .chars()
        .map(|c| if allowed(c) { c } else { '_' })
        .collect();
    if id.is_empty() { "call".to_owned() } else { id }
}
