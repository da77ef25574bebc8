//! What is said where the hub says more than a number.

use super::server::{Reply, Server, file};
use super::{HUB_PATH, House, content, fetched, refused, sha256};

fn refusing(status: u16, code: &'static str) -> Server {
    Server::start(move |_, _| Reply::status(status).header("x-error-code", code))
}

#[tokio::test]
async fn what_the_hub_says_is_wrong_is_passed_on_with_the_page_to_visit() {
    for (status, code, with_token, advice) in [
        (
            401,
            "GatedRepo",
            false,
            "gated: accept its terms on {hub}/some/model and set HF_TOKEN",
        ),
        (
            403,
            "GatedRepo",
            true,
            "gated: accept its terms on {hub}/some/model with the account of",
        ),
        (
            401,
            "RepoNotFound",
            false,
            "no repository some/model, or it is private: check hub.repo",
        ),
        (
            404,
            "RepoNotFound",
            true,
            "the token in HF_TOKEN may not read it: check hub.repo",
        ),
        (
            404,
            "RevisionNotFound",
            false,
            "some/model has no revision main: check hub.revision",
        ),
        (
            404,
            "EntryNotFound",
            false,
            "has no file sub/tiny.gguf in revision main: check hub.file",
        ),
        (401, "", true, "make another on {hub}/settings/tokens"),
    ] {
        let server = refusing(status, code);
        let mut house = House::new(&server.url());
        if with_token {
            house = house.with_token();
        }
        let said = refused(&house.store(), &house.on_hub()).await;
        let advice = advice.replace("{hub}", &server.url());
        assert!(said.contains(&advice), "{code}: {said}");
        assert!(!said.contains("hf_secret"), "{said}");
    }
}

#[tokio::test]
async fn a_file_store_behind_the_hub_is_not_taken_for_the_hub() {
    let store = Server::start(|_, _| Reply::status(403).header("x-error-code", "GatedRepo"));
    let elsewhere = format!("{}/blob?X-Signature=abc", store.other_url());
    let hub = Server::start(move |_, _| {
        Reply::status(302)
            .header("location", &elsewhere)
            .header("x-linked-etag", format!("\"{}\"", sha256(b"x")))
            .header("x-linked-size", 1)
    });
    let house = House::new(&hub.url()).with_token();
    let said = refused(&house.store(), &house.on_hub()).await;
    assert!(
        said.contains("where the file is stored was refused: try again"),
        "{said}"
    );
    assert!(
        !said.contains("abc") && !said.contains("HF_TOKEN"),
        "{said}"
    );
}

#[tokio::test]
async fn packed_answers_are_not_taken_for_the_file() {
    for house in [House::new, |url: &str| House::new(url).spread()] {
        let bytes = content();
        let tag = sha256(&bytes).to_string();
        let server = Server::start(move |request, _| {
            let reply = file(request, &bytes, &tag);
            match request.method.as_str() {
                "GET" => reply.header("content-encoding", "gzip"),
                _ => reply,
            }
        });
        let house = house(&server.url());
        let said = refused(&house.store(), &house.on_hub()).await;
        assert!(said.contains("content-encoding \"gzip\""), "{said}");
        let asked = server.requests("GET");
        assert_eq!(asked.len(), 1, "it will not pass");
        assert_eq!(asked[0].header("accept-encoding"), Some("identity"));
        house.assert_nothing_visible();
    }
}

#[tokio::test]
async fn a_commit_is_what_the_hub_must_answer_from() {
    let asked = "0123456789abcdef0123456789abcdef01234567";
    let path = HUB_PATH.replace("main", asked);
    for (answered, is_it) in [
        (asked, true),
        ("fedcba9876543210fedcba9876543210fedcba98", false),
    ] {
        let bytes = content();
        let tag = sha256(&bytes).to_string();
        let path = path.clone();
        let server = Server::start(move |request, _| {
            assert_eq!(request.path, path);
            file(request, &bytes, &tag).header("x-repo-commit", answered)
        });
        let house = House::new(&server.url());
        let manifest = house.manifest(&[&super::ON_HUB.replace("main", asked)]);
        if is_it {
            fetched(&house.store(), &manifest, &content()).await;
            let receipt = std::fs::read_to_string(house.home().join("models/tiny/receipt.toml"));
            assert!(receipt.unwrap().contains(&format!("commit = \"{asked}\"")));
        } else {
            let said = refused(&house.store(), &manifest).await;
            assert!(said.contains(asked) && said.contains(answered), "{said}");
            assert_eq!(server.requests("GET").len(), 0);
        }
    }
}
