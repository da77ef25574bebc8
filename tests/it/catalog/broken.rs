//! Fetching when something goes wrong: nothing half-written is ever visible, and what arrived is
//! not asked for again.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use ingle::catalog::{Catalog, FetchEvent, Store};

use super::server::{Reply, Request, Server, file};
use super::{HUB_PATH, Heard, House, ON_HUB, content, fetched, permit, refused, sha256};

const HALF: usize = 1_500_000;

/// A hub with one file, whose GET answers `change` may change.
fn hub(change: impl Fn(Reply, usize) -> Reply + Send + Sync + 'static) -> Server {
    let bytes = content();
    let tag = sha256(&bytes).to_string();
    Server::start(move |request, n_before| {
        let reply = file(request, &bytes, &tag);
        if request.method == "GET" {
            change(reply, n_before)
        } else {
            reply
        }
    })
}

fn range_of(request: &Request) -> Option<&str> {
    request.header("range")
}

#[tokio::test]
async fn a_cut_connection_is_taken_up_where_it_ended() {
    let server = hub(|reply, n_before| match n_before {
        0 => reply.cut_at(HALF),
        1 => reply.cut_at(500_000),
        _ => reply,
    });
    let house = House::new(&server.url());
    let heard = Heard::default();
    let path = house
        .store()
        .fetch(&house.on_hub(), &permit(), &heard)
        .await
        .unwrap();
    super::assert_holds(&path, &content());
    let asked = server.requests("GET");
    let ranges: Vec<_> = asked.iter().map(range_of).collect();
    assert_eq!(
        ranges,
        [None, Some("bytes=1500000-"), Some("bytes=2000000-")]
    );
    let tag = format!("\"{}\"", sha256(&content()));
    assert_eq!(asked[0].header("if-range"), None);
    assert_eq!(asked[1].header("if-range"), Some(&*tag));
    assert_eq!(heard.n_retries(), 2);
}

#[tokio::test]
async fn a_server_that_always_ends_early_leaves_a_part_that_a_later_fetch_goes_on_from() {
    let server = hub(|reply, _| reply.cut_at(0));
    let mut house = House::new(&server.url());
    let said = refused(&house.store(), &house.on_hub()).await;
    assert!(said.contains("broke"), "{said}");
    assert_eq!(
        server.requests("GET").len(),
        4,
        "four tries in a row brought nothing"
    );

    let server = hub(|reply, n_before| reply.cut_at(if n_before == 0 { HALF } else { 0 }));
    house.hub.endpoint = server.url();
    refused(&house.store(), &house.on_hub()).await;
    house.assert_nothing_visible();
    assert_eq!(
        house.partial(),
        [(format!("{}.part", sha256(&content())), 1_500_000)]
    );

    let server = hub(|reply, _| reply);
    house.hub.endpoint = server.url();
    fetched(&house.store(), &house.on_hub(), &content()).await;
    assert_eq!(range_of(&server.requests("GET")[0]), Some("bytes=1500000-"));
    assert_eq!(house.partial(), []);
}

#[tokio::test]
async fn a_server_whose_file_changed_sends_the_whole() {
    let bytes = content();
    let expected = sha256(&bytes).to_string();
    let server = Server::start(move |request, n_before| {
        if request.method == "HEAD" {
            return file(request, &bytes, &expected);
        }
        // The second server behind the hub has another tag for the same bytes.
        let reply = file(request, &bytes, if n_before == 0 { "one" } else { "two" });
        if n_before == 0 {
            reply.cut_at(HALF)
        } else {
            reply
        }
    });
    let house = House::new(&server.url());
    fetched(&house.store(), &house.on_hub(), &content()).await;
    let asked = server.requests("GET");
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].header("if-range"), Some("\"one\""));
}

#[tokio::test]
async fn parts_that_do_not_fit_are_asked_for_anew() {
    let server = hub(|reply, n_before| match n_before {
        0 | 2 => reply.cut_at(HALF),
        1 => Reply::status(416),
        // Another part than was asked for.
        3 => Reply {
            status: 206,
            body: content()[..10].to_vec(),
            ..Reply::default()
        }
        .header("content-range", format!("bytes 0-9/{}", content().len())),
        _ => reply,
    });
    let house = House::new(&server.url());
    fetched(&house.store(), &house.on_hub(), &content()).await;
    let asked = server.requests("GET");
    let ranges: Vec<_> = asked.iter().map(range_of).collect();
    let rest = Some("bytes=1500000-");
    assert_eq!(ranges, [None, rest, None, rest, None]);
}

#[tokio::test]
async fn wrong_bytes_are_thrown_away() {
    let bytes = content();
    let tag = sha256(b"something else").to_string();
    let server = Server::start(move |request, _| file(request, &bytes, &tag));
    for house in [
        House::new(&server.url()),
        House::new(&server.url()).spread(),
    ] {
        assert_wrong_bytes_thrown_away(&house).await;
    }
}

async fn assert_wrong_bytes_thrown_away(house: &House) {
    let said = refused(&house.store(), &house.on_hub()).await;
    assert!(
        said.contains("thrown away") && said.contains(&sha256(&content()).to_string()),
        "{said}"
    );
    house.assert_nothing_visible();
    assert_eq!(house.partial(), []);
    assert!(
        !house.home().join("pins/tiny.toml").exists(),
        "nothing unverified is pinned"
    );
}

#[tokio::test]
async fn a_part_spoilt_on_disk_costs_one_more_download_and_no_more() {
    let server = hub(|reply, _| reply);
    let house = House::new(&server.url());
    let folder = house.home().join("partial/tiny");
    fs::create_dir_all(&folder).unwrap();
    let part = folder.join(format!("{}.part", sha256(&content())));
    fs::write(&part, vec![0; HALF]).unwrap();
    fetched(&house.store(), &house.on_hub(), &content()).await;
    assert_eq!(server.requests("GET").len(), 2);
    // Longer than the file.
    house.store().remove("tiny").unwrap();
    fs::create_dir_all(&folder).unwrap();
    fs::write(&part, vec![0; 4_000_000]).unwrap();
    fetched(&house.store(), &house.on_hub(), &content()).await;
}

#[tokio::test]
async fn every_refusal_says_what_to_do() {
    for (status, with_token, advice) in [
        (401, false, "set HF_TOKEN"),
        (403, false, "accept its terms on "),
        (401, true, "does not take the token in HF_TOKEN"),
        (403, true, "the token in HF_TOKEN may not read"),
        (404, false, "check repo, revision and file"),
        (407, false, "the proxy wants a name and a password"),
        (429, false, "too many requests"),
        (451, false, "for legal reasons"),
        (500, false, "try again later"),
        (503, false, "try again later"),
        (418, false, "check HF_ENDPOINT"),
    ] {
        for method in ["HEAD", "GET", "GET over several connections"] {
            let (method, is_spread) = (
                &method[..method.find(' ').unwrap_or(method.len())],
                method.len() > 4,
            );
            let bytes = content();
            let tag = sha256(&bytes).to_string();
            let refuses = method.to_owned();
            let server = Server::start(move |request, _| {
                if request.method == refuses {
                    Reply::status(status)
                } else {
                    file(request, &bytes, &tag)
                }
            });
            let mut house = House::new(&server.url());
            if with_token {
                house = house.with_token();
            }
            if is_spread {
                house = house.spread();
            }
            let said = refused(&house.store(), &house.on_hub()).await;
            let url = format!("{}{HUB_PATH} answers {status}: ", server.url());
            assert!(said.contains(&url) && said.contains(advice), "{said}");
            assert!(!said.contains("hf_secret"), "{said}");
            let passes = status == 429 || status >= 500;
            assert_eq!(
                server.requests(method).len(),
                if passes { 4 } else { 1 },
                "{status}"
            );
            house.assert_nothing_visible();
        }
    }
}

#[tokio::test]
async fn a_short_wait_that_is_asked_for_is_kept_and_a_long_one_is_not() {
    let server = hub(|reply, n_before| match n_before {
        0 => Reply::status(429).header("retry-after", 1),
        _ => reply,
    });
    let house = House::new(&server.url());
    let begun = Instant::now();
    fetched(&house.store(), &house.on_hub(), &content()).await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let server = hub(|_, _| Reply::status(429).header("retry-after", 3600));
    let house = House::new(&server.url());
    refused(&house.store(), &house.on_hub()).await;
    assert_eq!(server.requests("GET").len(), 1);
}

#[tokio::test]
async fn endless_redirects_and_silent_servers_are_given_up() {
    let server = Server::start(|_, _| Reply::status(302).header("location", HUB_PATH));
    let house = House::new(&server.url());
    let said = refused(&house.store(), &house.on_hub()).await;
    assert!(said.contains("redirects again after 5"), "{said}");

    let server = hub(|reply, _| reply.stalling_at(0));
    for mut house in [
        House::new(&server.url()),
        House::new(&server.url()).spread(),
    ] {
        house.http.stall_timeout = Duration::from_millis(200);
        house.http.tries_most = 2;
        let begun = Instant::now();
        let said = refused(&house.store(), &house.on_hub()).await;
        assert!(said.contains("nothing arrived for"), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        house.assert_nothing_visible();
    }
}

#[tokio::test]
async fn a_file_larger_than_the_disk_is_refused_with_numbers() {
    let size = 1_u64 << 60;
    let server = Server::start(move |request, _| {
        let reply = Reply::status(200).header("content-length", size);
        let tag = sha256(b"large");
        let reply = reply.header("etag", format!("\"{tag}\""));
        if request.method == "GET" {
            reply.stalling_at(0)
        } else {
            reply
        }
    });
    let house = House::new(&server.url());
    let said = refused(&house.store(), &house.on_hub()).await;
    let numbers = format!("{size} more bytes are needed in ");
    assert!(
        said.contains(&numbers) && said.contains(" are free"),
        "{said}"
    );
}

#[tokio::test]
async fn lengths_that_disagree_are_refused() {
    let bytes = content();
    let server = Server::start(move |request, _| match request.method.as_str() {
        "HEAD" => file(request, &bytes, &sha256(&bytes).to_string())
            .header("x-linked-size", bytes.len() - 1),
        _ => file(request, &bytes, "tag"),
    });
    let house = House::new(&server.url());
    let said = refused(&house.store(), &house.on_hub()).await;
    assert!(
        said.contains("3000001 bytes long, 3000000 were stated"),
        "{said}"
    );
    house.assert_nothing_visible();
}

#[tokio::test]
async fn a_dropped_fetch_leaves_a_part_and_frees_the_lock() {
    let server = hub(|reply, _| reply.stalling_at(HALF));
    let mut house = House::new(&server.url());
    let (store, manifest, heard, permit) =
        (house.store(), house.on_hub(), Heard::default(), permit());
    tokio::select! {
        _ = store.fetch(&manifest, &permit, &heard) => panic!("the server stalls"),
        () = async {
            while house.partial().first().is_none_or(|(_, n_bytes)| *n_bytes < 1_500_000) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } => {}
    }
    house.assert_nothing_visible();
    let server = hub(|reply, _| reply);
    house.hub.endpoint = server.url();
    fetched(&house.store(), &manifest, &content()).await;
    assert_eq!(range_of(&server.requests("GET")[0]), Some("bytes=1500000-"));
}

/// The address of a port where nobody listens.
pub(super) fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn an_unreachable_hub_says_so_and_the_next_source_is_tried() {
    let server = hub(|reply, _| reply);
    let mut house = House::new(&nobody());
    // No second hub can be named in one store: the next source is a file that is not there either.
    let manifest = house.manifest(&[ON_HUB, "file.path = 'nowhere.gguf'"]);
    let heard = Heard::default();
    let error = house
        .store()
        .fetch(&manifest, &permit(), &heard)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot reach 127.0.0.1:") && error.contains("is no file"),
        "{error}"
    );
    let failed: Vec<_> = heard
        .all()
        .into_iter()
        .filter_map(|event| match event {
            FetchEvent::Failed {
                source,
                reason,
                next,
            } => Some((source, reason, next)),
            _ => None,
        })
        .collect();
    assert_eq!(failed.len(), 2);
    assert!(
        failed[0].0.starts_with("hub ") && failed[0].1.contains("refused"),
        "{failed:?}"
    );
    assert!(
        failed[0].2.as_ref().unwrap().ends_with("nowhere.gguf"),
        "{failed:?}"
    );
    assert_eq!(failed[1].2, None);
    house.hub.endpoint = server.url();
    fetched(&house.store(), &manifest, &content()).await;
}

#[tokio::test]
async fn a_host_that_takes_no_connection_is_given_up_after_the_connect_timeout() {
    // It takes bytes, but never answers the client's TLS greeting.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut house = House::new(&format!("https://{}", listener.local_addr().unwrap()));
    assert_eq!(house.http.connect_timeout, Duration::from_secs(5));
    house.http.connect_timeout = Duration::from_millis(300);
    let begun = Instant::now();
    let said = refused(&house.store(), &house.on_hub()).await;
    assert!(said.contains("no connection within 0.3 s"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn an_address_that_is_none_is_named() {
    for endpoint in ["huggingface.co", "ftp://h", "http://", "file:///etc"] {
        let house = House::new(endpoint);
        let said = refused(&house.store(), &house.on_hub()).await;
        assert!(
            said.contains("HF_ENDPOINT is") && said.contains(endpoint),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_file_source_is_used_in_place() {
    let house = House::new(&nobody());
    let manifest = house.manifest(&[ON_HUB, "file.path = 'weights/here.gguf'"]);
    let path = house.folder.path().join("catalogue/weights/here.gguf");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "GGUF").unwrap();
    assert_eq!(fetched(&house.store(), &manifest, b"GGUF").await, path);
    assert_eq!(
        fs::read_dir(house.home().join("models")).unwrap().count(),
        0
    );
}

#[test]
fn a_store_opens_in_a_folder_that_is_not_there_and_not_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Store::open(&folder.path().join("a/b")).is_ok());
    fs::write(folder.path().join("file"), "").unwrap();
    let error = Store::open(&folder.path().join("file"))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("creating ") && error.contains("file/models"),
        "{error}"
    );
    assert!(Catalog::load(Some(&folder.path().join("no"))).is_err());
}
