//! `ingle embed`.

use serde_json::{Value, json};

use super::{Ground, with_input};
use crate::embedding::{cosine, minilm, references};

fn vectors(out: &str) -> Vec<Vec<f32>> {
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_are_one_vector_a_line_from_arguments_pipes_and_a_running_ingle() {
    let ground = Ground::new();
    let folder = minilm();
    let folder = folder.to_str().unwrap();
    let references = references();
    let references: Vec<_> = references[7..10].iter().collect();
    let texts: Vec<&str> = references.iter().map(|one| &*one.text).collect();
    let named = ground
        .run(&[&["embed", folder], texts.as_slice()].concat())
        .await;
    assert_eq!((named.code, &*named.err), (Some(0), ""), "{named:?}");
    for (vector, reference) in vectors(&named.out).iter().zip(&references) {
        assert!(cosine(vector, &reference.vector) >= 0.9999);
    }
    let piped = with_input(
        ground.command(&["embed", folder, "--json"]),
        &texts.join("\n"),
    )
    .await;
    assert_eq!(piped.code, Some(0), "{piped:?}");
    let lines: Vec<Value> = piped
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2]["text"], json!(texts[2]));
    let shown: Vec<f32> = serde_json::from_value(lines[2]["embedding"].clone()).unwrap();
    assert_eq!(shown, vectors(&named.out)[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_ingle_is_asked_and_what_cannot_be_is_told() {
    let ground = Ground::new();
    let serving = ground.serve(&["tiny.gguf"]).await;
    serving.until_ready().await;
    let listen = serving.address.to_string();
    let here = ground.run(&["embed", "tiny.gguf", "good evening"]).await;
    let mut command = ground.command(&["embed", "tiny", "good evening"]);
    command.env("INGLE_LISTEN", &listen);
    let there = with_input(command, "").await;
    assert_eq!((there.code, &there.out), (Some(0), &here.out), "{there:?}");
    for (arguments, expected) in [
        (&["embed", "tiny.gguf", "a", ""][..], "text 2 is empty"),
        (
            &["embed", "tiny.gguf", "a", "--dimensions", "3"],
            "dimensions is 3",
        ),
        (&["embed", "nowhere", "a"], "nowhere"),
    ] {
        let refused = ground.run(arguments).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.contains(expected), "{refused:?}");
    }
}
