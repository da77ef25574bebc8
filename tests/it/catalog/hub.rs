//! Fetching from a hub that behaves.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use ingle::catalog::{Error, FetchEvent};

use super::server::{Reply, Request, Server, file};
use super::{HUB_PATH, Heard, House, ON_HUB, content, fetched, permit, refused, sha256};

/// A hub with one file, whose tag is its checksum.
fn good_hub() -> Server {
    let bytes = content();
    let tag = sha256(&bytes).to_string();
    Server::start(move |request, _| file(request, &bytes, &tag))
}

/// A hub's answer that names the file's checksum, and another place to get it.
fn linked(bytes: &[u8], location: &str) -> Reply {
    Reply::status(302)
        .header("location", location)
        .header("x-linked-etag", format!("\"{}\"", sha256(bytes)))
        .header("x-linked-size", bytes.len())
        .header("x-repo-commit", "0123abc")
}

#[tokio::test]
async fn a_fetched_model_is_here_pinned_and_not_fetched_again() {
    let server = good_hub();
    let house = House::new(&server.url());
    let (store, manifest) = (house.store(), house.on_hub());
    assert_eq!(store.installed(&manifest), None);
    let heard = Heard::default();
    let path = store.fetch(&manifest, &permit(), &heard).await.unwrap();
    super::assert_holds(&path, &content());
    assert_eq!(path, house.home().join("models/tiny/tiny.gguf"));
    assert_eq!(server.requests("GET")[0].path, HUB_PATH);

    let source = "hub some/model@main/sub/tiny.gguf".to_owned();
    let length = u64::try_from(content().len()).unwrap();
    let events = heard.all();
    let started = FetchEvent::Started {
        source: source.clone(),
        total: None,
    };
    assert_eq!(events[0], started);
    assert_eq!(
        events[events.len() - 2..],
        [FetchEvent::Verifying, FetchEvent::Done]
    );
    let whole = FetchEvent::Bytes {
        done: length,
        total: Some(length),
    };
    assert!(events.contains(&whole), "{events:?}");

    let models = store.installed_models().unwrap();
    assert_eq!(models.len(), 1);
    assert_eq!(
        (models[0].files[0].sha256, &models[0].source),
        (sha256(&content()), &source)
    );
    assert_eq!(store.verify("tiny").unwrap(), models[0]);
    let pins = fs::read_to_string(house.home().join("pins/tiny.toml")).unwrap();
    assert!(
        pins.contains(&sha256(&content()).to_string()) && pins.contains(&source),
        "{pins}"
    );
    assert_eq!(house.partial(), []);

    fetched(&store, &manifest, &content()).await;
    assert_eq!(server.requests("GET").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_fetches_at_once_make_one_download() {
    let server = good_hub();
    let house = Arc::new(House::new(&server.url()));
    let manifest = house.on_hub();
    let fetches = (0..8).map(|_| {
        // A store of its own, as another process would have.
        let (store, manifest) = (house.store(), manifest.clone());
        tokio::spawn(async move { fetched(&store, &manifest, &content()).await })
    });
    for fetch in fetches.collect::<Vec<_>>() {
        fetch.await.unwrap();
    }
    assert_eq!(server.requests("GET").len(), 1);
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_nowhere_else() {
    let bytes = content();
    let store_bytes = bytes.clone();
    let files = Server::start(move |request, _| file(request, &store_bytes, "not-a-checksum"));
    let elsewhere = format!("{}/blob?X-Signature=secret", files.other_url());
    let hub = Server::start(move |request: &Request, _| match request.path.as_str() {
        // A renamed repository: the hub redirects to itself first.
        HUB_PATH => Reply::status(307).header("location", "/new/name"),
        _ => linked(&bytes, &elsewhere),
    });
    let house = House::new(&hub.url()).with_token();
    fetched(&house.store(), &house.on_hub(), &content()).await;
    for method in ["HEAD", "GET"] {
        let at_hub = hub.requests(method);
        assert_eq!(at_hub.len(), 2);
        for request in at_hub {
            assert_eq!(request.header("authorization"), Some("Bearer hf_secret"));
        }
    }
    assert_eq!(files.requests("HEAD").len(), 0);
    assert_eq!(files.requests("GET").len(), 1);
    assert_eq!(files.requests("GET")[0].header("authorization"), None);
    let receipt = fs::read_to_string(house.home().join("models/tiny/receipt.toml")).unwrap();
    assert!(
        receipt.contains("0123abc") && !receipt.contains("secret"),
        "{receipt}"
    );
}

#[tokio::test]
async fn a_changed_file_is_refused_until_its_pin_is_deleted() {
    let first = good_hub();
    let mut house = House::new(&first.url());
    let manifest = house.on_hub();
    fetched(&house.store(), &manifest, &content()).await;
    assert_eq!(house.store().remove("tiny").unwrap() / 1000, 3000);
    let changed = b"another model".to_vec();
    let tag = sha256(&changed).to_string();
    let bytes = changed.clone();
    let second = Server::start(move |request, _| file(request, &bytes, &tag));
    house.hub.endpoint = second.url();
    let said = refused(&house.store(), &manifest).await;
    let pins = house.home().join("pins/tiny.toml");
    assert!(
        said.contains("is pinned") && said.contains(&pins.display().to_string()),
        "{said}"
    );
    assert_eq!(
        second.requests("GET").len(),
        0,
        "nothing is downloaded in vain"
    );
    house.assert_nothing_visible();
    fs::remove_file(pins).unwrap();
    fetched(&house.store(), &manifest, &changed).await;
}

#[tokio::test]
async fn the_manifests_checksum_is_the_last_word() {
    let bytes = content();
    // A plain mirror: it knows no checksum.
    let server = Server::start(move |request, _| file(request, &bytes, "1234"));
    let house = House::new(&server.url());
    let said = refused(&house.store(), &house.on_hub()).await;
    assert!(said.contains("states no sha256"), "{said}");
    let right = format!("{ON_HUB}\nhub.sha256 = '{}'", sha256(&content()));
    fetched(&house.store(), &house.manifest(&[&right]), &content()).await;

    let server = good_hub();
    let house = House::new(&server.url());
    let wrong = format!("{ON_HUB}\nhub.sha256 = '{}'", sha256(b"other"));
    let said = refused(&house.store(), &house.manifest(&[&wrong])).await;
    assert!(
        said.contains("another file than the manifest says"),
        "{said}"
    );
    assert_eq!(server.requests("GET").len(), 0);
    let short = format!("{ON_HUB}\nhub.size_bytes = 5");
    let said = refused(&house.store(), &house.manifest(&[&short])).await;
    assert!(said.contains("3000001 bytes long, 5 were stated"), "{said}");
}

#[tokio::test]
async fn a_manifest_with_other_sources_does_not_count_what_is_here() {
    let server = good_hub();
    let house = House::new(&server.url());
    fetched(&house.store(), &house.on_hub(), &content()).await;
    let other = house.manifest(&[&ON_HUB.replace("main", "v2")]);
    assert_eq!(house.store().installed(&other), None);
    fetched(&house.store(), &other, &content()).await;
    assert_eq!(house.store().installed(&house.on_hub()), None);
    assert_eq!(house.store().installed_models().unwrap().len(), 1);
}

#[tokio::test]
async fn what_changed_on_disk_is_noticed() {
    let server = good_hub();
    let house = House::new(&server.url());
    let (store, manifest) = (house.store(), house.on_hub());
    let path = fetched(&store, &manifest, &content()).await;
    let mut spoilt = content();
    spoilt[77] ^= 1;
    fs::write(&path, &spoilt).unwrap();
    assert!(matches!(store.verify("tiny"), Err(Error::Corrupt { .. })));
    fs::write(&path, &spoilt[1..]).unwrap();
    assert_eq!(
        store.installed(&manifest),
        None,
        "a cut file is not a model"
    );
    fetched(&store, &manifest, &content()).await;
    assert!(store.verify("tiny").is_ok());
}

#[tokio::test]
async fn only_ids_are_removed() {
    let house = House::new("http://127.0.0.1:1");
    let outside = house.folder.path().join("precious");
    fs::create_dir(&outside).unwrap();
    for trick in ["../../precious", "..", ".", "", "/", "tiny/..", "tiny"] {
        assert!(
            matches!(house.store().remove(trick), Err(Error::NotInstalled { .. })),
            "{trick}"
        );
    }
    assert!(outside.exists() && house.home().join("models").exists());
}

#[tokio::test]
async fn what_is_being_fetched_cannot_be_removed() {
    let bytes = content();
    let tag = sha256(&bytes).to_string();
    let server = Server::start(move |request, _| file(request, &bytes, &tag).stalling_at(1000));
    let house = House::new(&server.url());
    let (store, manifest, heard) = (house.store(), house.on_hub(), Heard::default());
    let permit = permit();
    let fetch = store.fetch(&manifest, &permit, &heard);
    let remove = async {
        while heard.last_bytes().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        store.remove("tiny")
    };
    tokio::select! {
        _ = fetch => panic!("the server stalls"),
        removed = remove => assert!(matches!(removed, Err(Error::Busy { .. })), "{removed:?}"),
    }
}
