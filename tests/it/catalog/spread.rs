//! Large files over several connections.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use super::server::{Reply, Request, Server, file};
use super::{House, content, fetched, permit, refused, sha256};

/// A connection asks for so much at a time.
const SEGMENT: usize = 1 << 18;
const N_SEGMENTS: usize = 12;

/// A hub with one file, whose GET answers `change` may change.
fn hub(change: impl Fn(&Request, Reply, usize) -> Reply + Send + Sync + 'static) -> Server {
    let bytes = content();
    let tag = sha256(&bytes).to_string();
    Server::start(move |request, n_before| {
        let reply = file(request, &bytes, &tag);
        if request.method == "GET" {
            change(request, reply, n_before)
        } else {
            reply
        }
    })
}

fn asked(server: &Server) -> Vec<Option<(usize, usize)>> {
    let requests = server.requests("GET");
    requests
        .iter()
        .map(|request| request.range(content().len()))
        .collect()
}

#[tokio::test]
async fn each_byte_is_asked_for_once_and_only_of_the_same_file() {
    let server = hub(|_, reply, _| reply);
    let house = House::new(&server.url()).spread();
    fetched(&house.store(), &house.on_hub(), &content()).await;
    let parts: BTreeSet<_> = asked(&server).into_iter().map(Option::unwrap).collect();
    assert_eq!(parts.len(), N_SEGMENTS);
    assert_eq!(server.requests("GET").len(), N_SEGMENTS);
    let ends = parts.iter().map(|(_, end)| *end);
    let starts = parts.iter().map(|(start, _)| *start);
    assert!(ends.eq(starts.skip(1).chain([content().len()])));
    let tag = format!("\"{}\"", sha256(&content()));
    let requests = server.requests("GET");
    let conditions = requests.iter().map(|request| request.header("if-range"));
    let mut expected = vec![Some(tag.as_str()); N_SEGMENTS];
    expected[0] = None;
    assert_eq!(conditions.collect::<Vec<_>>(), expected);
    assert!(!house.home().join("partial/tiny").exists());
}

#[tokio::test]
async fn four_connections_are_faster_where_each_is_slow() {
    let server = hub(|_, reply, _| reply.slowly(5_000_000));
    let mut took = Vec::new();
    for connections in [1, 4] {
        let mut house = House::new(&server.url()).spread();
        house.http.connections = NonZeroUsize::new(connections).unwrap();
        let begun = Instant::now();
        fetched(&house.store(), &house.on_hub(), &content()).await;
        took.push(begun.elapsed());
    }
    assert!(took[0] > took[1].mul_f64(1.5), "{took:?}");
}

#[tokio::test]
async fn a_server_that_gives_no_parts_gives_the_whole_over_one_connection() {
    let without_parts = hub(|_, _, _| Reply {
        status: 200,
        body: content(),
        ..Reply::default()
    });
    let without_tag = hub(|_, mut reply, _| {
        reply.headers.retain(|(name, _)| name != "etag");
        reply
    });
    let weak_tag = hub(|_, mut reply, _| {
        reply.headers.retain(|(name, _)| name != "etag");
        reply.header("etag", "W/\"1\"")
    });
    let other_part = hub(|request, reply, _| match request.range(content().len()) {
        Some((_, end)) if end < content().len() => Reply {
            status: 206,
            body: content()[..10].to_vec(),
            ..Reply::default()
        }
        .header("etag", "\"1\"")
        .header("content-range", format!("bytes 0-9/{}", content().len())),
        _ => reply,
    });
    for server in [without_parts, without_tag, weak_tag, other_part] {
        let house = House::new(&server.url()).spread();
        fetched(&house.store(), &house.on_hub(), &content()).await;
        assert_eq!(server.requests("GET").len(), 2);
        assert_eq!(asked(&server)[1], None);
    }
}

#[tokio::test]
async fn cut_and_silent_connections_cost_only_what_they_did_not_bring() {
    let server = hub(|_, reply, n_before| match n_before {
        1 | 6 => reply.cut_at(100_000),
        3 => reply.stalling_at(50_000),
        4 => Reply::status(503),
        _ => reply,
    });
    let mut house = House::new(&server.url()).spread();
    house.http.stall_timeout = Duration::from_millis(200);
    fetched(&house.store(), &house.on_hub(), &content()).await;
    assert_eq!(server.n_sent(), content().len(), "no byte twice");
    assert_eq!(server.requests("GET").len(), N_SEGMENTS + 4);
}

#[tokio::test]
async fn a_connection_that_is_told_to_wait_waits_and_the_others_go_on() {
    let server = hub(|_, reply, n_before| match n_before {
        2 => Reply::status(429).header("retry-after", 1),
        _ => reply,
    });
    let house = House::new(&server.url()).spread();
    let begun = Instant::now();
    fetched(&house.store(), &house.on_hub(), &content()).await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.requests("GET").len(), N_SEGMENTS + 1);
    // Two of four are sent away for long: the others bring their pieces.
    let server = hub(|_, reply, n_before| match n_before {
        1 | 2 => Reply::status(429).header("retry-after", 3600),
        _ => reply.slowly(20_000_000),
    });
    let house = House::new(&server.url()).spread();
    fetched(&house.store(), &house.on_hub(), &content()).await;
    // All are.
    let server = hub(|_, reply, n_before| match n_before {
        0 => reply,
        _ => Reply::status(429).header("retry-after", 3600),
    });
    let house = House::new(&server.url()).spread();
    let said = refused(&house.store(), &house.on_hub()).await;
    assert!(said.contains("it asks to wait 3600 s"), "{said}");
    house.assert_nothing_visible();
}

#[tokio::test]
async fn parts_of_two_files_are_not_mixed() {
    // It minds If-Range: from the fourth answer on it has another file.
    let bytes = content();
    let expected = sha256(&bytes).to_string();
    let minding = Server::start(move |request, n_before| match request.method.as_str() {
        "HEAD" => file(request, &bytes, &expected),
        _ if n_before < 3 => file(request, &vec![7; bytes.len()], "old"),
        _ => file(request, &bytes, "new"),
    });
    // It does not.
    let bytes = content();
    let expected = sha256(&bytes).to_string();
    let careless = Server::start(move |request, n_before| {
        let mut request = request.clone();
        request.headers.remove("if-range");
        match request.method.as_str() {
            "HEAD" => file(&request, &bytes, &expected),
            _ if n_before < 3 => file(&request, &vec![7; bytes.len()], "old"),
            _ => file(&request, &bytes, "new"),
        }
    });
    for server in [minding, careless] {
        let house = House::new(&server.url()).spread();
        fetched(&house.store(), &house.on_hub(), &content()).await;
    }
}

#[tokio::test]
async fn a_file_of_another_length_is_refused() {
    let server = hub(|_, reply, n_before| match n_before {
        0..3 => reply,
        _ => file(&Request::part(0, SEGMENT), &content()[1..], "x"),
    });
    let house = House::new(&server.url()).spread();
    let said = refused(&house.store(), &house.on_hub()).await;
    assert!(
        said.contains("3000000 bytes long, 3000001 were stated"),
        "{said}"
    );
    house.assert_nothing_visible();
}

/// How many bytes a note says are here.
fn noted(journal: &Path) -> usize {
    let text = fs::read_to_string(journal).unwrap_or_default();
    let note: toml::Table = text.parse().unwrap();
    let spans = note.get("here").and_then(toml::Value::as_array);
    let length = |span: &toml::Value| span[1].as_integer().unwrap() - span[0].as_integer().unwrap();
    let n_bytes: i64 = spans.into_iter().flatten().map(length).sum();
    usize::try_from(n_bytes).unwrap()
}

/// Fetches from a server that falls silent for good once most of the file is here, and gives up.
async fn leave_most(house: &mut House) {
    let server = hub(|_, reply, n_before| match n_before {
        0..9 => reply,
        _ => reply.stalling_at(1000),
    });
    house.hub.endpoint = server.url();
    let (store, manifest, permit) = (house.store(), house.on_hub(), permit());
    let journal = house
        .home()
        .join(format!("partial/tiny/{}.here", sha256(&content())));
    tokio::select! {
        _ = store.fetch(&manifest, &permit, &()) => panic!("the server stalls"),
        () = async {
            while noted(&journal) < 8 * SEGMENT {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } => {}
    }
    house.assert_nothing_visible();
}

#[tokio::test]
async fn a_dropped_fetch_is_gone_on_with_over_any_number_of_connections() {
    for connections in [1, 4] {
        let mut house = House::new("").spread();
        leave_most(&mut house).await;
        let server = hub(|_, reply, _| reply);
        house.hub.endpoint = server.url();
        house.http.connections = NonZeroUsize::new(connections).unwrap();
        fetched(&house.store(), &house.on_hub(), &content()).await;
        assert!(
            server.n_sent() < 4 * SEGMENT,
            "{} bytes again",
            server.n_sent()
        );
    }
}

#[tokio::test]
async fn several_connections_go_on_from_what_one_brought() {
    let server = hub(|_, reply, _| reply);
    let house = House::new(&server.url()).spread();
    let folder = house.home().join("partial/tiny");
    fs::create_dir_all(&folder).unwrap();
    let part = folder.join(format!("{}.part", sha256(&content())));
    fs::write(&part, &content()[..2_000_000]).unwrap();
    fetched(&house.store(), &house.on_hub(), &content()).await;
    assert_eq!(server.n_sent(), 1_000_001);
    // What they left is spoilt: the whole once more.
    house.store().remove("tiny").unwrap();
    fs::create_dir_all(&folder).unwrap();
    fs::write(&part, vec![0; 2_000_000]).unwrap();
    fetched(&house.store(), &house.on_hub(), &content()).await;
    assert_eq!(server.n_sent(), 1_000_001 + 1_000_001 + 3_000_001);
}

#[tokio::test]
async fn a_note_that_lies_is_found_out() {
    let server = hub(|_, reply, _| reply);
    let house = House::new(&server.url()).spread();
    let folder = house.home().join("partial/tiny");
    for note in [
        "total = 3000001\nhere = [[0, 3000001]]\n",
        "total = 3000001\nhere = [[5, 1]]\n",
        "total = 7\nhere = []\n",
        "here = ",
    ] {
        fs::create_dir_all(&folder).unwrap();
        let name = sha256(&content());
        fs::write(folder.join(format!("{name}.pieces")), vec![0; 3_000_001]).unwrap();
        fs::write(folder.join(format!("{name}.here")), note).unwrap();
        fetched(&house.store(), &house.on_hub(), &content()).await;
        house.store().remove("tiny").unwrap();
    }
}
