//! Answers that another began.

use ingle::backend::provider::Dialect;
use ingle::chat::{Message, Role};
use serde_json::json;

use super::requests::arrived;
use super::{House, hello};
use crate::provider_server::{ProviderServer, Shape};

#[tokio::test]
async fn who_is_to_go_on_with_an_answer_is_told_so_in_its_own_words() {
    let (server, house) = (ProviderServer::start(), House::new());
    let mut begun = hello();
    let said = Message::text(Role::Assistant, "Once upon");
    begun.messages.push(said);
    begun.continue_final = true;
    for (dialect, shape, is_told) in [
        (Dialect::Compatible, Shape::OpenAi, true),
        // It goes on with an assistant's last message by itself, and knows no such field.
        (Dialect::OpenRouter, Shape::OpenRouter, false),
    ] {
        let provider = house.provider(dialect, &server.base_url(shape));
        let sent = arrived(&provider, &server, &begun).await;
        let told = sent.body.get("continue_final_message");
        assert_eq!(told.is_some(), is_told, "{dialect:?}");
        assert_eq!(sent.body["messages"][1]["content"], "Once upon");
        if is_told {
            assert_eq!(told, Some(&json!(true)));
            assert_eq!(sent.body["add_generation_prompt"], false);
        }
    }
}
