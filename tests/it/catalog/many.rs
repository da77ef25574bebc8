//! Models of several files: shards of a GGUF, or a folder of weights, tokenizer and configuration.

use std::fs;

use ingle::catalog::{FetchEvent, Manifest};

use super::server::{Reply, Request, Server, file};
use super::{Heard, House, content, permit, refused, sha256};

const CONFIG: &[u8] = b"{\"hidden_size\": 8}";

/// The files of a repository, by path.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", CONFIG.to_vec()),
        ("1_Pooling/config.json", CONFIG.to_vec()),
        ("model.safetensors", content()),
    ]
}

/// A hub with these files, which states the checksum of large ones only, as the real one does.
fn hub_of(
    files: Vec<(&'static str, Vec<u8>)>,
    change: impl Fn(&Request, Reply, usize) -> Reply + Send + Sync + 'static,
) -> Server {
    Server::start(move |request, n_before| {
        let path = request.path.strip_prefix("/some/model/resolve/main/");
        let found = files.iter().find(|(name, _)| Some(*name) == path);
        let Some((_, bytes)) = found else {
            return Reply::status(404);
        };
        let tag = match bytes.len() {
            0..1000 => "9d1c".to_owned(),
            _ => sha256(bytes).to_string(),
        };
        change(request, file(request, bytes, &tag), n_before)
    })
}

fn good_hub() -> Server {
    hub_of(files(), |_, reply, _| reply)
}

/// The model `tiny` of these files, on the hub.
fn on_hub(house: &House) -> Manifest {
    let small = sha256(CONFIG);
    let source = format!(
        "hub.repo = 'some/model'\nhub.revision = 'main'\nhub.files = [\n\
         {{ file = 'config.json', sha256 = '{small}' }},\n\
         {{ file = '1_Pooling/config.json', name = '1_Pooling/config.json', sha256 = '{small}' }},\n\
         {{ file = 'model.safetensors' }},\n]"
    );
    house.manifest(&[&source])
}

fn assert_whole(house: &House) {
    let folder = house.home().join("models/tiny");
    for (name, bytes) in files() {
        super::assert_holds(&folder.join(name), &bytes);
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 4, "and a receipt");
}

#[tokio::test]
async fn all_files_appear_together_in_one_folder() {
    let server = good_hub();
    let house = House::new(&server.url());
    let (store, manifest) = (house.store(), on_hub(&house));
    let heard = Heard::default();
    let path = store.fetch(&manifest, &permit(), &heard).await.unwrap();
    assert_eq!(path, house.home().join("models/tiny"));
    assert_eq!(store.installed(&manifest), Some(path));
    assert_whole(&house);

    let model = store.verify("tiny").unwrap();
    let names: Vec<_> = model.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(
        names,
        ["1_Pooling/config.json", "config.json", "model.safetensors"]
    );
    assert_eq!(model.source, "hub some/model@main, 3 files");
    let all = u64::try_from(content().len() + 2 * CONFIG.len()).unwrap();
    assert_eq!(model.size_bytes, all);
    let told = heard.all();
    let n_told = |event: &&FetchEvent| matches!(event, FetchEvent::File { count: 3, .. });
    assert_eq!(told.iter().filter(n_told).count(), 3);
    let done = FetchEvent::Bytes {
        done: all,
        total: Some(all),
    };
    assert!(told.contains(&done), "bytes are those of all files");
    let pins = fs::read_to_string(house.home().join("pins/tiny.toml")).unwrap();
    assert!(
        pins.contains("hub some/model@main/model.safetensors"),
        "{pins}"
    );

    fs::remove_file(house.home().join("models/tiny/1_Pooling/config.json")).unwrap();
    assert_eq!(store.installed(&manifest), None, "a model lacks no file");
    assert!(store.installed_models().unwrap().is_empty());
    store.remove("tiny").unwrap();
    house.assert_nothing_visible();
}

#[tokio::test]
async fn shards_are_opened_at_the_first() {
    let names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
    let shards = vec![(names[0], vec![1; 2000]), (names[1], vec![2; 3000])];
    let server = hub_of(shards, |_, reply, _| reply);
    let house = House::new(&server.url());
    // In whatever order they are listed.
    let source = format!(
        "hub.repo = 'some/model'\nhub.revision = 'main'\n\
         hub.files = [{{ file = '{}' }}, {{ file = '{}' }}]",
        names[1], names[0]
    );
    let manifest = house.manifest(&[&source]);
    let path = super::fetched(&house.store(), &manifest, &[1; 2000]).await;
    assert_eq!(path, house.home().join("models/tiny").join(names[0]));
}

#[tokio::test]
async fn what_one_file_lacks_is_known_before_another_is_fetched() {
    let without = files().into_iter().take(2).collect();
    let server = hub_of(without, |_, reply, _| reply);
    let house = House::new(&server.url());
    let said = refused(&house.store(), &on_hub(&house)).await;
    assert!(said.contains("model.safetensors answers 404"), "{said}");
    assert_eq!(server.requests("GET").len(), 0);
    house.assert_nothing_visible();
}

#[tokio::test]
async fn one_wrong_file_lets_none_appear_and_the_others_are_not_fetched_again() {
    let server = hub_of(files(), |request, mut reply, _| {
        if request.method == "GET" && request.path.ends_with("model.safetensors") {
            reply.body[77] ^= 1;
        }
        reply
    });
    let mut house = House::new(&server.url());
    let manifest = on_hub(&house);
    let said = refused(&house.store(), &manifest).await;
    assert!(said.contains("thrown away"), "{said}");
    house.assert_nothing_visible();
    assert!(!house.home().join("pins/tiny.toml").exists());

    let server = good_hub();
    house.hub.endpoint = server.url();
    house
        .store()
        .fetch(&manifest, &permit(), &())
        .await
        .unwrap();
    assert_whole(&house);
    let asked = server.requests("GET");
    let paths: Vec<_> = asked.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(paths, ["/some/model/resolve/main/model.safetensors"]);
}

#[tokio::test]
async fn a_repository_that_changes_between_two_files_is_not_mixed() {
    let server = hub_of(files(), |request, reply, _| {
        let is_last = request.path.ends_with("model.safetensors");
        reply.header("x-repo-commit", if is_last { "222" } else { "111" })
    });
    let house = House::new(&server.url());
    let said = refused(&house.store(), &on_hub(&house)).await;
    assert!(said.contains("moved from commit 111 to 222"), "{said}");
    assert_eq!(server.requests("GET").len(), 0);
}

#[tokio::test]
async fn an_end_at_any_step_of_putting_files_into_place_costs_no_download() {
    let server = good_hub();
    let house = House::new(&server.url());
    let (store, manifest) = (house.store(), on_hub(&house));
    store.fetch(&manifest, &permit(), &()).await.unwrap();
    let (placed, partial) = (
        house.home().join("models/tiny"),
        house.home().join("partial/tiny"),
    );
    let ready = partial.join("ready");
    let n_asked = server.requests("GET").len();
    // Before the last rename: all is gathered, and nothing visible.
    fs::create_dir_all(&partial).unwrap();
    fs::rename(&placed, &ready).unwrap();
    house.assert_nothing_visible();
    store.fetch(&manifest, &permit(), &()).await.unwrap();
    assert_whole(&house);
    // Before a file was moved.
    fs::create_dir_all(&partial).unwrap();
    fs::rename(&placed, &ready).unwrap();
    let part = partial.join(format!("{}.part", sha256(&content())));
    fs::rename(ready.join("model.safetensors"), part).unwrap();
    store.fetch(&manifest, &permit(), &()).await.unwrap();
    assert_whole(&house);
    assert_eq!(server.requests("GET").len(), n_asked);
    assert!(!partial.exists());
    // Before the receipt was whole: nobody knows what the files are.
    fs::create_dir_all(&partial).unwrap();
    fs::rename(&placed, &ready).unwrap();
    fs::write(ready.join("receipt.toml"), "source = ").unwrap();
    store.fetch(&manifest, &permit(), &()).await.unwrap();
    assert_whole(&house);
}

#[tokio::test]
async fn a_manifest_that_lists_other_files_does_not_count_what_is_here() {
    let server = good_hub();
    let house = House::new(&server.url());
    let manifest = on_hub(&house);
    house
        .store()
        .fetch(&manifest, &permit(), &())
        .await
        .unwrap();
    let mut other = manifest.clone();
    let ingle::catalog::Source::Hub(hub) = &mut other.sources[0] else {
        panic!("it is on the hub");
    };
    hub.files.truncate(2);
    assert_eq!(house.store().installed(&other), None);
    assert!(house.store().installed(&manifest).is_some());
}
