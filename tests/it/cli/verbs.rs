//! `ingle list`, `pull`, `rm`, `inspect`, and settings.

use super::{Ground, ended};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_is_listed_and_nothing_leaves_the_machine_offline() {
    let ground = Ground::new();
    let list = ground.run(&["list"]).await;
    assert_eq!(list.code, Some(0), "{list:?}");
    for model in ["smollm2-135m-instruct", "llama-3-8b-instruct"] {
        let starts = |line: &str| line.starts_with(model);
        assert!(
            list.out.lines().any(starts),
            "{model} is not in {}",
            list.out
        );
    }
    let pull = ground.run(&["pull", "smollm2"]).await;
    assert!(pull.sentence().contains("offline"), "{pull:?}");
    let rm = ground.run(&["rm", "smollm2"]).await;
    assert!(rm.sentence().contains("smollm2"), "{rm:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_inspected_for_people_and_for_programs() {
    let ground = Ground::new();
    let shown = ground.run(&["inspect", "tiny.gguf"]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.out.contains("general.architecture") && shown.out.contains("token_embd.weight"));
    let json = ground.run(&["inspect", "tiny.gguf", "--json"]).await;
    let parsed: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(parsed["metadata"]["general.architecture"]["value"], "llama");
    ground.write("cut.gguf", "GGUF");
    let cut = ground.run(&["inspect", "cut.gguf"]).await;
    assert!(cut.sentence().contains("cut.gguf"), "{cut:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_cannot_be_are_named_with_their_place() {
    let ground = Ground::new();
    ground.write("ingle.toml", "thread = 4\n");
    let unknown = ground.run(&["list"]).await;
    let sentence = unknown.sentence();
    assert!(
        sentence.starts_with("thread in ingle.toml, line 1: "),
        "{sentence}"
    );
    ground.write("other.toml", "listen = \"nowhere\"\n");
    let mut command = ground.command(&["list", "--config", "other.toml"]);
    command.env_remove("INGLE_LISTEN");
    let wrong = ended(command).await;
    assert!(
        wrong.sentence().starts_with("listen in other.toml: "),
        "{wrong:?}"
    );
    ground.write("ingle.toml", "");
    let mut command = ground.command(&["list"]);
    command.env("INGLE_THREADS", "many");
    let wrong = ended(command).await;
    assert!(wrong.sentence().starts_with("INGLE_THREADS: "), "{wrong:?}");
    let flag = ground.run(&["list", "--threads", "0"]).await;
    assert_eq!(flag.code, Some(2), "{flag:?}");
    assert!(flag.err.contains("--threads"), "{flag:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_has_help() {
    let ground = Ground::new();
    for verb in [
        "run",
        "serve",
        "pull",
        "list",
        "rm",
        "bundle",
        "import",
        "inspect",
        "perplexity",
        "bench",
        "egress",
    ] {
        let help = ground.run(&[verb, "--help"]).await;
        assert_eq!((help.code, &*help.err), (Some(0), ""), "{verb}");
        assert!(help.out.contains("Usage: ingle"), "{}", help.out);
    }
    let version = ground.run(&["--version"]).await;
    assert_eq!(
        version.out.trim(),
        concat!("ingle ", env!("CARGO_PKG_VERSION"))
    );
}
