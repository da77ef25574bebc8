//! How long a prompt is, before anybody has counted its tokens.

use super::{ChatRequest, ContentPart, ResponseFormat};

/// Bytes of text in a token, where nobody counted the tokens.
pub const BYTES_PER_TOKEN: u64 = 4;
/// What roles and separators take, a message: about, and at most.
const PER_MESSAGE: (u64, u64) = (4, 16);
/// What a picture takes: about, and at most.
const PER_IMAGE: (u64, u64) = (1500, 3000);
/// What a tool takes besides its texts, at most.
const PER_TOOL: u64 = 64;

/// A prompt's length. Units: tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromptSize {
    /// About so many.
    pub about: u32,
    /// Certainly no more: one a byte, and what templates add.
    pub at_most: u32,
}

#[derive(Default)]
struct Sum {
    about: u64,
    at_most: u64,
}

impl Sum {
    fn texts<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) {
        let bytes: u64 = texts.into_iter().map(|text| text.len() as u64).sum();
        self.about += bytes.div_ceil(BYTES_PER_TOKEN);
        self.at_most += bytes;
    }

    fn fixed(&mut self, (about, at_most): (u64, u64)) {
        self.about += about;
        self.at_most += at_most;
    }

    fn size(&self) -> PromptSize {
        let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        PromptSize {
            about: count(self.about),
            at_most: count(self.at_most),
        }
    }
}

impl PromptSize {
    /// Of a list of texts and a number of tokens that are counted already.
    pub fn of_texts<'a>(texts: impl IntoIterator<Item = &'a str>, n_tokens: u64) -> Self {
        let mut sum = Sum::default();
        for text in texts {
            sum.fixed(PER_MESSAGE);
            sum.texts([text]);
        }
        sum.fixed((n_tokens, n_tokens));
        sum.size()
    }
}

impl ChatRequest {
    /// How long its prompt is, as far as texts tell.
    pub fn prompt_size(&self) -> PromptSize {
        let mut sum = Sum::default();
        sum.fixed(PER_MESSAGE);
        for message in &self.messages {
            sum.fixed(PER_MESSAGE);
            for part in &message.content {
                match part {
                    ContentPart::Text(text) => sum.texts([text.as_str()]),
                    ContentPart::Image(_) => sum.fixed(PER_IMAGE),
                }
            }
            sum.texts(message.tool_call_id.as_deref());
            for call in &message.tool_calls {
                sum.fixed((0, PER_MESSAGE.1));
                sum.texts([&*call.id, &*call.name, &*call.arguments]);
            }
        }
        for tool in &self.tools {
            let schema = tool.parameters.as_ref().map(ToString::to_string);
            let schema = schema.unwrap_or_default();
            sum.fixed((0, PER_TOOL));
            sum.texts([
                &*tool.name,
                tool.description.as_deref().unwrap_or_default(),
                &*schema,
            ]);
        }
        if let Some(ResponseFormat::JsonSchema(schema)) = &self.response_format {
            sum.texts([&*schema.to_string()]);
        }
        // A prediction, for one, is paid for.
        let extra = self
            .extra
            .values()
            .map(|value| value.to_string().len() as u64);
        sum.at_most += extra.sum::<u64>();
        sum.size()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chat::{Image, Message, Role, Tool, ToolCall};

    fn at_most(request: &ChatRequest) -> u64 {
        request.prompt_size().at_most.into()
    }

    #[test]
    fn a_text_is_a_quarter_of_its_bytes_about_and_no_more_than_all_of_them() {
        let text = "x".repeat(4000);
        let request = ChatRequest::new("m", vec![Message::text(Role::User, text)]);
        let PromptSize { about, at_most } = request.prompt_size();
        assert!((1000..1100).contains(&about), "{about}");
        assert!((4000..4100).contains(&at_most), "{at_most}");
    }

    #[test]
    fn whatever_a_client_makes_long_is_counted() {
        let base = ChatRequest::new("m", vec![Message::text(Role::User, "hi")]);
        let long = "x".repeat(10_000);
        let mut by_text = base.clone();
        by_text.messages.push(Message::text(Role::System, &*long));
        let mut by_id = base.clone();
        by_id.messages[0].tool_call_id = Some(long.clone());
        let mut by_call = base.clone();
        by_call.messages[0].tool_calls.push(ToolCall {
            arguments: long.clone(),
            ..ToolCall::default()
        });
        let mut by_tool = base.clone();
        by_tool.tools.push(Tool {
            name: "t".to_owned(),
            description: None,
            parameters: Some(json!({ "description": long })),
            strict: None,
        });
        let mut by_schema = base.clone();
        by_schema.response_format = Some(ResponseFormat::JsonSchema(json!({ "x": long })));
        let mut by_extra = base.clone();
        let prediction = json!({"type": "content", "content": long});
        by_extra.extra.insert("prediction".to_owned(), prediction);
        for request in [by_text, by_id, by_call, by_tool, by_schema, by_extra] {
            assert!(at_most(&request) >= at_most(&base) + 10_000, "{request:?}");
        }
        let mut by_image = base.clone();
        let image = Image::Url {
            url: "https://example.com/a.png".to_owned(),
            detail: None,
        };
        by_image.messages[0].content.push(ContentPart::Image(image));
        assert!(at_most(&by_image) >= at_most(&base) + PER_IMAGE.1);
    }
}
