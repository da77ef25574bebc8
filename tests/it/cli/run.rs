//! `ingle run`.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{Ground, PATIENCE, ended, read_all, signal_to, with_input};

/// A greedy answer of twelve tokens.
const SHORT: [&str; 4] = ["--temperature", "0", "--max-tokens", "12"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_is_answered_wherever_it_comes_from() {
    let ground = Ground::new();
    let asked = ground
        .run(&[&["run", "tiny.gguf", "good", "evening"], SHORT.as_slice()].concat())
        .await;
    assert_eq!(asked.code, Some(0), "{asked:?}");
    assert!(asked.out.trim_end().len() > 3, "{asked:?}");
    assert!(asked.out.ends_with('\n'));
    assert_eq!(asked.err, "", "an answer is all it says");
    let command = ground.command(&[&["run", "./tiny.gguf"], SHORT.as_slice()].concat());
    let piped = with_input(command, "good evening\n").await;
    assert_eq!((piped.code, &piped.out), (Some(0), &asked.out), "{piped:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_reach_the_sampler() {
    let ground = Ground::new();
    let run = async |more: &[&str]| {
        let flags = [
            "run",
            "tiny.gguf",
            "hello",
            "--max-tokens",
            "16",
            "--seed",
            "5",
        ];
        let ended = ground.run(&[flags.as_slice(), more].concat()).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.out
    };
    let hot = run(&["--temperature", "1.5", "--top-p", "1"]).await;
    assert_eq!(hot, run(&["--temperature", "1.5", "--top-p", "1"]).await);
    let greedy = run(&["--temperature", "0"]).await;
    assert_ne!(hot, greedy);
    // One token to choose from is greedy at any temperature.
    assert_eq!(greedy, run(&["--temperature", "1.5", "--top-k", "1"]).await);
    assert_ne!(
        greedy,
        run(&["--temperature", "0", "--system", "be brief"]).await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbose_says_what_it_took_on_stderr() {
    let ground = Ground::new();
    let run = [&["run", "tiny.gguf", "hello", "-v"], SHORT.as_slice()].concat();
    let told = ground.run(&run).await;
    let quiet = [&["run", "tiny.gguf", "hello"], SHORT.as_slice()].concat();
    let quiet = ground.run(&quiet).await;
    assert_eq!(told.out, quiet.out);
    for part in [
        "loaded tiny in",
        "first token after",
        "answer: 12 tokens",
        "tokens/s",
    ] {
        assert!(told.err.contains(part), "{part:?} is not in {}", told.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_ingle_is_asked_instead_of_loading_twice() {
    let ground = Ground::new();
    let short = SHORT.as_slice();
    let here = ground
        .run(&[&["run", "tiny.gguf", "hello"], short].concat())
        .await;
    ground.write("keys", "sk-run\n");
    let tiny = ground.path("tiny.gguf");
    let serving = ground
        .serve(&[tiny.to_str().unwrap(), "--api-key-file", "keys"])
        .await;
    // This name means nothing without the server.
    let run = |key: Option<&str>, more: &[&str]| {
        let mut command = ground.command(&[&["run", "tiny", "hello", "-v"], short, more].concat());
        command.env("INGLE_LISTEN", serving.address.to_string());
        if let Some(key) = key {
            command.env("INGLE_API_KEY", key);
        }
        ended(command)
    };
    let there = run(Some("sk-run"), &[]).await;
    assert_eq!((there.code, &there.out), (Some(0), &here.out), "{there:?}");
    assert!(there.err.contains("answer: 12 tokens"), "{}", there.err);
    assert!(!there.err.contains("loaded"), "{}", there.err);
    for alone in [
        run(Some("sk-run"), &["--local"]).await,
        run(Some("wrong"), &[]).await,
    ] {
        assert!(alone.sentence().contains("tiny"), "{alone:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_else_at_the_address_is_not_asked() {
    let ground = Ground::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let other = tokio::spawn(async move {
        let mut n_posts = 0;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let n = stream.read(&mut head).await.unwrap();
            n_posts += usize::from(head[..n].starts_with(b"POST"));
            let body = "{\"id\":\"tiny\",\"object\":\"model\",\"owned_by\":\"library\"}";
            let reply = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(reply.as_bytes()).await.unwrap();
            assert_eq!(n_posts, 0, "no prompt goes to a stranger");
        }
    });
    let mut command = ground.command(&["run", "tiny", "secret"]);
    command.env("INGLE_LISTEN", address.to_string());
    let ended = ended(command).await;
    assert!(ended.sentence().contains("tiny"), "{ended:?}");
    assert!(!other.is_finished());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_run_is_one_sentence() {
    let ground = Ground::new();
    ground.write("notes.gguf", "no model at all");
    let long = "word ".repeat(9000);
    let cases: [(&[&str], &str); 5] = [
        (&["run", "smolm2", "hi"], "smollm2"),
        (&["run", "missing.gguf", "hi"], "missing.gguf"),
        (&["run", "notes.gguf", "hi"], "notes"),
        (&["run", "tiny.gguf", &long], "context size of 8192"),
        (&["run", "smollm2", "hi"], "offline"),
    ];
    for (arguments, part) in cases {
        let ended = ground.run(arguments).await;
        let sentence = ended.sentence();
        assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
        assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
    }
    let empty = with_input(ground.command(&["run", "tiny.gguf"]), "\n").await;
    assert!(empty.sentence().contains("no prompt"), "{empty:?}");
    let usage = ground.run(&["run"]).await;
    assert_eq!(usage.code, Some(2), "{usage:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_read_enough_ends_it_without_a_word() {
    let ground = Ground::new();
    let run = ["run", "tiny.gguf", "hello", "--max-tokens", "8000"];
    let mut child = ground.command(&run).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 3]).await.unwrap();
    drop(out);
    let closed = Instant::now();
    let err = read_all(child.stderr.take().unwrap()).await;
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap();
    assert_eq!((status.unwrap().code(), &*err), (Some(0), ""));
    assert!(
        closed.elapsed() < Duration::from_secs(10),
        "it went on talking"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_ends_the_answer_with_its_own_code() {
    let ground = Ground::new();
    // A penalty that keeps a tiny model from ending its turn is not needed: it has no manners.
    let run = ["run", "tiny.gguf", "hello", "--max-tokens", "8000"];
    let mut command = ground.command(&run);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    // The third byte may be in the middle of a character.
    let mut said = vec![0; 3];
    out.read_exact(&mut said).await.unwrap();
    signal_to(&child, rustix::process::Signal::INT);
    out.read_to_end(&mut said).await.unwrap();
    let said = String::from_utf8(said).unwrap();
    let err = read_all(child.stderr.take().unwrap()).await;
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap();
    assert_eq!((status.unwrap().code(), &*err), (Some(130), ""));
    assert!(said.ends_with('\n'));
}
