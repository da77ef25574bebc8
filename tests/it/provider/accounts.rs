//! Vectors, prices and what an answer took in the end.

use std::time::Duration;

use futures_util::StreamExt;
use ingle::backend::provider::{CallOptions, Provider};
use ingle::backend::{BackendError, BackendErrorKind, ProviderFault};
use ingle::embedding::{EmbedInput, EmbedRequest, Embeddings, Overlong};
use ingle::money::MicroUsd;
use serde_json::json;

use super::{House, ask, hello, permit};
use crate::provider_server::{ProviderServer, Shape};

async fn embed(
    provider: &Provider,
    model: &str,
    inputs: Vec<EmbedInput>,
) -> Result<Embeddings, BackendError> {
    let request = EmbedRequest {
        model: model.to_owned(),
        inputs,
        overlong: Overlong::Refuse,
        dimensions: Some(3),
        keep_alive: None,
    };
    provider
        .embed(model, &request, permit(), &CallOptions::default())
        .await
}

fn texts() -> Vec<EmbedInput> {
    ["a", "b"]
        .map(|text| EmbedInput::Text(text.to_owned()))
        .to_vec()
}

#[tokio::test]
async fn vectors_come_in_the_inputs_order_or_not_at_all() {
    let (server, house) = (ProviderServer::start(), House::new());
    let provider = house.at(&server, Shape::OpenRouter);
    let expected = [vec![0.0, 0.5, -1.0], vec![1.0, 0.5, -1.0]];
    for model in ["e", "fault:reversed"] {
        let made = embed(&provider, model, texts()).await.unwrap();
        assert_eq!(
            (&*made.vectors, made.n_tokens),
            (&expected[..], 5),
            "{model}"
        );
    }
    let sent = server.requests().pop().unwrap();
    assert_eq!(sent.body["input"], json!(["a", "b"]));
    assert_eq!(sent.body["dimensions"], 3);
    assert_eq!(
        sent.body["provider"],
        json!({"data_collection": "deny", "zdr": true})
    );
    for model in ["fault:too-few", "fault:ragged", "fault:words"] {
        let kind = embed(&provider, model, texts()).await.unwrap_err().kind;
        assert_eq!(
            kind,
            BackendErrorKind::Provider(ProviderFault::Garbled),
            "{model}"
        );
    }
    let limited = embed(&provider, "fault:status-429", texts())
        .await
        .unwrap_err();
    let retry_after = Some(Duration::from_secs(2));
    assert_eq!(
        limited.kind,
        BackendErrorKind::Provider(ProviderFault::RateLimited { retry_after })
    );
    let mixed = vec![
        EmbedInput::Text("a".to_owned()),
        EmbedInput::Tokens(vec![1]),
    ];
    let refused = embed(&provider, "e", mixed).await.unwrap_err();
    assert_eq!(
        refused.kind,
        BackendErrorKind::InvalidRequest { param: "input" }
    );
    embed(&provider, "e", vec![EmbedInput::Tokens(vec![1, 2])])
        .await
        .unwrap();
    assert_eq!(
        server.requests().pop().unwrap().body["input"],
        json!([[1, 2]])
    );
    let none = embed(&house.at(&server, Shape::Anthropic), "e", texts()).await;
    assert_eq!(
        none.unwrap_err().kind,
        BackendErrorKind::InvalidRequest { param: "model" }
    );
}

#[tokio::test]
async fn prices_are_exact_and_what_has_none_is_not_free() {
    let (server, house) = (ProviderServer::start(), House::new());
    let offered = house
        .at(&server, Shape::OpenRouter)
        .prices(permit())
        .await
        .unwrap();
    let price = |id: &str| {
        let model = offered.iter().find(|model| model.id == id).unwrap();
        (model.prompt, model.completion)
    };
    assert_eq!(
        price("openai/gpt-4"),
        (Some(MicroUsd(30_000_000)), Some(MicroUsd(60_000_000)))
    );
    assert_eq!(
        price("free/model:free"),
        (Some(MicroUsd::ZERO), Some(MicroUsd::ZERO))
    );
    assert_eq!(price("strange/price"), (None, None));
    assert_eq!(price("no/price"), (None, None));
    let opus = offered
        .iter()
        .find(|model| model.id == "anthropic/claude-3-opus")
        .unwrap();
    assert_eq!(opus.cache_read, Some(MicroUsd(1_500_000)));
    assert_eq!(opus.cache_write, Some(MicroUsd(18_750_000)));
    assert_eq!(
        (opus.n_ctx, opus.max_new_tokens),
        (Some(200_000), Some(4096))
    );
}

#[tokio::test]
async fn what_a_broken_answer_was_billed_can_be_asked_for() {
    let (server, house) = (ProviderServer::start(), House::new());
    let provider = house.at(&server, Shape::OpenRouter);
    let told = ask(&provider, "say:8:125").await.usage();
    assert_eq!(told.cost, Some(MicroUsd(125)));
    let answer = provider
        .chat("fault:cut-after-40", &hello(), permit())
        .await
        .unwrap();
    let about = answer.about;
    let _ = answer.stream.collect::<Vec<_>>().await;
    let id = about.generation().unwrap();
    let settled = provider.generation(&id, permit()).await.unwrap().unwrap();
    let bill = server.bills()[&id];
    assert_eq!(settled.cost, MicroUsd(bill.micro_usd));
    assert_eq!(u64::from(settled.usage.completion_tokens), 40);
    assert!(!bill.was_reported);
    assert_eq!(
        provider
            .generation("gen-unknown?&", permit())
            .await
            .unwrap(),
        None
    );
    let other = house.at(&server, Shape::OpenAi);
    assert_eq!(other.generation(&id, permit()).await.unwrap(), None);
}
