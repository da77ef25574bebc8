//! Requests as providers get them, in each dialect's words.

use ingle::backend::BackendErrorKind;
use ingle::backend::provider::{
    App, CallOptions, Dialect, MaxPrice, Provider, ProviderOptions, ProviderPreferences, Retention,
    Secret, Sort,
};
use ingle::chat::{
    ChatRequest, ContentPart, Image, Message, ResponseFormat, Role, Sampling, Tool, ToolCall,
    ToolChoice,
};
use ingle::egress::Privacy;
use ingle::money::MicroUsd;
use serde_json::{Value, json};

use super::{House, KEY, hello, permit, permit_of};
use crate::provider_server::{ProviderServer, Recorded, Shape};

/// What arrives of a request.
pub(super) async fn arrived(
    provider: &Provider,
    server: &ProviderServer,
    request: &ChatRequest,
) -> Recorded {
    arrived_with(
        provider,
        server,
        request,
        Privacy::Any,
        &CallOptions::default(),
    )
    .await
}

async fn arrived_with(
    provider: &Provider,
    server: &ProviderServer,
    request: &ChatRequest,
    privacy: Privacy,
    call: &CallOptions,
) -> Recorded {
    let sent = provider
        .chat_with("acme/model", request, permit_of(privacy), call)
        .await;
    drop(sent.unwrap());
    server.requests().pop().unwrap()
}

fn weather() -> Tool {
    Tool {
        name: "weather".to_owned(),
        description: Some("tells it".to_owned()),
        parameters: Some(json!({"type": "object", "properties": {"city": {"type": "string"}}})),
        strict: Some(true),
    }
}

fn call(id: &str, arguments: &str) -> ToolCall {
    ToolCall {
        id: id.to_owned(),
        name: "weather".to_owned(),
        arguments: arguments.to_owned(),
    }
}

fn result(id: &str, text: &str) -> Message {
    Message {
        tool_call_id: Some(id.to_owned()),
        ..Message::text(Role::Tool, text)
    }
}

/// A request that says everything there is.
fn full() -> ChatRequest {
    let asks = Message {
        tool_calls: vec![
            call("call_1", "{\"city\":\"Paris\"}"),
            call("call_2", "not json"),
        ],
        ..Message::text(Role::Assistant, "let me see")
    };
    let picture = Image::Data {
        media_type: "image/png".to_owned(),
        base64: "AAAA".to_owned(),
        detail: Some("low".to_owned()),
    };
    let linked = Image::Url {
        url: "https://h/a.png".to_owned(),
        detail: None,
    };
    let looks = vec![
        ContentPart::Text("what is this?".to_owned()),
        ContentPart::Image(picture),
        ContentPart::Image(linked),
    ];
    let mut request = ChatRequest::new(
        "m",
        vec![
            Message::text(Role::System, "be brief"),
            Message::of(Role::User, looks),
            asks,
            result("call_2", "rain"),
            result("call_1", "sun"),
            Message::text(Role::User, "so?"),
        ],
    );
    request.sampling = Sampling {
        temperature: Some(1.3),
        top_k: Some(40),
        top_p: 0.9,
        min_p: 0.1,
        repetition_penalty: 1.1,
        presence_penalty: 0.5,
        frequency_penalty: -0.5,
        seed: Some(u64::MAX),
        ignore_eos: true,
        min_tokens: 3,
    };
    request.max_new_tokens = Some(77);
    request.stop = vec!["END".to_owned()];
    request.tools = vec![weather()];
    request.tool_choice = Some(ToolChoice::Tool("weather".to_owned()));
    request.parallel_tool_calls = Some(false);
    let schema = json!({"name": "a", "schema": {"type": "object"}, "strict": true});
    request.response_format = Some(ResponseFormat::JsonSchema(schema));
    let extra = json!({"user": "u1", "reasoning_effort": "minimal", "store": true, "plugins": [{"id": "web"}],
        "provider": {"zdr": false, "data_collection": "allow", "quantizations": ["fp8"]}, "session_id": "s"});
    request.extra = extra.as_object().unwrap().clone();
    request
}

#[tokio::test]
async fn openai_gets_its_own_words() {
    let (server, house) = (ProviderServer::start(), House::new());
    let provider = house.at(&server, Shape::OpenAi);
    let sent = arrived(&provider, &server, &full()).await;
    assert_eq!(
        (&*sent.method, &*sent.path),
        ("POST", "/v1/chat/completions")
    );
    assert_eq!(
        sent.header("authorization"),
        Some(&*format!("Bearer {KEY}"))
    );
    assert_eq!(sent.header("x-ingle-hops"), None);
    let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
    let mut png = image("data:image/png;base64,AAAA");
    png["image_url"]["detail"] = json!("low");
    let function = |id: &str, arguments: &str| {
        json!({"id": id, "type": "function",
        "function": {"name": "weather", "arguments": arguments}})
    };
    let expected = json!({
        "model": "acme/model", "stream": true, "stream_options": {"include_usage": true},
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "what is this?"}, png, image("https://h/a.png")]},
            {"role": "assistant", "content": "let me see", "tool_calls": [
                function("call_1", "{\"city\":\"Paris\"}"), function("call_2", "not json")]},
            {"role": "tool", "content": "rain", "tool_call_id": "call_2"},
            {"role": "tool", "content": "sun", "tool_call_id": "call_1"},
            {"role": "user", "content": "so?"},
        ],
        "max_completion_tokens": 77, "stop": ["END"], "temperature": 1.3, "top_p": 0.9, "presence_penalty": 0.5,
        "frequency_penalty": -0.5, "seed": -1,
        "tools": [{"type": "function", "function": {"name": "weather", "description": "tells it", "strict": true,
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}}, "parallel_tool_calls": false,
        "response_format": {"type": "json_schema",
            "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": true}},
        "user": "u1", "reasoning_effort": "minimal", "store": true,
    });
    assert_eq!(sent.body, expected);
    let dropped = provider.dropped(&full());
    let names = [
        "top_k",
        "min_p",
        "repetition_penalty",
        "ignore_eos",
        "min_tokens",
        "plugins",
        "provider",
        "session_id",
    ];
    assert_eq!(dropped, names);
    // What may not be kept is not stored because a client says so.
    let none = CallOptions::default();
    let sent = arrived_with(&provider, &server, &full(), Privacy::ZdrOnly, &none).await;
    assert_eq!(sent.body.get("store"), None);
}

#[tokio::test]
async fn openrouter_is_told_to_keep_nothing_whatever_a_client_says() {
    let (server, house) = (ProviderServer::start(), House::new());
    let ours = ProviderPreferences {
        max_price: Some(MaxPrice {
            prompt: MicroUsd(3_000_000),
            completion: MicroUsd(15_000_000),
        }),
        ..ProviderPreferences::default()
    };
    let options = ProviderOptions {
        base_url: Some(server.base_url(Shape::OpenRouter)),
        key: Some(Secret::new(KEY)),
        app: Some(App {
            url: "https://ingle.example".to_owned(),
            title: "Ingle".to_owned(),
        }),
        preferences: ours,
        ..ProviderOptions::new("acme", Dialect::OpenRouter)
    };
    let provider = Provider::new(options.clone(), &house.http).unwrap();
    let call = CallOptions {
        preferences: ProviderPreferences {
            sort: Some(Sort::Throughput),
            ..ProviderPreferences::default()
        },
        fallback_models: vec!["other/model".to_owned()],
        ..CallOptions::default()
    };
    let sent = arrived_with(&provider, &server, &full(), Privacy::Any, &call).await;
    assert_eq!(sent.path, "/api/v1/chat/completions");
    assert_eq!(sent.header("http-referer"), Some("https://ingle.example"));
    assert_eq!(sent.header("x-openrouter-title"), Some("Ingle"));
    let provider_object = json!({"data_collection": "deny", "zdr": true, "quantizations": ["fp8"],
        "sort": "throughput", "max_price": {"prompt": 3.0, "completion": 15.0}});
    assert_eq!(sent.body["provider"], provider_object);
    assert_eq!(sent.body["models"], json!(["acme/model", "other/model"]));
    assert_eq!(sent.body["max_tokens"], 77);
    assert_eq!(sent.body["top_k"], 40);
    assert_eq!(sent.body["plugins"], json!([{"id": "web"}]));
    assert_eq!(sent.body.get("store"), None);
    let dropped = provider.dropped(&full());
    assert_eq!(dropped, ["ignore_eos", "min_tokens", "store"]);
    // Nothing is said of a provider: they may keep nothing all the same.
    let sent = arrived(&provider, &server, &hello()).await;
    assert_eq!(sent.body["provider"]["zdr"], true);
    // The operator leaves it to the account; a request of a stricter class does not.
    let loose = ProviderOptions {
        retention: Retention::AsTheAccountSays,
        preferences: ProviderPreferences::default(),
        ..options
    };
    let provider = Provider::new(loose, &house.http).unwrap();
    let sent = arrived(&provider, &server, &hello()).await;
    assert_eq!(sent.body["provider"], json!({}));
    let none = CallOptions::default();
    let sent = arrived_with(&provider, &server, &full(), Privacy::ZdrOnly, &none).await;
    assert_eq!(sent.body["provider"]["data_collection"], "deny");
    let zdr_only = permit_of(Privacy::ZdrOnly);
    let online = provider.chat("a/b:online", &hello(), zdr_only).await;
    let kind = online.unwrap_err().kind;
    assert_eq!(kind, BackendErrorKind::InvalidRequest { param: "model" });
    // Another's search would read the prompt.
    assert_eq!(sent.body.get("plugins"), None);
}

#[tokio::test]
async fn whoever_is_compatible_gets_it_all_and_the_count_of_hops() {
    let (server, house) = (ProviderServer::start(), House::new());
    let base_url = format!("http://{}", server.address());
    let provider = house.provider(Dialect::Compatible, &base_url);
    let call = CallOptions {
        n_hops: 2,
        ..CallOptions::default()
    };
    let sent = arrived_with(&provider, &server, &full(), Privacy::Any, &call).await;
    assert_eq!(sent.path, "/v1/chat/completions");
    assert_eq!(sent.header("x-ingle-hops"), Some("3"));
    for (name, value) in [
        ("max_tokens", json!(77)),
        ("top_k", json!(40)),
        ("min_p", json!(0.1)),
        ("ignore_eos", json!(true)),
        ("min_tokens", json!(3)),
    ] {
        assert_eq!(sent.body[name], value, "{name}");
    }
    assert_eq!(sent.body.get("provider"), None);
    assert_eq!(
        provider.dropped(&full()),
        ["plugins", "provider", "session_id"]
    );
}

#[tokio::test]
async fn anthropic_gets_the_same_in_other_words() {
    let (server, house) = (ProviderServer::start(), House::new());
    let provider = house.at(&server, Shape::Anthropic);
    let sent = arrived(&provider, &server, &full()).await;
    assert_eq!(sent.path, "/v1/messages");
    assert_eq!(sent.header("x-api-key"), Some(KEY));
    assert_eq!(sent.header("authorization"), None);
    assert_eq!(sent.header("anthropic-version"), Some("2023-06-01"));
    let expected = json!({
        "model": "acme/model", "max_tokens": 77, "stream": true,
        "system": [{"type": "text", "text": "be brief"}],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "what is this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://h/a.png"}},
            ]},
            {"role": "assistant", "content": [
                {"type": "text", "text": "let me see"},
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Paris"}},
                {"type": "tool_use", "id": "call_2", "name": "weather", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "sun"},
                {"type": "tool_result", "tool_use_id": "call_2", "content": "rain"},
                {"type": "text", "text": "so?"},
            ]},
        ],
        "stop_sequences": ["END"], "temperature": 1.0, "top_k": 40,
        "tools": [{"name": "weather", "description": "tells it", "strict": true,
            "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}],
        "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": true},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        "metadata": {"user_id": "u1"},
    });
    assert_eq!(sent.body, expected);
    let names = [
        "top_p",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "ignore_eos",
        "min_tokens",
        "plugins",
        "provider",
        "session_id",
        "store",
    ];
    assert_eq!(provider.dropped(&full()), names);
}

#[tokio::test]
async fn conversations_that_anthropic_refuses_are_mended() {
    let (server, house) = (ProviderServer::start(), House::new());
    let provider = house.at(&server, Shape::Anthropic);
    let text = |text: &str| json!({"type": "text", "text": text});
    let asks = |id: &str| Message {
        tool_calls: vec![call(id, "")],
        ..Message::of(Role::Assistant, vec![])
    };
    let uses = |id: &str| json!({"type": "tool_use", "id": id, "name": "weather", "input": {}});
    let missing = |id: &str| {
        json!({"type": "tool_result", "tool_use_id": id, "content": "no result was given",
        "is_error": true})
    };
    let user = |text: &str| Message::text(Role::User, text);
    let cases: [(Vec<Message>, Value); 7] = [
        // A call nobody answered, in the middle and at the end.
        (
            vec![user("a"), asks("c.1"), user("b"), asks("c2")],
            json!([{"role": "user", "content": [text("a")]}, {"role": "assistant", "content": [uses("c_1")]},
                {"role": "user", "content": [missing("c_1"), text("b")]},
                {"role": "assistant", "content": [uses("c2")]}, {"role": "user", "content": [missing("c2")]}]),
        ),
        // Results of no call, and one result too many.
        (
            vec![user("a"), result("x", "r")],
            json!([{"role": "user", "content": [text("a"), text("Result of the tool call x: r")]}]),
        ),
        (
            vec![user("a"), asks("c"), result("c", "1"), result("c", "2")],
            json!([{"role": "user", "content": [text("a")]}, {"role": "assistant", "content": [uses("c")]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "1"},
                    text("Result of the tool call c: 2")]}]),
        ),
        // The same role twice, and texts that say nothing.
        (
            vec![
                user("a"),
                user(""),
                user("b"),
                Message::text(Role::Assistant, "c"),
                Message::text(Role::Assistant, "d \n"),
            ],
            json!([{"role": "user", "content": [text("a"), text("b")]},
                {"role": "assistant", "content": [text("c"), text("d")]}]),
        ),
        // An assistant who begins.
        (
            vec![Message::text(Role::Assistant, "hi"), user("a")],
            json!([{"role": "user", "content": [text(".")]}, {"role": "assistant", "content": [text("hi")]},
                {"role": "user", "content": [text("a")]}]),
        ),
        // Instructions alone are a question.
        (
            vec![Message::text(Role::System, "a")],
            json!([{"role": "user", "content": [text("a")]}]),
        ),
        (
            vec![user("a"), Message::text(Role::Assistant, " \n")],
            json!([{"role": "user", "content": [text("a")]}]),
        ),
    ];
    for (messages, expected) in cases {
        let sent = arrived(&provider, &server, &ChatRequest::new("m", messages)).await;
        assert_eq!(sent.body["messages"], expected);
        let used = expected.to_string().contains("tool_use\"");
        let tools = used.then(|| json!([{"name": "weather", "input_schema": {"type": "object"}}]));
        assert_eq!(sent.body.get("tools"), tools.as_ref());
        assert_eq!(sent.body["max_tokens"], 4096);
    }
    let nothing = ChatRequest::new("m", vec![user("")]);
    let error = provider.chat("m", &nothing, permit()).await.unwrap_err();
    assert_eq!(
        error.kind,
        BackendErrorKind::InvalidRequest { param: "messages" }
    );
}

#[tokio::test]
async fn choices_forms_and_thoughts_in_anthropics_words() {
    let (server, house) = (ProviderServer::start(), House::new());
    let provider = house.at(&server, Shape::Anthropic);
    for (choice, parallel, expected) in [
        (None, None, Value::Null),
        (
            None,
            Some(false),
            json!({"type": "auto", "disable_parallel_tool_use": true}),
        ),
        (Some(ToolChoice::Auto), Some(true), json!({"type": "auto"})),
        (Some(ToolChoice::None), Some(false), json!({"type": "none"})),
        (
            Some(ToolChoice::Required),
            Some(false),
            json!({"type": "any", "disable_parallel_tool_use": true}),
        ),
        (
            Some(ToolChoice::Tool("weather".to_owned())),
            None,
            json!({"type": "tool", "name": "weather"}),
        ),
    ] {
        let mut request = hello();
        request.tools = vec![weather()];
        (request.tool_choice, request.parallel_tool_calls) = (choice, parallel);
        let sent = arrived(&provider, &server, &request).await;
        assert_eq!(sent.body["tool_choice"], expected);
    }
    let mut request = hello();
    request.response_format = Some(ResponseFormat::JsonObject);
    let thinking = json!({"type": "enabled", "budget_tokens": 1024});
    request
        .extra
        .insert("thinking".to_owned(), thinking.clone());
    request.sampling.temperature = Some(0.2);
    let sent = arrived(&provider, &server, &request).await;
    assert!(
        sent.body["system"][0]["text"]
            .as_str()
            .unwrap()
            .contains("JSON")
    );
    assert_eq!(
        (&sent.body["thinking"], sent.body.get("temperature")),
        (&thinking, None)
    );
    assert_eq!(provider.dropped(&request), ["temperature"]);
    request.tools = vec![weather()];
    request.tool_choice = Some(ToolChoice::Required);
    let sent = arrived(&provider, &server, &request).await;
    assert_eq!(sent.body.get("thinking"), None);
    assert_eq!(provider.dropped(&request), ["thinking"]);
}

#[tokio::test]
async fn no_provider_is_asked_for_an_answer_of_no_tokens() {
    let (server, house) = (ProviderServer::start(), House::new());
    for shape in [Shape::OpenAi, Shape::OpenRouter, Shape::Anthropic] {
        let mut request = hello();
        request.max_new_tokens = Some(0);
        let refused = house.at(&server, shape).chat("m", &request, permit()).await;
        assert_eq!(
            refused.unwrap_err().kind,
            BackendErrorKind::InvalidRequest {
                param: "max_tokens"
            }
        );
    }
    assert_eq!(server.n_requests(), 0);
}
