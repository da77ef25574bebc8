//! Files at plain addresses.

use std::fs;

use super::broken::nobody;
use super::server::{Reply, Server, file};
use super::{House, content, fetched, refused, sha256};

fn source(url: &str, bytes: &[u8]) -> String {
    format!("url.url = '{url}'\nurl.sha256 = '{}'", sha256(bytes))
}

#[tokio::test]
async fn an_address_and_a_checksum_are_enough() {
    // Its tag is no checksum, and it answers nothing but GET.
    for answers_head in [true, false] {
        for is_spread in [true, false] {
            let bytes = content();
            let server = Server::start(move |request, n_before| match request.method.as_str() {
                "HEAD" if !answers_head => Reply::status(405),
                "GET" if n_before == 0 => file(request, &bytes, "7").cut_at(100_000),
                _ => file(request, &bytes, "7"),
            });
            let mut house = House::new(&nobody());
            if is_spread {
                house = house.spread();
            }
            let url = format!("{}/m/download?key=secret", server.url());
            let manifest = house.manifest(&[&source(&url, &content())]);
            fetched(&house.store(), &manifest, &content()).await;
            assert_eq!(server.n_sent(), content().len(), "no byte twice");
            let receipt =
                fs::read_to_string(house.home().join("models/tiny/receipt.toml")).unwrap();
            assert!(
                receipt.contains("/m/download") && !receipt.contains("secret"),
                "{receipt}"
            );
            assert_eq!(server.requests("GET")[0].path, "/m/download?key=secret");
        }
    }
}

#[tokio::test]
async fn a_password_in_an_address_goes_to_its_host_alone_and_is_never_shown() {
    let bytes = content();
    let elsewhere = Server::start(move |request, _| file(request, &bytes, "7"));
    let target = format!("{}/blob", elsewhere.other_url());
    let server = Server::start(move |_, _| Reply::status(302).header("location", &target));
    let house = House::new(&nobody()).with_token();
    let url = server.url().replace("http://", "http://me:word@") + "/m.gguf";
    let manifest = house.manifest(&[&source(&url, &content())]);
    fetched(&house.store(), &manifest, &content()).await;
    let told = |server: &Server| {
        server.requests("GET")[0]
            .header("authorization")
            .map(str::to_owned)
    };
    assert!(told(&server).unwrap().starts_with("Basic "));
    assert_eq!(told(&elsewhere), None);

    let manifest = house.manifest(&[&source(&url, b"other")]);
    let said = refused(&house.store(), &manifest).await;
    assert!(
        said.contains("thrown away") && !said.contains("word"),
        "{said}"
    );
    house.store().remove("tiny").unwrap();
    house.assert_nothing_visible();
}

#[tokio::test]
async fn refusals_speak_of_the_address() {
    for (status, advice) in [
        (401, "use an address open to all"),
        (403, "use an address open to all"),
        (404, "check url in the model's manifest"),
        (
            429,
            "too many requests: wait and try again (it asks to wait 40 s)",
        ),
        (503, "try again later"),
    ] {
        let server = Server::start(move |_, _| Reply::status(status).header("retry-after", 40));
        let house = House::new(&nobody());
        let url = format!("{}/m.gguf?key=secret", server.url());
        let said = refused(&house.store(), &house.manifest(&[&source(&url, b"")])).await;
        assert!(said.contains(advice) && !said.contains("secret"), "{said}");
        assert!(
            said.contains(&format!("/m.gguf answers {status}")),
            "{said}"
        );
    }
}

#[tokio::test]
async fn several_addresses_are_one_model() {
    let server = Server::start(|request, _| file(request, request.path.as_bytes(), "7"));
    let house = House::new(&nobody());
    let names = ["t-00001-of-00002.gguf", "t-00002-of-00002.gguf"];
    let entry = |name: &str| {
        let sha256 = sha256(format!("/x/{name}").as_bytes());
        format!(
            "{{ url = '{}/x/{name}', sha256 = '{sha256}' }}",
            server.url()
        )
    };
    let text = format!("url.files = [{}, {}]", entry(names[0]), entry(names[1]));
    let first = format!("/x/{}", names[0]);
    let path = fetched(&house.store(), &house.manifest(&[&text]), first.as_bytes()).await;
    assert!(path.ends_with(names[0]));
}
