//! The pool with real (tiny) models: one load for many, failures, memory, leases.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingle::catalog::{Catalog, Store};
use ingle::chat::Sampling;
use ingle::engine::{EngineOptions, Event, GenerateRequest};
use ingle::keep_alive::KeepAlive;
use ingle::model::{CachePages, KvType};
use ingle::pool::{Bytes, Lease, LoadEvent, LoadStage, ModelState, Pool, PoolError, PoolOptions};
use ingle_kernels::{Isa, Team};
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;

use crate::gguf_file::TinyLlama;

/// A pool over an empty store, and a folder for model files.
pub(crate) struct House {
    pub(crate) pool: Pool,
    folder: TempDir,
}

/// What a test wants otherwise than usual.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wish {
    pub(crate) budget_bytes: Option<u64>,
    pub(crate) n_ctx: Option<u32>,
    pub(crate) engine: EngineOptions,
    pub(crate) keep_alive: KeepAlive,
    /// A request for a model that is not in memory is refused.
    pub(crate) loads_nothing: bool,
}

impl House {
    /// Offline; on two threads.
    pub(crate) fn new(wish: Wish) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pool = Pool::start(PoolOptions {
            catalog: Arc::new(Catalog::load(None).unwrap()),
            store: Arc::new(Store::open(&folder.path().join("store")).unwrap()),
            fetch_permit: None,
            team: Team::new(2.try_into().unwrap(), Isa::detect()),
            n_ctx: wish.n_ctx,
            kv_type: KvType::F16,
            cache_pages: CachePages::AsWritten,
            memory_budget_bytes: wish.budget_bytes.or(Some(1 << 32)),
            gpu: None,
            keep_alive: wish.keep_alive,
            autoload: !wish.loads_nothing,
            engine: wish.engine,
        });
        Self { pool, folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.gguf"))
    }

    /// Writes `tiny` as `<name>.gguf` and makes it known.
    pub(crate) fn serve(&self, name: &str, tiny: &TinyLlama) {
        let path = self.path(name);
        tiny.write(&path);
        assert_eq!(self.pool.register(&path).unwrap().as_str(), name);
    }

    async fn state(&self, name: &str) -> Option<ModelState> {
        let status = self.pool.status().await;
        status
            .into_iter()
            .find(|model| model.id.as_str() == name)
            .map(|model| model.state)
    }

    /// Waits until the model is in a state that `is` says yes to.
    async fn until(&self, name: &str, is: impl Fn(Option<&ModelState>) -> bool) {
        let give_up = Instant::now() + Duration::from_secs(20);
        loop {
            let state = self.state(name).await;
            if is(state.as_ref()) {
                return;
            }
            assert!(Instant::now() < give_up, "{name} stays in {state:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// How often the events heard so far say that `name`'s file was opened, and that it became ready.
fn loads(events: &mut Receiver<LoadEvent>, name: &str) -> (usize, usize) {
    let mut heard = Vec::new();
    while let Ok(event) = events.try_recv() {
        if event.model.as_str() == name {
            heard.push(event.stage);
        }
    }
    let count = |stage| heard.iter().filter(|heard| **heard == stage).count();
    (count(LoadStage::Opening), count(LoadStage::Ready))
}

/// Four greedy tokens after a prompt of three.
async fn generate(lease: &Lease) -> Vec<u32> {
    let mut events = lease
        .chat()
        .unwrap()
        .engine
        .submit(GenerateRequest {
            prompt: vec![10, 20, 30],
            sampling: Sampling {
                temperature: Some(0.0),
                ..Sampling::default()
            },
            max_new_tokens: 4,
            stop_tokens: Vec::new(),
        })
        .unwrap();
    let mut tokens = Vec::new();
    loop {
        match events.recv().await.unwrap() {
            Event::Token(token) => tokens.push(token),
            Event::Finished { .. } => return tokens,
            Event::Failed(error) => panic!("{error}"),
        }
    }
}

fn is_ready(state: Option<&ModelState>) -> bool {
    matches!(state, Some(ModelState::Ready { .. }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_acquires_share_one_load() {
    let house = House::new(Wish::default());
    house.serve("tiny", &TinyLlama::default());
    let mut events = house.pool.load_events();
    let waiting = (0..32).map(|_| {
        let pool = house.pool.clone();
        tokio::spawn(async move { pool.acquire("tiny", None).await })
    });
    let mut leases = Vec::new();
    for lease in waiting.collect::<Vec<_>>() {
        leases.push(lease.await.unwrap().unwrap());
    }
    assert_eq!(
        house.state("tiny").await,
        Some(ModelState::Ready { n_leases: 32 })
    );
    assert_eq!(loads(&mut events, "tiny"), (1, 1));
    let first = generate(&leases[0]).await;
    assert_eq!(first.len(), 4);
    assert_eq!(generate(&leases[31]).await, first);
    drop(leases);
    house
        .until("tiny", |state| {
            state == Some(&ModelState::Ready { n_leases: 0 })
        })
        .await;
    let again = house
        .pool
        .acquire("tiny", Some(Instant::now() + Duration::from_secs(5)))
        .await;
    assert!(again.is_ok());
    assert_eq!(
        loads(&mut events, "tiny"),
        (0, 0),
        "a ready model is not loaded again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_load_keeps_its_reason_backs_off_and_harms_nobody() {
    let house = House::new(Wish::default());
    house.serve("sound", &TinyLlama::default());
    house.serve("broken", &TinyLlama::default());
    let whole = fs::read(house.path("broken")).unwrap();
    fs::write(house.path("broken"), &whole[..whole.len() / 2]).unwrap();
    let mut events = house.pool.load_events();

    let failed = house.pool.acquire("broken", None).await.err().unwrap();
    let PoolError::LoadFailed { reason, .. } = &failed else {
        panic!("{failed:?}")
    };
    assert!(
        failed
            .to_string()
            .starts_with("broken could not be loaded: "),
        "{failed}"
    );
    let at_once = house.pool.acquire("broken", None).await.err().unwrap();
    let PoolError::LoadFailed {
        reason: same,
        retry_in,
        ..
    } = &at_once
    else {
        panic!("{at_once:?}")
    };
    assert_eq!(same, reason);
    assert_eq!(
        loads(&mut events, "broken"),
        (1, 0),
        "not tried again at once"
    );
    assert!(matches!(
        house.state("broken").await,
        Some(ModelState::Failed { .. })
    ));
    assert!(house.pool.acquire("sound", None).await.is_ok());

    fs::write(house.path("broken"), &whole).unwrap();
    tokio::time::sleep(*retry_in + Duration::from_millis(20)).await;
    assert!(
        house.pool.acquire("broken", None).await.is_ok(),
        "mended and tried again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unload_waits_for_the_lease_and_the_lease_still_answers() {
    let house = House::new(Wish::default());
    house.serve("tiny", &TinyLlama::default());
    assert!(
        !house.pool.unload("tiny").await.unwrap(),
        "it is not in memory yet"
    );
    let lease = house.pool.acquire("tiny", None).await.unwrap();
    let before = generate(&lease).await;
    let pool = house.pool.clone();
    let unload = tokio::spawn(async move { pool.unload("tiny").await });
    house
        .until("tiny", |state| {
            state == Some(&ModelState::Draining { n_leases: 1 })
        })
        .await;
    assert_eq!(generate(&lease).await, before);
    assert!(!unload.is_finished());
    // One who comes now is not sent into the model that leaves, and gets it loaded anew.
    let pool = house.pool.clone();
    let late = tokio::spawn(async move { pool.acquire("tiny", None).await });
    drop(lease);
    assert!(unload.await.unwrap().unwrap());
    assert_eq!(generate(&late.await.unwrap().unwrap()).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_waits_for_leases_up_to_its_bound() {
    let house = House::new(Wish::default());
    house.serve("tiny", &TinyLlama::default());
    let lease = house.pool.acquire("tiny", None).await.unwrap();
    assert_eq!(house.pool.shutdown(Duration::from_millis(100)).await, 1);
    assert_eq!(generate(&lease).await.len(), 4, "a lease outlives the pool");
    let refused = house.pool.acquire("tiny", None).await.err();
    assert_eq!(refused, Some(PoolError::ShuttingDown));

    let house = House::new(Wish::default());
    house.serve("tiny", &TinyLlama::default());
    let lease = house.pool.acquire("tiny", None).await.unwrap();
    let pool = house.pool.clone();
    let begun = Instant::now();
    let shutdown = tokio::spawn(async move { pool.shutdown(Duration::from_mins(1)).await });
    house.until("tiny", |state| !is_ready(state)).await;
    let refused = house.pool.acquire("tiny", None).await.err();
    assert_eq!(
        refused,
        Some(PoolError::ShuttingDown),
        "refused while others finish"
    );
    drop(lease);
    assert_eq!(shutdown.await.unwrap(), 0);
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "ends with its last lease"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_leaves_leaves_the_load_going() {
    let house = House::new(Wish::default());
    house.serve("tiny", &TinyLlama::default());
    let passed = house
        .pool
        .acquire("tiny", Some(Instant::now()))
        .await
        .err()
        .unwrap();
    assert!(
        matches!(passed, PoolError::DeadlinePassed { .. }),
        "{passed:?}"
    );
    house.until("tiny", is_ready).await;
    assert_eq!(
        house.state("tiny").await,
        Some(ModelState::Ready { n_leases: 0 })
    );
    // And a future that is dropped, rather than one that is late.
    assert!(house.pool.unload("tiny").await.unwrap());
    let pool = house.pool.clone();
    let waiter = tokio::spawn(async move { pool.acquire("tiny", None).await.map(drop) });
    house.until("tiny", |state| state.is_some()).await;
    waiter.abort();
    house
        .until("tiny", |state| {
            state == Some(&ModelState::Ready { n_leases: 0 })
        })
        .await;
}

/// What a tiny model of that context holds when memory is plentiful.
pub(crate) async fn bytes_of(tiny: &TinyLlama) -> u64 {
    let house = House::new(Wish::default());
    house.serve("tiny", tiny);
    house.pool.preload("tiny").await.unwrap();
    house.pool.status().await[0].memory.host
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_fit_is_refused_with_the_numbers() {
    let tiny = TinyLlama::default();
    let house = House::new(Wish {
        budget_bytes: Some(50_000),
        ..Wish::default()
    });
    house.serve("tiny", &tiny);
    let refused = house.pool.acquire("tiny", None).await.err().unwrap();
    let PoolError::NotEnoughMemory {
        needed,
        n_ctx,
        budget,
        ..
    } = refused.clone()
    else {
        panic!("{refused:?}")
    };
    assert_eq!((n_ctx, budget), (512, Bytes::on_host(50_000)));
    // K and V, two layers, two heads of 16, two bytes each, 512 positions.
    assert_eq!(needed.kv.host, 2 * 2 * 2 * 16 * 2 * 512);
    assert!(needed.weights.host >= 384 * 64 * 4, "{needed:?}");
    assert!(needed.workspace.host > 0);
    let text = refused.to_string();
    assert!(text.contains("the budget for models is 50.0 kB"), "{text}");
    assert!(
        text.contains("131.1 kB for the KV cache of one context of 512 tokens"),
        "{text}"
    );
    assert_eq!(house.state("tiny").await, None, "nothing is left of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_model_makes_room_and_a_held_one_does_not() {
    let tiny = TinyLlama::default();
    let one = bytes_of(&tiny).await;
    let house = House::new(Wish {
        budget_bytes: Some(one + one / 4),
        ..Wish::default()
    });
    house.serve("first", &tiny);
    house.serve("second", &tiny);
    house.pool.preload("first").await.unwrap();
    let second = house.pool.acquire("second", None).await.unwrap();
    assert_eq!(house.state("first").await, None, "evicted");
    // `second` is held: `first` waits for it, and is served the moment it is given back.
    let pool = house.pool.clone();
    let first = tokio::spawn(async move { pool.acquire("first", None).await });
    house
        .until("first", |state| state == Some(&ModelState::Queued))
        .await;
    assert_eq!(generate(&second).await.len(), 4);
    drop(second);
    assert!(first.await.unwrap().is_ok());
    let status = house.pool.status().await;
    let held: Bytes = status.iter().map(|model| model.memory).sum();
    assert!(held.fits(house.pool.budget()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_paths_and_shards() {
    let house = House::new(Wish {
        n_ctx: Some(96),
        ..Wish::default()
    });
    let path = house.path("tiny");
    TinyLlama::default().write(&path);
    let path_text = path.to_str().unwrap();

    let unknown = house.pool.acquire("smolm2", None).await.err().unwrap();
    assert!(
        unknown.to_string().contains("smollm2"),
        "names near ones: {unknown}"
    );
    let far = house.pool.acquire(path_text, None).await.err().unwrap();
    assert!(
        matches!(far, PoolError::UnknownModel { .. }),
        "a path is no name: {far}"
    );
    let missing = house.pool.preload("no/such/file.gguf").await.unwrap_err();
    assert!(matches!(missing, PoolError::BadPath { .. }), "{missing}");

    assert_eq!(
        house.pool.preload(path_text).await.unwrap().as_str(),
        "tiny"
    );
    let lease = house.pool.acquire("tiny", None).await.unwrap();
    assert_eq!((lease.id.as_str(), lease.n_ctx), ("tiny", 96));
    let mut models = house.pool.models().await;
    models.retain(|model| model.file.is_some());
    assert_eq!(
        models
            .iter()
            .map(|model| model.id.as_str())
            .collect::<Vec<_>>(),
        ["tiny"]
    );
    assert_eq!(
        models[0].file.as_ref().unwrap().path,
        path.canonicalize().unwrap()
    );

    let elsewhere = house.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::copy(&path, elsewhere.join("tiny.gguf")).unwrap();
    let taken = house
        .pool
        .register(&elsewhere.join("tiny.gguf"))
        .unwrap_err();
    assert!(
        taken.to_string().contains("served as `tiny` already"),
        "{taken}"
    );

    let shards = TinyLlama::default()
        .file()
        .write_shards(house.folder.path(), "sharded", 3);
    let first: &Path = &shards[0];
    assert_eq!(
        house
            .pool
            .preload(first.to_str().unwrap())
            .await
            .unwrap()
            .as_str(),
        "sharded"
    );
    let sharded = house.pool.acquire("sharded", None).await.unwrap();
    assert_eq!(generate(&sharded).await, generate(&lease).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline_a_model_that_is_not_here_is_refused() {
    let house = House::new(Wish::default());
    let refused = house.pool.acquire("smollm2", None).await.err().unwrap();
    assert!(refused.to_string().contains("offline"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_computed_is_named() {
    let house = House::new(Wish::default());
    let path = house.path("falcon");
    TinyLlama::default()
        .file()
        .set("general.architecture", "falcon")
        .write(&path);
    house.pool.register(&path).unwrap();
    let refused = house
        .pool
        .acquire("falcon", None)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        refused.starts_with("falcon could not be loaded: "),
        "{refused}"
    );
    assert!(
        refused.matches("falcon").count() >= 2,
        "names the architecture: {refused}"
    );
}
