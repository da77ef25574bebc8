//! A folder in the pool: named, described, counted, refused.

use std::fs;

use ingle::backend::BackendErrorKind;
use ingle::backend::local::LocalBackend;
use ingle::embedding::{EmbedInput, EmbedRequest, Overlong};
use ingle::pool::PoolError;

use super::minilm;
use crate::pool::{House, Wish};

const ID: &str = "all-MiniLM-L6-v2";

fn request(model: &str) -> EmbedRequest {
    EmbedRequest {
        model: model.to_owned(),
        inputs: vec![EmbedInput::Text("a fire in the hearth".to_owned())],
        overlong: Overlong::Refuse,
        dimensions: None,
        keep_alive: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_weights_and_workspace_count_against_the_budget() {
    let house = House::new(Wish::default());
    assert_eq!(
        house
            .pool
            .resolve(minilm().to_str().unwrap())
            .unwrap()
            .as_str(),
        ID
    );
    let described = house.pool.describe(ID).await.unwrap();
    let file = described.file.unwrap();
    assert_eq!(
        (&*file.architecture, file.weight_type, file.n_ctx),
        ("bert", "F32", 256)
    );
    assert_eq!((file.shape.n_layers, file.shape.n_embd), (6, 384));
    // Its file holds the values of a pooler, too, and of positions.
    assert!(
        (22_500_000..22_717_000).contains(&file.n_parameters),
        "{}",
        file.n_parameters
    );
    let needed = described.requirements[0].total();
    let backend = LocalBackend::new(house.pool.clone());
    let made = backend.embed(request(ID), None).await.unwrap();
    assert_eq!((made.vectors.len(), made.n_tokens), (1, 7));
    let status = house.pool.status().await.swap_remove(0);
    assert_eq!(status.memory, needed);
    assert!(house.pool.unload(ID).await.unwrap());

    let small = House::new(Wish {
        budget_bytes: Some(needed.host - 1),
        ..Wish::default()
    });
    small.pool.register(&minilm()).unwrap();
    let refused = small.pool.acquire(ID, None).await.err().unwrap();
    assert!(
        matches!(refused, PoolError::NotEnoughMemory { .. }),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_none_is_told_by_its_path() {
    let house = House::new(Wish::default());
    let ground = tempfile::tempdir().unwrap();
    let empty = ground.path().join("nothing.v2");
    fs::create_dir(&empty).unwrap();
    let error = house.pool.register(&empty).unwrap_err().to_string();
    assert!(
        error.contains("neither a file nor a folder with a config.json"),
        "{error}"
    );
    fs::write(empty.join("config.json"), "{\"model_type\": \"t5\"}").unwrap();
    // The whole name is its name: it has no ending that says what it is.
    assert_eq!(house.pool.register(&empty).unwrap().as_str(), "nothing.v2");
    let backend = LocalBackend::new(house.pool.clone());
    let error = backend
        .embed(request("nothing.v2"), None)
        .await
        .unwrap_err();
    assert!(
        matches!(error.kind, BackendErrorKind::LoadFailed { .. }),
        "{error:?}"
    );
    assert!(
        error.message.contains("model type \"t5\" is not supported"),
        "{error}"
    );
}
