//! The chain of fallbacks: who is asked, one after the other.

use crate::config::document::{Node, Table, Value};

/// One of the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct ChainLink {
    /// The provider, or `local`.
    pub provider: String,
    /// The model, as that provider or the table of names calls it.
    pub model: String,
    /// The temperature where a request gives none.
    pub temperature: Option<f32>,
}

/// The chain that holds where none is configured. Links whose provider is not there are passed over.
pub(super) fn shipped() -> Vec<ChainLink> {
    [
        ("openrouter", "auto", 0.7),
        ("openrouter", "gpt-4", 0.7),
        ("openrouter", "claude-3-opus", 0.7),
        ("openai", "gpt-4", 0.7),
        ("anthropic", "claude-3-opus-20240229", 0.7),
        ("local", "llama3-8b", 0.7),
        ("local", "mistral-7b", 0.5),
    ]
    .map(|(provider, model, temperature)| ChainLink {
        provider: provider.to_owned(),
        model: model.to_owned(),
        temperature: Some(temperature),
    })
    .into()
}

/// Reads `fallback_chain`.
pub(super) fn read(table: &Table<'_>) -> Option<Vec<ChainLink>> {
    let links = table.list("fallback_chain")?.iter().map(link);
    let chain: Option<Vec<ChainLink>> = links.collect();
    if chain.is_none() {
        let form = "each of it must be [provider, model] or [provider, model, temperature], as in [\"local\", \"llama3-8b\", 0.7], \
                    the temperature from 0 to 2";
        table.refuse("fallback_chain", form);
    }
    chain
}

fn link(node: &Node) -> Option<ChainLink> {
    let Value::List(parts) = &node.value else {
        return None;
    };
    let text = |node: &Node| match &node.value {
        Value::Text(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        _ => None,
    };
    let (provider, model, temperature) = match &parts[..] {
        [provider, model] => (provider, model, None),
        [provider, model, temperature] => (provider, model, Some(self::temperature(temperature)?)),
        _ => return None,
    };
    Some(ChainLink {
        provider: text(provider)?,
        model: text(model)?,
        temperature,
    })
}

fn temperature(node: &Node) -> Option<f32> {
    let value = match &node.value {
        Value::Integer(0) => 0.0,
        Value::Integer(1) => 1.0,
        Value::Integer(2) => 2.0,
        Value::Float(value) if (0.0..=2.0).contains(value) => *value,
        _ => return None,
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding is what is wanted"
    )]
    Some(value as f32)
}
