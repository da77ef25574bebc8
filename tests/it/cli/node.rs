//! The verbs that ask a running Ingle about its models.

use serde_json::Value;

use super::{Ground, Serving, ended};
use crate::gguf_file::TinyLlama;

/// Asks the server of `serving`.
async fn ask(ground: &Ground, serving: &Serving, arguments: &[&str]) -> super::Ended {
    let mut command = ground.command(arguments);
    command.env("INGLE_LISTEN", serving.address.to_string());
    ended(command).await
}

fn json(ended: &super::Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_are_loaded_listed_and_unloaded() {
    let ground = Ground::new();
    let serving = ground.serve(&["tiny.gguf"]).await;
    let load = ask(
        &ground,
        &serving,
        &["load", "tiny", "--keep-alive", "1h30m"],
    )
    .await;
    assert_eq!(load.code, Some(0), "{load:?}");
    assert!(load.out.starts_with("tiny is loaded: "), "{load:?}");
    assert!(load.out.ends_with("a context of 8192 tokens\n"), "{load:?}");
    let ps = ask(&ground, &serving, &["ps"]).await;
    let lines: Vec<&str> = ps.out.lines().collect();
    assert!(lines[0].starts_with("MODEL") && lines.len() == 3, "{ps:?}");
    let cells: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!((cells[0], cells[1]), ("tiny", "ready"), "{ps:?}");
    assert!(lines[1].contains("for 1h"), "{ps:?}");
    let listed = json(&ask(&ground, &serving, &["ps", "--json"]).await);
    assert_eq!(listed["models"][0]["state"], "ready");
    assert_eq!(listed["models"].as_array().unwrap().len(), 1);

    let pinned = ask(&ground, &serving, &["load", "tiny", "--pin"]).await;
    assert_eq!(pinned.code, Some(0), "{pinned:?}");
    let ps = ask(&ground, &serving, &["ps"]).await;
    assert!(ps.out.lines().nth(1).unwrap().ends_with("pinned"), "{ps:?}");
    // Both words for it.
    let unload = ask(&ground, &serving, &["stop", "tiny"]).await;
    assert_eq!(unload.out, "tiny is out of memory\n", "{unload:?}");
    let unload = ask(&ground, &serving, &["unload", "tiny"]).await;
    assert_eq!(unload.out, "tiny was not in memory\n", "{unload:?}");
    let info = json(&ask(&ground, &serving, &["info", "tiny", "--json"]).await);
    assert_eq!(
        (&info["id"], &info["state"]),
        (&"tiny".into(), &"absent".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_described_without_a_server() {
    let ground = Ground::new();
    let info = ground.run(&["info", "tiny.gguf"]).await;
    assert_eq!(info.code, Some(0), "{info:?}");
    for part in [
        "tiny",
        "llama",
        "trained on 8192",
        "WORKSPACE",
        "fits",
        "int8",
    ] {
        assert!(info.out.contains(part), "{part}: {info:?}");
    }
    let info = ground.run(&["info", "llama3"]).await;
    assert!(
        info.out.contains("not here: `ingle pull` fetches it"),
        "{info:?}"
    );
    assert!(
        info.out.contains("Meta Llama 3 Community License"),
        "{info:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_asked_is_one_sentence() {
    let ground = Ground::new();
    for verb in [&["ps"][..], &["load", "tiny"], &["unload", "tiny"]] {
        let ended = ground.run(verb).await;
        let sentence = "no Ingle is running at 127.0.0.1:0: start one with `ingle serve`";
        assert_eq!(ended.sentence(), sentence);
    }
    let serving = ground.serve(&["tiny.gguf"]).await;
    for (arguments, part) in [
        (&["load", "tine"][..], "did you mean tiny"),
        (&["load", "../tiny"], "is no name of a model"),
        (&["unload", "nothing"], "there is no model"),
        (&["info", "nothing"], "there is no model"),
        (&["rm", "tiny"], "was named by its path"),
        (&["load", "smollm2"], "offline"),
    ] {
        let ended = ask(&ground, &serving, arguments).await;
        assert!(ended.sentence().contains(part), "{arguments:?}: {ended:?}");
    }
    let wrong = ask(&ground, &serving, &["load", "tiny", "--keep-alive", "soon"]).await;
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.err.contains("\"soon\" is no time"), "{wrong:?}");
}

/// What the server has in memory. Units: bytes.
#[cfg(target_os = "linux")]
fn resident_bytes(serving: &Serving) -> u64 {
    let id = serving.child.id().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_of_models_that_left_is_the_systems_again() {
    let ground = Ground::new();
    // 17 MB of cache a layer: as large as a heap likes to keep.
    let long = TinyLlama {
        context_length: 65_536,
        ..TinyLlama::default()
    };
    long.write(&ground.path("long.gguf"));
    let mut command = ground.command(&["serve", "long.gguf", "tiny.gguf"]);
    command
        .env("INGLE_PREALLOCATE", "true")
        .env("INGLE_CTX", "65536");
    let serving = super::serving(command).await;
    let mut left = Vec::new();
    for _ in 0..4 {
        // What comes last lies above in the heap, and stays there.
        for model in ["long", "tiny"] {
            let load = ask(&ground, &serving, &["load", model]).await;
            assert_eq!(load.code, Some(0), "{load:?}");
        }
        let held = resident_bytes(&serving);
        let unload = ask(&ground, &serving, &["unload", "long"]).await;
        assert_eq!(unload.code, Some(0), "{unload:?}");
        left.push(resident_bytes(&serving));
        assert!(held > left[0] + (30 << 20), "the cache was not there");
        let unload = ask(&ground, &serving, &["unload", "tiny"]).await;
        assert_eq!(unload.code, Some(0), "{unload:?}");
    }
    let more = left[3].saturating_sub(left[0]);
    assert!(more < 8 << 20, "{left:?}");
}
